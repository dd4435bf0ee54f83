"""Python clients people use, unmodified: lightkube and kopf."""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ambit.local.apiserver.access.credentials import write_kubeconfig
from ambit.local.apiserver.server import ApiServer, ApiSettings

OPERATOR = """
import kopf

@kopf.on.create("configmaps", labels={"watched": "yes"})
def created(name, **_):
    print("created", name, flush=True)

@kopf.on.field("configmaps", field="data", labels={"watched": "yes"}, old=kopf.PRESENT)
def changed(name, new, **_):
    print("changed", name, dict(new), flush=True)

@kopf.on.delete("configmaps", labels={"watched": "yes"})
def deleted(name, **_):
    print("deleted", name, flush=True)
"""


@pytest.fixture
async def kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    listener = socket.create_server(("127.0.0.1", 0))
    api = ApiServer(ApiSettings(tmp_path / "pki", tmp_path / "cluster.sqlite"), None)
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, api.credentials, f"https://127.0.0.1:{listener.getsockname()[1]}")
    await api.start([listener], None)
    yield path
    await api.stop()


async def test_lightkube(kubeconfig: Path) -> None:
    lightkube = pytest.importorskip("lightkube")
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import ConfigMap

    client = lightkube.AsyncClient(
        config=lightkube.KubeConfig.from_file(str(kubeconfig)), field_manager="tests"
    )
    body = ConfigMap(metadata=ObjectMeta(name="a", namespace="default"), data={"k": "1"})
    await client.create(body)
    await client.apply(
        ConfigMap(
            apiVersion="v1",
            kind="ConfigMap",
            metadata=ObjectMeta(name="b", namespace="default", labels={"x": "y"}),
            data={"k": "2"},
        )
    )
    names = [one.metadata.name async for one in client.list(ConfigMap, namespace="default")]
    assert names == ["a", "b"]
    await client.patch(ConfigMap, "a", {"data": {"k": "3"}}, namespace="default")
    seen = []
    async with asyncio.timeout(60):
        async for kind, found in client.watch(ConfigMap, namespace="default"):
            seen.append((kind, found.metadata.name, found.data))
            if len(seen) == 2:
                break
    assert sorted(seen) == [("ADDED", "a", {"k": "3"}), ("ADDED", "b", {"k": "2"})]
    await client.delete(ConfigMap, "a", namespace="default")
    await client.close()


@pytest.mark.kubectl
@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl")
async def test_a_kopf_operator(kubeconfig: Path, tmp_path: Path) -> None:
    pytest.importorskip("kopf")
    (tmp_path / "operator.py").write_text(OPERATOR)
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kopf",
        "run",
        "--namespace=default",
        "--standalone",
        str(tmp_path / "operator.py"),
        stdout=PIPE,
        stderr=STDOUT,
        env=environment,
    )
    assert process.stdout

    async def until(text: str) -> None:
        assert process.stdout
        async for line in process.stdout:
            if text in line.decode():
                return
        raise AssertionError(f"the operator ended before {text!r}")

    async def kubectl(*arguments: str) -> None:
        run = await asyncio.create_subprocess_exec(
            "kubectl", *arguments, env=environment, stdout=PIPE, stderr=PIPE
        )
        _, error = await run.communicate()
        assert run.returncode == 0, error

    try:
        async with asyncio.timeout(240):
            await kubectl("create", "configmap", "m", "--from-literal=k=1")
            await kubectl("label", "configmap", "m", "watched=yes")
            await until("created m")
            await kubectl("patch", "configmap", "m", "-p", '{"data":{"k":"2"}}')
            await until("changed m {'k': '2'}")
            await kubectl("delete", "configmap", "m")
            await until("deleted m")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
