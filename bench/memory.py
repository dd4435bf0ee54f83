"""What the node proxy keeps in memory: for open connections, and for the size of the mesh around it.

Anonymous memory, which does not depend on what else uses the same programs' files. Each number is a growth: from an
agent and Envoy that have served the same destinations before to the same two processes afterwards.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ambit.kube.resource import CONFIG_MAPS, SERVICE_ENTRIES, SERVICES
from bench.harness import Number, Options
from bench.instance import Instance, ambit, instance, until
from bench.servers import HTTP_PORT, http_server

NAMESPACE = "bench"
CONNECTIONS = 1_000
DESTINATIONS = 10
WORKLOADS, EACH = 100_000, 500
"""In the mesh, as endpoints of ServiceEntries with so many each."""
SETTLED, LOOK = 0.25, 2.0
"""Memory is read when it has changed by less than so many MiB within so many seconds."""
PATIENCE = 600.0
LOADER = Path(__file__).with_name("load.py")
FILE = "/tmp/held"
"""In the client's pod."""
NODES = ("node1", "node2")


class Sizes(msgspec.Struct, frozen=True):
    """Anonymous memory of one node's processes, in MiB."""

    envoy: float
    agent: float

    @property
    def both(self) -> float:
        return self.envoy + self.agent


async def measure(options: Options) -> list[Number]:
    """Both parts have a cluster of their own, because what was used once is not given back."""
    connections, workloads = (100, 5_000) if options.quick else (CONNECTIONS, WORKLOADS)
    async with instance() as mesh:
        numbers = await _connections(mesh, connections)
    async with instance() as mesh:
        return numbers + await _workloads(mesh, workloads)


async def _connections(mesh: Instance, count: int) -> list[Number]:
    (target,) = await _servers(mesh, 1)
    await _ask(mesh, [target])
    before = await _settled(mesh)
    words = ("python3", "/bench/load.py", "hold", *target.split(":"), str(count), FILE)
    holding = asyncio.create_task(mesh.run(NAMESPACE, "client", *words))
    try:
        await until(f"{count} connections are open", lambda: _is_held(mesh, holding))
        after = await _settled(mesh)
    finally:
        holding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await holding
    numbers = []
    for node, side in zip(NODES, ("client's", "server's"), strict=True):
        numbers += _grown(
            f"{count:,} open connections across nodes, {side} node", before[node], after[node], 25.0
        )
    return numbers


async def _is_held(mesh: Instance, holding: "asyncio.Task[str]") -> bool:
    if holding.done():
        holding.result()
    try:
        return bool(await mesh.run(NAMESPACE, "client", "cat", FILE))
    except RuntimeError:
        return False


async def _workloads(mesh: Instance, count: int) -> list[Number]:
    targets = await _servers(mesh, DESTINATIONS)
    await _ask(mesh, targets)
    before = await _settled(mesh)
    for entry in _entries(count):
        await mesh.client.create(SERVICE_ENTRIES, entry)

    async def known() -> bool:
        try:
            told = await ambit(mesh.environment, "node", "status", "-o", "json", "--name", mesh.name)
        except RuntimeError:  # an agent starts
            return False
        return all(each["workloads"] >= count and each["connected"] for each in msgspec.json.decode(told))

    await until(f"both nodes know {count} workloads", known, PATIENCE)
    await _ask(mesh, targets)
    after = await _settled(mesh)
    await _agent_killed(mesh, NODES[0])
    await until("the agent is back", known, PATIENCE)
    await _ask(mesh, targets)
    anew = await _settled(mesh)
    name, node = f"{count:,} workloads more, a node that talks to {DESTINATIONS}", NODES[0]
    return [
        *_grown(name, before[node], after[node], 5.0),
        *_grown(f"{name}, its agent started anew", before[node], anew[node], 5.0),
    ]


async def _agent_killed(mesh: Instance, node: str) -> None:
    """And another one is there."""
    former = _agent(mesh, node)
    assert former is not None, "it runs"
    os.kill(former, signal.SIGKILL)

    async def follows() -> bool:
        return _agent(mesh, node) not in (None, former)

    await until("an agent follows", follows)


def _agent(mesh: Instance, node: str) -> int | None:
    run = f"/run/ambit/nodes/{node}"
    found = (each for each in mesh.processes() if each.part == "node agent" and run in each.command)
    return next((each.pid for each in found), None)


def _grown(name: str, before: Sizes, after: Sizes, target: float) -> list[Number]:
    return [
        Number(f"{name}: Envoy and agent", after.both - before.both, "MiB", target),
        Number(f"… Envoy (before: {before.envoy:.1f})", after.envoy - before.envoy, "MiB"),
        Number(f"… agent (before: {before.agent:.1f})", after.agent - before.agent, "MiB"),
    ]


def _entries(count: int) -> Iterator[dict[str, object]]:
    for number in range(count // EACH):
        addresses = [_address(number * EACH + each) for each in range(EACH)]
        spec = {
            "hosts": [f"many-{number}.example.com"],
            "ports": [{"number": 80, "name": "http", "protocol": "TCP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": address} for address in addresses],
        }
        yield {"metadata": {"name": f"many-{number}", "namespace": NAMESPACE}, "spec": spec}


def _address(number: int) -> str:
    return f"10.{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


async def _servers(mesh: Instance, services: int) -> list[str]:
    """A client on one node, and so many Services of a server on the other; their addresses."""
    await mesh.namespace(NAMESPACE, enrolled=True)
    script = {"metadata": {"name": "script", "namespace": NAMESPACE}, "data": {"load.py": LOADER.read_text()}}
    await mesh.client.create(CONFIG_MAPS, script)
    near, far = NODES
    await mesh.pod(NAMESPACE, "client", near, {"client": ["sleep", "infinity"]}, "script")
    await mesh.pod(NAMESPACE, "server", far, {"http": http_server()}, "script")
    targets = []
    for number in range(services):
        ports = [{"name": "http", "port": 80, "targetPort": HTTP_PORT}]
        spec = {"selector": {"app": "server"}, "ports": ports}
        body = {"metadata": {"name": f"server-{number}", "namespace": NAMESPACE}, "spec": spec}
        made = await mesh.client.create(SERVICES, body)
        targets.append(f"{made['spec']['clusterIP']}:80")
    for name in ("client", "server"):
        await mesh.address(NAMESPACE, name)
    return targets


async def _ask(mesh: Instance, targets: list[str]) -> None:
    """Each is asked until it answers, and twice more: the second connection goes by another way than the first."""

    async def answer() -> bool:
        try:
            return bool(await mesh.run(NAMESPACE, "client", "python3", "/bench/load.py", "first", *targets))
        except RuntimeError:
            return False

    await until("all destinations answer", answer)
    for _ in range(2):
        await mesh.run(NAMESPACE, "client", "python3", "/bench/load.py", "first", *targets)


async def _settled(mesh: Instance) -> dict[str, Sizes]:
    """By node, once they do not change any more."""
    before = _sizes(mesh)
    async with asyncio.timeout(PATIENCE):
        while True:
            await asyncio.sleep(LOOK)
            now = _sizes(mesh)
            if all(abs(now[node].both - before[node].both) < SETTLED for node in NODES):
                return now
            before = now


def _sizes(mesh: Instance) -> dict[str, Sizes]:
    found = mesh.processes()

    def size(part: str, node: str) -> float:
        run = f"/run/ambit/nodes/{node}"
        return sum(each.anonymous for each in found if each.part == part and run in each.command) / 1024

    return {node: Sizes(size("envoy", node), size("node agent", node)) for node in NODES}
