"""The real kubectl against a real server on a loopback port."""

import asyncio
import contextlib
import json
import shutil
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ambit.local.apiserver.access.credentials import write_kubeconfig
from ambit.local.apiserver.server import ApiServer, ApiSettings
from tests.local.apiserver.streams import HostStreams

pytestmark = [pytest.mark.kubectl, pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl")]

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: g}]
  hostnames: [a.example]
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec: {containers: [{name: c, image: c}]}
"""


class Kubectl:
    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self.environment = {"KUBECONFIG": str(kubeconfig), "HOME": str(home), "PATH": "/usr/bin:/bin"}

    async def start(self, *arguments: str) -> Process:
        return await asyncio.create_subprocess_exec(
            "kubectl", *arguments, env=self.environment, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )

    async def run(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """Exit code and both outputs."""
        process = await self.start(*arguments)
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin.encode())
        return process.returncode or 0, out.decode() + err.decode()

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        code, text = await self.run(*arguments, stdin=stdin)
        assert code == 0, text
        return text


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    listener = socket.create_server(("127.0.0.1", 0))
    api = ApiServer(ApiSettings(tmp_path / "pki", tmp_path / "cluster.sqlite"), HostStreams())
    write_kubeconfig(
        tmp_path / "kubeconfig", api.credentials, f"https://127.0.0.1:{listener.getsockname()[1]}"
    )
    await api.start([listener], None)
    yield Kubectl(tmp_path / "kubeconfig", tmp_path)
    await api.stop()


async def test_the_everyday_commands(kubectl: Kubectl) -> None:
    assert "deployment.apps/web created" in await kubectl("create", "deployment", "web", "--image=web")
    assert "scaled" in await kubectl("scale", "deployment", "web", "--replicas=2")
    assert "0/2" in await kubectl("get", "deploy", "web")
    assert "exposed" in await kubectl("expose", "deployment", "web", "--port=80")
    assert "labeled" in await kubectl("label", "deployment", "web", "tier=front")
    assert "deployment.apps/web" in await kubectl("get", "all", "-l", "tier=front")
    assert "Replicas:" in await kubectl("describe", "deployment", "web")
    assert "deleted" in await kubectl("delete", "deployment", "web", "--cascade=background")


async def test_apply_and_edit_a_custom_object(kubectl: Kubectl) -> None:
    assert "created" in await kubectl("apply", "-f", "-", stdin=ROUTE)
    assert '["a.example"]' in await kubectl("get", "httproute", "r")
    changed = ROUTE.replace("a.example", "b.example")
    assert "configured" in await kubectl("apply", "-f", "-", stdin=changed)
    assert "b.example" in await kubectl("get", "httproute", "r", "-o", "jsonpath={.spec.hostnames}")
    code, text = await kubectl.run("apply", "-f", "-", stdin=ROUTE.replace("a.example", "-bad-"))
    assert code == 1 and 'The HTTPRoute "r" is invalid: spec.hostnames[0]: Invalid value: "-bad-"' in text
    code, text = await kubectl.run("apply", "-f", "-", stdin=ROUTE.replace("hostnames", "hostNames"))
    assert code == 1 and 'strict decoding error: unknown field "spec.hostNames"' in text


async def test_explain_and_discovery(kubectl: Kubectl) -> None:
    assert "Hostnames defines" in await kubectl("explain", "httproute.spec.hostnames")
    assert "containerPort" in await kubectl("explain", "pod.spec.containers.ports")
    listed = await kubectl("api-resources")
    assert "httproutes" in listed and "virtualservices" in listed and "deployments" in listed
    assert "Server Version: v1.34" in await kubectl("version")
    assert "condition met" in await kubectl(
        "wait", "--for=condition=Established", "crd/httproutes.gateway.networking.k8s.io"
    )


async def test_tokens_and_access(kubectl: Kubectl) -> None:
    await kubectl("create", "serviceaccount", "reader")
    token = (await kubectl("create", "token", "reader", "--duration=20m")).strip()
    as_reader = ("--token", token, "--kubeconfig", "/dev/null")
    config = json.loads(await kubectl("config", "view", "--raw", "-o", "json"))
    server = ("--server", config["clusters"][0]["cluster"]["server"], "--insecure-skip-tls-verify")
    code, text = await kubectl.run("get", "pods", *as_reader, *server)
    assert code == 1 and 'cannot list resource "pods" in API group "" in the namespace "default"' in text
    await kubectl("create", "rolebinding", "r", "--clusterrole=view", "--serviceaccount=default:reader")
    await kubectl("get", "pods", *as_reader, *server)
    assert "system:serviceaccount:default:reader" in await kubectl("auth", "whoami", *as_reader, *server)


async def test_logs(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=POD)
    assert await kubectl("logs", "p") == "one\ntwo\n"
    assert await kubectl("logs", "p", "--tail=1") == "two\n"


@pytest.mark.parametrize("websockets", ["true", "false"])
async def test_exec_over_websocket_and_spdy(kubectl: Kubectl, websockets: str) -> None:
    kubectl.environment["KUBECTL_REMOTE_COMMAND_WEBSOCKETS"] = websockets
    await kubectl("apply", "-f", "-", stdin=POD)
    assert await kubectl("exec", "p", "--", "echo", "hello") == "hello\n"
    assert await kubectl("exec", "-i", "p", "--", "cat", stdin="typed") == "typed"
    code, text = await kubectl.run("exec", "p", "--", "sh", "-c", "echo oops >&2; exit 3")
    assert (code, "oops" in text) == (3, True)
    large = await kubectl("exec", "p", "--", "head", "-c", "3000000", "/dev/zero")
    assert len(large) == 3000000


async def test_port_forward_carries_a_connection(kubectl: Kubectl) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    backend = await asyncio.start_server(upper, "127.0.0.1", 0)
    port = backend.sockets[0].getsockname()[1]
    await kubectl("apply", "-f", "-", stdin=POD.replace("name: p,", "name: p,").strip())
    await kubectl("patch", "pod", "p", "--subresource=status", "-p", '{"status":{"phase":"Running"}}')
    process = await kubectl.start("port-forward", "pod/p", f":{port}")
    try:
        assert process.stdout
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
            local = int(line.split("127.0.0.1:")[1].split(" ")[0])
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", local)
                writer.write(b"hello\n")
                assert await reader.read() == b"HELLO\n"
                writer.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        backend.close()
        await backend.wait_closed()


async def test_watching_with_a_table(kubectl: Kubectl) -> None:
    process = await kubectl.start("get", "pods", "-w")
    try:
        assert process.stdout
        made = asyncio.create_task(kubectl("apply", "-f", "-", stdin=POD))
        async with asyncio.timeout(60):
            header = (await process.stdout.readline()).decode().split()
            row = (await process.stdout.readline()).decode().split()
        await made
        assert header == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
        assert row[:4] == ["p", "0/1", "Pending", "0"]
    finally:
        process.kill()
        await process.wait()
