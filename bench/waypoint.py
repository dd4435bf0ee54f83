"""What a waypoint in pods keeps in memory, and how fast a changed route is on all of its pods.

Memory is anonymous, of Envoy and its agent, when it does not grow any more. A change counts from the API server's
answer until none of many connections, which are spread over the waypoint's pods, gets the former answer.
"""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec

from ambit.kube.resource import CONFIG_MAPS, DEPLOYMENTS, GATEWAYS, HTTP_ROUTES, PODS, SERVICES
from bench.harness import Number, Options, percentile
from bench.instance import Instance, instance, until
from bench.servers import HTTP_PORT, http_server

NAMESPACE, WAYPOINT = "bench", "way"
SCRIPTS = ("load.py", "turns.py")
FEW, MANY = 20, 1_000
TARGETS = {FEW: 60.0, MANY: 150.0}
"""MiB of one pod by the number of services bound to it."""
PODS_OF_WAYPOINT, CONNECTIONS = 3, 12
HEADER = "x-turn"
CHANGES, PAUSE = 100, 0.4
"""How often the route changes, and seconds between; a change that takes longer counts as that."""
SETTLED, LOOK = 0.25, 2.0
"""Memory is read when it has changed by less than so many MiB within so many seconds."""


class Sizes(msgspec.Struct, frozen=True):
    """Anonymous memory of the processes of one pod of the waypoint, in MiB."""

    envoy: float
    agent: float


async def measure(options: Options) -> list[Number]:
    """With few services bound, with many, and then with a route on each."""
    many, changes = (100, 5) if options.quick else (MANY, CHANGES)
    numbers: list[Number] = []
    async with instance() as mesh:
        await _start(mesh)
        former = 0
        for count in (FEW, many):
            await _services(mesh, range(former, count))
            former = count
            await _answers(mesh, count - 1)
            numbers += _memory(f"{count:,} services bound", await _settled(mesh), TARGETS.get(count))
        for number in range(many):
            await mesh.client.create(HTTP_ROUTES, _route(number, "0"))
        await _answers(mesh, many - 1)
        numbers += _memory(f"{many:,} services bound, a route on each", await _settled(mesh), None)
        scale = {"spec": {"replicas": PODS_OF_WAYPOINT}}
        await mesh.client.patch(DEPLOYMENTS, WAYPOINT, scale, namespace=NAMESPACE)
        await until("all of the waypoint's pods are ready", lambda: _is_scaled(mesh))
        taken = await _changes(mesh, changes)
    name = f"one of {many:,} routes changed, until {PODS_OF_WAYPOINT} pods have it"
    return [
        *numbers,
        Number(f"{name}, p99", percentile(taken, 0.99), "ms", 150.0),
        Number(f"{name}, median", percentile(taken, 0.5), "ms"),
    ]


def _memory(what: str, sizes: Sizes, target: float | None) -> list[Number]:
    return [
        Number(f"{what}: Envoy and agent", sizes.envoy + sizes.agent, "MiB", target),
        Number(f"{what}: Envoy", sizes.envoy, "MiB"),
        Number(f"{what}: agent", sizes.agent, "MiB"),
    ]


async def _start(mesh: Instance) -> None:
    await mesh.namespace(NAMESPACE, enrolled=True)
    here = Path(__file__).parent
    script = {
        "metadata": {"name": "script", "namespace": NAMESPACE},
        "data": {name: (here / name).read_text() for name in SCRIPTS},
    }
    await mesh.client.create(CONFIG_MAPS, script)
    await mesh.pod(NAMESPACE, "client", "node1", {"client": ["sleep", "infinity"]}, "script")
    await mesh.pod(NAMESPACE, "server", "node2", {"http": http_server()}, "script")
    for pod in ("client", "server"):
        await mesh.address(NAMESPACE, pod)
    listener = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
    spec = {"gatewayClassName": "ambit-waypoint", "listeners": [listener]}
    await mesh.client.create(GATEWAYS, {"metadata": {"name": WAYPOINT, "namespace": NAMESPACE}, "spec": spec})


async def _services(mesh: Instance, numbers: range) -> None:
    for number in numbers:
        metadata = {
            "name": f"app-{number}",
            "namespace": NAMESPACE,
            "labels": {"istio.io/use-waypoint": WAYPOINT},
        }
        ports = [{"name": "http", "port": 80, "targetPort": HTTP_PORT}]
        spec = {"selector": {"app": "server"}, "ports": ports}
        await mesh.client.create(SERVICES, {"metadata": metadata, "spec": spec})


def _route(number: int, turn: str) -> dict[str, Any]:
    said = {
        "type": "ResponseHeaderModifier",
        "responseHeaderModifier": {"set": [{"name": HEADER, "value": turn}]},
    }
    app = f"app-{number}"
    rule = {"filters": [said], "backendRefs": [{"name": app, "port": 80}]}
    parent = {"group": "", "kind": "Service", "name": app, "port": 80}
    return {
        "metadata": {"name": app, "namespace": NAMESPACE},
        "spec": {"parentRefs": [parent], "rules": [rule]},
    }


async def _address(mesh: Instance, number: int) -> str:
    return str((await mesh.client.get(SERVICES, f"app-{number}", NAMESPACE))["spec"]["clusterIP"])


async def _answers(mesh: Instance, number: int) -> None:
    """The service of this number, through the waypoint."""
    host = await _address(mesh, number)
    words = ("python3", "/bench/load.py", "requests", host, "80", "1", "0.2", "keep")

    async def answers() -> bool:
        return bool(json.loads(await mesh.run(NAMESPACE, "client", *words))["rate"])

    await until(f"app-{number} answers", answers)


async def _pods(mesh: Instance) -> list[dict[str, Any]]:
    found = await mesh.client.list(PODS, namespace=NAMESPACE)
    mark = "gateway.networking.k8s.io/gateway-name"
    return [each for each in found if each["metadata"].get("labels", {}).get(mark) == WAYPOINT]


async def _is_scaled(mesh: Instance) -> bool:
    ready = [
        condition
        for pod in await _pods(mesh)
        for condition in pod.get("status", {}).get("conditions", ())
        if (condition["type"], condition["status"]) == ("Ready", "True")
    ]
    return len(ready) == PODS_OF_WAYPOINT


async def _settled(mesh: Instance) -> Sizes:
    (pod,) = await _pods(mesh)
    host = f"HOSTNAME={pod['metadata']['name']}".encode()
    former = Sizes(0, 0)
    while True:
        found = {"envoy": 0, "agent": 0}
        for each in mesh.processes():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may have ended
                if host in Path(f"/proc/{each.pid}/environ").read_bytes().split(b"\0"):
                    found["envoy" if each.part == "envoy" else "agent"] += each.anonymous
        now = Sizes(found["envoy"] / 1024, found["agent"] / 1024)
        if abs(now.envoy - former.envoy) + abs(now.agent - former.agent) < SETTLED:
            return now
        former = now
        await asyncio.sleep(LOOK)


async def _changes(mesh: Instance, count: int) -> list[float]:
    """Milliseconds that each change took."""
    host = await _address(mesh, 0)
    seconds = str(count * (PAUSE + 0.2) + 4)
    words = ("python3", "/bench/turns.py", host, "80", str(CONNECTIONS), seconds, HEADER)
    watching = asyncio.create_task(mesh.run(NAMESPACE, "client", *words))
    await asyncio.sleep(1)
    written: list[float] = []
    loop = asyncio.get_running_loop()
    for turn in range(1, count + 1):
        await mesh.client.patch(
            HTTP_ROUTES, "app-0", {"spec": _route(0, str(turn))["spec"]}, namespace=NAMESPACE
        )
        written.append(loop.time())
        await asyncio.sleep(PAUSE)
    seen = json.loads(await watching)
    return [_taken(seen, turn, moment) for turn, moment in enumerate(written, 1)]


def _taken(seen: list[tuple[float, int, str]], turn: int, moment: float) -> float:
    """Milliseconds from `moment` until each connection has met this turn or a later one."""
    first: dict[int, float] = {}
    for when, connection, value in seen:
        if int(value) >= turn:
            first.setdefault(connection, when)
    late = max(first.values()) - moment if len(first) == CONNECTIONS else PAUSE
    return 1000 * max(late, 0.0)
