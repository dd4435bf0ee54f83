"""A laptop cluster of a benchmark's own: the real command line, the real API, gone at the end."""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ambit.kube.client import Client
from ambit.kube.exec import run_in_pod
from ambit.kube.resource import NAMESPACES, PODS
from ambit.local.instance.processes import Process, instance_processes
from ambit.local.instance.record import InstanceRecord, read_record
from ambit.local.layout import StateDirectory

PATIENCE = 60.0
LOOK_AGAIN = 0.05
ENROLLED = {"istio.io/dataplane-mode": "ambient"}


class Instance(msgspec.Struct, frozen=True):
    """A running instance; `up_seconds` is how long `ambit up` took, from typing to the prompt."""

    name: str
    state: StateDirectory
    record: InstanceRecord
    client: Client
    up_seconds: float
    environment: dict[str, str]
    """Of commands of `ambit` that mean this instance."""

    def processes(self) -> tuple[Process, ...]:
        return instance_processes(self.record)

    async def namespace(self, name: str, *, enrolled: bool) -> None:
        labels = ENROLLED if enrolled else {}
        await self.client.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})

    async def pod(
        self,
        namespace: str,
        name: str,
        node: str,
        containers: dict[str, list[str]],
        script: str,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """A pod on a given node, with the ConfigMap `script` of its namespace under /bench."""
        mounts = [{"name": "script", "mountPath": "/bench"}]
        spec = {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": container, "image": "bench", "command": command, "volumeMounts": mounts}
                for container, command in containers.items()
            ],
            "volumes": [{"name": "script", "configMap": {"name": script}}],
        }
        metadata = {
            "name": name,
            "namespace": namespace,
            "labels": {"app": name},
            "annotations": dict(annotations or {}),
        }
        await self.client.create(PODS, {"metadata": metadata, "spec": spec})

    async def address(self, namespace: str, name: str) -> str:
        """The pod's IPv4 address, once it is ready."""

        async def ready() -> str:
            status = (await self.client.get(PODS, name, namespace)).get("status", {})
            conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
            return str(status["podIP"]) if conditions.get("Ready") == "True" else ""

        return str(await until(f"pod {namespace}/{name} is ready", ready))

    async def run(self, namespace: str, pod: str, *words: str, container: str | None = None) -> str:
        """What a program in a pod printed. Raises RuntimeError when it failed."""
        done = await run_in_pod(self.client, namespace, pod, list(words), container)
        if done.code:
            raise RuntimeError(f"{' '.join(words)} in {namespace}/{pod}: {done.code}\n{done.stderr.decode()}")
        return done.stdout.decode()


async def until(
    what: str, condition: Callable[[], Awaitable[Any]], patience: float = PATIENCE, pause: float = LOOK_AGAIN
) -> Any:
    """Until `condition` gives something true, which is returned. Raises TimeoutError with `what`."""
    deadline = time.monotonic() + patience
    while not (value := await condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience:.0f} s in vain until {what}")
        await asyncio.sleep(pause)
    return value


@contextlib.asynccontextmanager
async def instance(nodes: int = 2) -> AsyncIterator[Instance]:
    """Start one, stop it at the end whatever happens."""
    name = f"bench-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="ambit-", dir="/tmp") as root:
        environment = {**os.environ, "AMBIT_STATE": root}
        state = StateDirectory.of(name, environment)
        started = time.monotonic()
        try:
            await ambit(environment, "up", "--nodes", str(nodes), "--name", name)
            seconds = time.monotonic() - started
            record = read_record(state)
            assert record is not None
            async with Client.from_kubeconfig(state.kubeconfig) as client:
                yield Instance(name, state, record, client, seconds, environment)
        finally:
            await ambit(environment, "down", "--name", name)


async def ambit(environment: dict[str, str], *words: str) -> str:
    """What a command printed. Raises RuntimeError with all of it when it failed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ambit", *words),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"ambit {' '.join(words)} ended with {process.returncode}\n{output.decode()}")
    return output.decode()


def repository() -> Path:
    return Path(__file__).parents[1]
