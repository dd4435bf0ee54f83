"""The load itself: the same steps against any control plane, with the times that its nodes saw."""

import asyncio
import random
from pathlib import Path

import msgspec

from ambit.core.names import DEFAULT_CLUSTER_ID, ROOT_CERT_CONFIGMAP, ROOT_CERT_KEY, ROOT_NAMESPACE
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from bench.control.agents import Agents, Target
from bench.control.objects import Size, pod_name
from bench.control.server import ControlPlane, Usage
from bench.control.writer import Order, Write

PATIENCE = 300.0
PER_SECOND, BURST = 5.0, 500
LOOK_AGAIN = 0.2
SEED = 1


class Changed(msgspec.Struct, frozen=True):
    """Some pods were changed. Each time is the last node's, in seconds after the API server answered the writer."""

    each: list[float]
    """How long each change took."""
    rest: float
    """How long after the last answer the last node had the last change."""
    writes: float
    """How long the writes took."""
    cpu: float
    sent: float
    """Bytes for each node."""
    messages: float
    """Responses for each node."""


class Synced(msgspec.Struct, frozen=True):
    """All nodes have everything, `seconds` after they began, or after the control plane was launched."""

    seconds: float
    cpu: float
    sent: float
    """Bytes for each node."""
    refused: int
    """Streams that the server ended."""
    after: Usage


class Result(msgspec.Struct, frozen=True):
    ready: float
    """Seconds from launch."""
    loaded: Usage
    resources: int
    one: Synced
    all: Synced
    change: Changed
    burst: Changed
    ready_again: float
    restart: Synced


class Load:
    """One API server and writer, for one control plane."""

    def __init__(
        self, directory: Path, size: Size, client: Client, writer: asyncio.subprocess.Process
    ) -> None:
        self._directory = directory
        self._size = size
        self._client = client
        self._writer = writer
        self._pods = [pod_name(size, number) for number in range(size.pods)]
        random.Random(SEED).shuffle(self._pods)
        self._orders = 0

    async def run(self, plane: ControlPlane, port: int, name: str, changes: int) -> Result:
        """Raises RuntimeError when it does not start, TimeoutError when nodes do not get what they should."""
        began = await plane.launch()
        try:
            ready = await plane.ready() - began
            loaded = plane.usage()
            target = Target(port, name, await self._root())
            one, _ = await self._first(plane, Agents(target, self._tokens(1)))
            every, agents = await self._first(plane, Agents(target, self._tokens(self._size.nodes)))
            try:
                agents.forget()
                resources = sum(map(len, agents.all[0].held.values()))
                change = await self._change(plane, agents, changes, PER_SECOND)
                burst = await self._change(plane, agents, min(BURST, self._size.pods), 0.0)
                ready_again, restart = await self._restart(plane, agents)
            finally:
                await agents.stop()
            return Result(ready, loaded, resources, one, every, change, burst, ready_again, restart)
        finally:
            await plane.kill()

    async def _root(self) -> str:
        """The certificate that the control plane publishes; each needs an API server that has not seen another."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    found = await self._client.get(kinds.CONFIG_MAPS, ROOT_CERT_CONFIGMAP, ROOT_NAMESPACE)
                except NotFound:
                    await asyncio.sleep(LOOK_AGAIN)
                    continue
                return str(found["data"][ROOT_CERT_KEY])

    async def _first(self, plane: ControlPlane, agents: Agents) -> tuple[Synced, Agents]:
        """All come at once. A single one leaves again."""
        before = plane.usage()
        began = agents.start()
        try:
            last = await agents.synced(PATIENCE)
            after = plane.usage()
            synced = Synced(last - began, after.cpu - before.cpu, agents.sent, agents.refused, after)
        except BaseException:
            await agents.stop()
            raise
        if len(agents.all) == 1:
            await agents.stop()
        return synced, agents

    async def _change(self, plane: ControlPlane, agents: Agents, number: int, per_second: float) -> Changed:
        self._orders += 1
        agents.forget()
        before = plane.usage()
        writes = await self._write(Order(self._pods[:number], f"r{self._orders}", per_second))
        answered = {_key(each): each.answered for each in writes}
        arrivals = await self._arrivals(agents, list(answered))
        lasts = {name: max(times) for name, times in arrivals.items()}
        return Changed(
            [lasts[name] - when for name, when in answered.items()],
            max(lasts.values()) - max(answered.values()),
            max(answered.values()) - min(each.begun for each in writes),
            plane.usage().cpu - before.cpu,
            agents.sent,
            agents.messages,
        )

    async def _restart(self, plane: ControlPlane, agents: Agents) -> tuple[float, Synced]:
        agents.keep_versions()
        agents.forget()
        await plane.kill()
        await agents.lost()
        began = await plane.launch()
        ready = asyncio.create_task(plane.ready())
        last = await agents.synced(PATIENCE)
        after = plane.usage()
        return await ready - began, Synced(last - began, after.cpu, agents.sent, agents.refused, after)

    async def _write(self, order: Order) -> list[Write]:
        assert self._writer.stdin is not None and self._writer.stdout is not None
        self._writer.stdin.write(msgspec.json.encode(order) + b"\n")
        await self._writer.stdin.drain()
        return msgspec.json.decode(await self._writer.stdout.readline(), type=list[Write])

    async def _arrivals(self, agents: Agents, names: list[str]) -> dict[str, list[float]]:
        """When each resource reached each node, once it has reached all."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = agents.arrivals(names)
                if all(len(times) == len(agents.all) for times in found.values()):
                    return found
                await asyncio.sleep(LOOK_AGAIN)

    def _tokens(self, nodes: int) -> dict[int, str]:
        return {node: (self._directory / "tokens" / str(node)).read_text() for node in range(nodes)}


def _key(write: Write) -> str:
    return f"{DEFAULT_CLUSTER_ID}//Pod/{write.namespace}/{write.name}"
