"""A real API server with all controllers, two nodes, and a stand-in for the pod runner."""

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ambit.core.errors import AmbitError
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.informer import Informer
from ambit.kube.resource import DEPLOYMENTS, NODES, PODS, Resource
from ambit.kube.workqueue import WorkQueue
from ambit.local.apiserver.access.credentials import write_kubeconfig
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.local.controllers.caches import decode_object
from ambit.local.controllers.objects import timestamp
from ambit.local.controllers.run import run_controllers

Object = dict[str, Any]
Key = tuple[str, str]


class Runner:
    """Makes every pod on a node run and be ready (images named `broken` never are), and ends deleted ones."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pods = Informer(client, PODS, decode_object)
        self._queue: WorkQueue[Key] = WorkQueue("runner")
        self._addresses = itertools.count(1)
        self._pods.subscribe(lambda kind, old, new: self._queue.add(self._key(new or old)))

    @staticmethod
    def _key(value: Object | None) -> Key:
        assert value is not None
        return value["metadata"]["namespace"], value["metadata"]["name"]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pods.run())
            group.create_task(self._queue.run(self._one))

    async def _one(self, key: Key) -> None:
        pod = self._pods.items.get(key)
        if pod is None or not pod["spec"].get("nodeName"):
            return
        if pod["metadata"].get("deletionTimestamp"):
            with suppress(NotFound):
                await self._client.delete(PODS, key[1], key[0], grace_period=0)
            return
        if (pod.get("status") or {}).get("podIP"):
            return
        image = pod["spec"]["containers"][0]["image"]
        address = f"10.244.1.{next(self._addresses)}"
        status: Object = {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"}
        if image == "once":
            status["phase"] = "Succeeded"
        ready = "False" if image in ("broken", "once") else "True"
        now = timestamp(time.time())
        status["conditions"] = [{"type": "Ready", "status": ready, "lastTransitionTime": now}]
        with suppress(NotFound):
            await self._client.patch(PODS, key[1], {"status": status}, key[0], subresource="status")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    """On a Unix socket, and with TLS on a loopback port that `tmp_path/kubeconfig` names."""
    server = ApiServer(ApiSettings(tmp_path / "pki"), None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        write_kubeconfig(tmp_path / "kubeconfig", server.credentials, url)
        await server.start([listener], tmp_path / "api.sock")
        yield server
        await server.stop()


@pytest.fixture
async def client(server: ApiServer, tmp_path: Path) -> AsyncIterator[Client]:
    async with Client.over_unix(tmp_path / "api.sock") as client:
        for name in ("node1", "node2"):
            node = {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}
            await client.create(NODES, node)
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            await client.patch(NODES, name, {"status": ready}, subresource="status")
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(run_controllers(client, cluster_ca="PEM")),
                group.create_task(Runner(client).run()),
            ]
            yield client
            for task in tasks:
                task.cancel()


async def until(check: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
    """The first true answer of `check`; API errors count as "not yet"."""
    deadline = asyncio.get_running_loop().time() + seconds
    last: Any = None
    while asyncio.get_running_loop().time() < deadline:
        try:
            if last := await check():
                return last
        except AmbitError as error:
            last = error
        await asyncio.sleep(0.03)
    raise AssertionError(f"not reached in {seconds} s: {last}")


def workload(name: str, replicas: int = 2, image: str = "a", **spec: Any) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec},
    }


async def ready_deployment(client: Client, name: str, replicas: int) -> Object:
    async def check() -> Object | None:
        value = await client.get(DEPLOYMENTS, name, "default")
        status = value.get("status") or {}
        done = (
            status.get("observedGeneration") == value["metadata"]["generation"]
            and status.get("updatedReplicas", 0) == replicas
            and status.get("availableReplicas", 0) == replicas
            and status.get("replicas", 0) == replicas
        )
        return value if done else None

    found: Object = await until(check)
    return found


async def gone(client: Client, resource: Resource, name: str, namespace: str = "default") -> None:
    async def check() -> bool:
        try:
            await client.get(resource, name, namespace)
        except NotFound:
            return True
        return False

    await until(check)
