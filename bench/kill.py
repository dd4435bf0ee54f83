"""What a part costs that is killed with -9: how long new connections fail, and whether they do at all.

Requests on connections of their own, from one node to another, past no waypoint and through one in a pod. An Envoy's
death counts until the first of them that began after it is answered, and until the last one fails. Beside it, in the
same run, a plain Envoy with as many listeners as the client's node has: from its start to its first answer. And what
fails while nothing dies: on a machine that has no time for it, more than nothing.
"""

import asyncio
import json
import os
import select
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ambit.agent.admin import Admin
from ambit.kube.resource import CONFIG_MAPS, GATEWAYS, PODS, SERVICES
from ambit.local.instance.processes import Process
from bench import tries
from bench.harness import Number, Options, summary
from bench.instance import Instance, instance, until
from bench.ports import free_port
from bench.servers import HTTP_PORT, envoy_command, http_server, listener

NAMESPACE, WAYPOINT = "bench", "way"
TRIES = Path(__file__).with_name("tries.py")
PLAIN, THROUGH = "plain", "through"
"""Services of the same server: without a waypoint, and with one."""
RATE, BEFORE, AFTER = 200.0, 1.0, 6.0
"""Tries a second; seconds before the death, and after."""
STEADY = 31.0
"""Seconds until an Envoy counts as one that served, and the next one comes without a growing pause."""
TARGET = 1000.0
"""Milliseconds: docs/limits.md."""
Tries = list[tuple[float, float, str]]


class Gap(msgspec.Struct, frozen=True):
    """Milliseconds from a death until the first answer of a new connection, and until the last that failed began."""

    answered: float
    failing: float
    failed: tuple[str, ...]
    """What those heard that failed."""


class _Way(msgspec.Struct, frozen=True):
    """What dies, and which Service tells."""

    name: str
    service: str
    is_meant: Callable[[Process], bool]


async def measure(options: Options) -> list[Number]:
    """Each Envoy in turn, then agents and the control plane."""
    rounds = 1 if options.quick else options.rounds
    async with instance() as mesh:
        places = await _start(mesh)
        ways = await _ways(mesh)
        gaps: dict[str, list[Gap]] = {each.name: [] for each in ways}
        starts: list[float] = []
        count = await _listeners(mesh, ways[0])
        for _ in range(rounds):
            starts.append(await plain_start(count))
            for way in ways:
                await _steady(mesh, way.is_meant)
                moment, seen = await _killed(mesh, way.is_meant, places)
                gaps[way.name].append(gap(moment, seen[places[way.service]]))
        nothing = await _tries(mesh, RATE, AFTER, places)
        numbers = [summary(f"a plain Envoy with {count} listeners, from its start", starts, "ms")]
        for name, found in gaps.items():
            numbers += _numbers(name, found)
        numbers.append(_failed("nothing killed", 0.0, nothing, None))
        for what, is_meant in {
            "agent of the client's node": _on("node agent", "node1"),
            "agent of the server's node": _on("node agent", "node2"),
            "control plane": _is_control_plane,
        }.items():
            moment, seen = await _killed(mesh, is_meant, places)
            await until(f"{what} is back", partial(_there, mesh, is_meant))
            numbers.append(_failed(what, moment, seen, 0.0))
    return numbers


def gap(moment: float, seen: Tries) -> Gap:
    """Of a death at `moment`. Raises RuntimeError when no connection was answered after it."""
    after = [each for each in seen if each[0] >= moment]
    answered = [end for _, end, what in after if not what]
    failed = [(began, what) for began, _, what in after if what]
    if not answered:
        raise RuntimeError(f"no new connection was answered within {AFTER:.0f} s")
    last = max((began for began, _ in failed), default=moment)
    return Gap(
        1000 * (min(answered) - moment), 1000 * (last - moment), tuple(sorted({what for _, what in failed}))
    )


def _numbers(name: str, found: list[Gap]) -> list[Number]:
    heard = ", ".join(sorted({what for each in found for what in each.failed}))
    answered = [each.answered for each in found]
    failing = [each.failing for each in found]
    return [
        summary(f"{name}: first new connection answered", answered, "ms", note=heard),
        Number(f"{name}: the slowest of them", max(answered), "ms", TARGET),
        summary(f"{name}: the last that failed began", failing, "ms"),
    ]


def _failed(what: str, moment: float, seen: dict[str, Tries], target: float | None) -> Number:
    after = [each for all_ in seen.values() for each in all_ if each[0] >= moment]
    failed = [what for _, _, what in after if what]
    note = ", ".join(sorted(set(failed)))
    return Number(f"{what}: failed", len(failed), f"of {len(after)}", target, note=note)


async def plain_start(listeners: int) -> float:
    """Milliseconds from the start of an Envoy with so many listeners of HTTP until one of them answers a request."""
    ports = [free_port() for _ in range(listeners)]
    config = {"static_resources": {"listeners": [listener(port, "127.0.0.1") for port in ports]}}
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(*envoy_command(config))
    try:
        ends: list[float] = []
        while not ends:
            seen = await asyncio.to_thread(tries.tries, RATE, 1 / RATE, [f"127.0.0.1:{ports[-1]}"])
            ends = [end for each in seen.values() for _, end, what in each if not what]
            if process.returncode is not None:
                raise RuntimeError(f"the plain Envoy ended with {process.returncode}")
        return 1000 * (ends[0] - began)
    finally:
        process.kill()
        await process.wait()


async def _start(mesh: Instance) -> dict[str, str]:
    """Client, server and waypoint; where the client finds the server's Services."""
    await mesh.namespace(NAMESPACE, enrolled=True)
    script = {"metadata": {"name": "script", "namespace": NAMESPACE}, "data": {"tries.py": TRIES.read_text()}}
    await mesh.client.create(CONFIG_MAPS, script)
    await mesh.pod(NAMESPACE, "client", "node1", {"client": ["sleep", "infinity"]}, "script")
    await mesh.pod(NAMESPACE, "server", "node2", {"http": http_server()}, "script")
    mesh_listener = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
    spec: dict[str, Any] = {"gatewayClassName": "ambit-waypoint", "listeners": [mesh_listener]}
    await mesh.client.create(GATEWAYS, {"metadata": {"name": WAYPOINT, "namespace": NAMESPACE}, "spec": spec})
    places = {}
    for name, labels in ((PLAIN, {}), (THROUGH, {"istio.io/use-waypoint": WAYPOINT})):
        spec = {
            "selector": {"app": "server"},
            "ports": [{"name": "http", "port": 80, "targetPort": HTTP_PORT}],
        }
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
        made = await mesh.client.create(SERVICES, {"metadata": metadata, "spec": spec})
        places[name] = f"{made['spec']['clusterIP']}:80"
    for pod in ("client", "server"):
        await mesh.address(NAMESPACE, pod)

    async def answers() -> bool:
        seen = await _tries(mesh, 20, 0.5, places)
        return not any(what for each in seen.values() for _, _, what in each)

    await until("both Services answer", answers)
    return places


async def _ways(mesh: Instance) -> list[_Way]:
    mark = "gateway.networking.k8s.io/gateway-name"
    pods = await mesh.client.list(PODS, NAMESPACE)
    (pod,) = (each for each in pods if (each["metadata"].get("labels") or {}).get(mark) == WAYPOINT)
    host = f"HOSTNAME={pod['metadata']['name']}".encode()

    def is_of_waypoint(each: Process) -> bool:
        return each.part == "envoy" and host in Path(f"/proc/{each.pid}/environ").read_bytes().split(b"\0")

    return [
        _Way("Envoy of the client's node", PLAIN, _on("envoy", "node1")),
        _Way("Envoy of the server's node", PLAIN, _on("envoy", "node2")),
        _Way("Envoy of the waypoint", THROUGH, is_of_waypoint),
    ]


def _is_control_plane(each: Process) -> bool:
    return each.part == "control plane"


def _on(part: str, node: str) -> Callable[[Process], bool]:
    """Its command line names the node's folder."""
    return lambda each: each.part == part and f"nodes/{node}" in each.command


def _found(mesh: Instance, is_meant: Callable[[Process], bool]) -> Process | None:
    found = []
    for each in mesh.processes():
        try:
            found += [each] if is_meant(each) else []
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
    if len(found) > 1:
        raise RuntimeError(f"one process is meant, and there are {[each.command for each in found]}")
    return found[0] if found else None


async def _there(mesh: Instance, is_meant: Callable[[Process], bool]) -> Process | None:
    return await asyncio.to_thread(_found, mesh, is_meant)


async def _steady(mesh: Instance, is_meant: Callable[[Process], bool]) -> None:
    """Until such a process is there and has lived for STEADY seconds."""

    async def old() -> bool:
        found = await _there(mesh, is_meant)
        return found is not None and _age(found.pid) > STEADY

    await until("it has served for a while", old, STEADY + 60, 0.5)


def _age(pid: int) -> float:
    """Seconds since a process was started; 0 when it has ended."""
    try:
        began = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")


async def _killed(
    mesh: Instance, is_meant: Callable[[Process], bool], places: dict[str, str]
) -> tuple[float, dict[str, Tries]]:
    """When the process was dead, and all tries of before and after."""
    found = await _there(mesh, is_meant)
    if found is None:
        raise RuntimeError("what is to be killed is not there")
    watching = asyncio.create_task(_tries(mesh, RATE, BEFORE + AFTER, places))
    await asyncio.sleep(BEFORE)
    moment = await asyncio.to_thread(_kill, found.pid)
    seen = await watching
    if not any(began < moment for each in seen.values() for began, _, _ in each):
        raise RuntimeError("no connection was tried before the death: nothing is shown")
    return moment, seen


def _kill(pid: int) -> float:
    """SIGKILL; when it was dead, in the time that all processes share."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [])
        return time.monotonic()
    finally:
        os.close(descriptor)


async def _tries(mesh: Instance, rate: float, seconds: float, places: dict[str, str]) -> dict[str, Tries]:
    words = ("python3", "/bench/tries.py", str(rate), str(seconds), *places.values())
    found: dict[str, Tries] = json.loads(await mesh.run(NAMESPACE, "client", *words))
    return found


async def _listeners(mesh: Instance, way: _Way) -> int:
    """How many the Envoy has."""
    found = await _there(mesh, way.is_meant)
    if found is None:
        raise RuntimeError(f"{way.name} is not there")
    admin = Admin(Path(f"/proc/{found.pid}/root/run/ambit/nodes/node1/admin.sock"))
    return await admin.stat("listener_manager.total_listeners_active") or 0
