"""kubectl's rollout, wait, scale, delete and describe against the controllers."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ambit.kube.client import Client
from tests.local.controllers.conftest import workload

pytestmark = pytest.mark.kubectl

Kubectl = Callable[..., Awaitable[str]]


@pytest.fixture
async def kubectl(client: Client, tmp_path: Path) -> Kubectl:
    async def call(*arguments: str, stdin: object = None) -> str:
        process = await asyncio.create_subprocess_exec(
            *("kubectl", f"--kubeconfig={tmp_path}/kubeconfig", "--cache-dir", str(tmp_path / "cache")),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        body = json.dumps(stdin).encode() if stdin is not None else None
        output, errors = await asyncio.wait_for(process.communicate(body), 120)
        assert process.returncode == 0, f"kubectl {arguments}: {errors.decode()}{output.decode()}"
        return output.decode()

    return call


async def test_the_life_of_a_deployment(kubectl: Kubectl) -> None:
    value = {"apiVersion": "apps/v1", "kind": "Deployment", **workload("web", 3)}
    await kubectl("apply", "-f", "-", stdin=value)
    assert "successfully rolled out" in await kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    await kubectl("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
    await kubectl("set", "image", "deploy/web", "c=b")
    await kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    history = await kubectl("rollout", "history", "deploy/web")
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["1", "2"]
    await kubectl("rollout", "undo", "deploy/web")
    await kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    image = await kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}")
    assert image.split() == ["a", "a", "a"]
    await kubectl("rollout", "pause", "deploy/web")
    await kubectl("set", "image", "deploy/web", "c=c")
    await kubectl("rollout", "resume", "deploy/web")
    await kubectl("rollout", "restart", "deploy/web")
    await kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    await kubectl("scale", "deploy/web", "--replicas=1")
    await kubectl("wait", "--for=jsonpath={.status.replicas}=1", "deploy/web", "--timeout=60s")
    described = await kubectl("describe", "deploy", "web")
    assert "ScalingReplicaSet" in described
    assert "NewReplicaSetAvailable" in described
    await kubectl("delete", "deploy", "web", "--cascade=foreground", "--timeout=60s")
    await kubectl("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=60s")


async def test_rollout_of_daemon_and_stateful_sets(kubectl: Kubectl) -> None:
    daemon = {"apiVersion": "apps/v1", "kind": "DaemonSet", **workload("agent")}
    del daemon["spec"]["replicas"]
    stateful = {"apiVersion": "apps/v1", "kind": "StatefulSet", **workload("db", 2, serviceName="db")}
    for kind, value in (("ds/agent", daemon), ("sts/db", stateful)):
        await kubectl("apply", "-f", "-", stdin=value)
        await kubectl("rollout", "status", kind, "--timeout=60s")
        await kubectl("set", "image", kind, "c=b")
        await kubectl("rollout", "status", kind, "--timeout=60s")
        await kubectl("rollout", "undo", kind)
        await kubectl("rollout", "status", kind, "--timeout=60s")
        history = await kubectl("rollout", "history", kind)
        assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["2", "3"]


async def test_a_namespace_can_be_deleted(kubectl: Kubectl) -> None:
    await kubectl("create", "namespace", "shop")
    await kubectl("create", "deployment", "web", "--image=a", "-n", "shop")
    await kubectl("rollout", "status", "deploy/web", "-n", "shop", "--timeout=60s")
    await kubectl("expose", "deploy", "web", "--port=80", "-n", "shop")
    await kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=web", "-n", "shop", "--timeout=60s")
    described = await kubectl("describe", "service", "web", "-n", "shop")
    assert ":80" in described.split("Endpoints:")[1].splitlines()[0]
    await kubectl("delete", "namespace", "shop", "--timeout=60s")


async def test_a_job_is_waited_for(kubectl: Kubectl) -> None:
    await kubectl("create", "job", "j", "--image=once")
    await kubectl("wait", "--for=condition=Complete", "job/j", "--timeout=60s")
