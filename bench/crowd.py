"""One node with as many pods as a kubelet takes: how long they take to join and leave while they run, and what each of
them that is idle costs agent and Envoy."""

import time

from ambit.core.names import REDIRECTION_ANNOTATION, REDIRECTION_ENABLED
from ambit.kube.resource import NAMESPACES, PODS
from ambit.local.controllers.pods import is_ready
from ambit.local.instance.processes import Process
from bench.harness import Number, Options
from bench.instance import ENROLLED, Instance, instance, until

NAMESPACE = "crowd"
MOST, FEW = 250, 50
PATIENCE = 600.0
"""Seconds for each step."""
PAUSE = 0.3
"""Seconds between two looks: each asks for all pods."""


async def measure(options: Options) -> list[Number]:
    """All of them join by their namespace's label and leave by it, once."""
    count = FEW if options.quick else MOST
    async with instance(nodes=1) as mesh:
        await mesh.namespace(NAMESPACE, enrolled=False)
        started = time.monotonic()
        for number in range(count):
            await mesh.client.create(PODS, _idle(f"idle-{number}"))
        await until("all pods are ready", lambda: _count_is(mesh, count, is_ready), PATIENCE, PAUSE)
        starting = time.monotonic() - started
        before = _anonymous(mesh)
        joining = await _label(mesh, "ambient", count)
        during = _anonymous(mesh)
        leaving = await _label(mesh, "none", 0)
    grown = {part: (during[part] - before[part]) / count for part in before}
    return [
        Number(f"{count} pods on one node start, outside the mesh", starting, "s"),
        Number("… join the mesh while they run", joining, "s", 60.0),
        Number("… leave it", leaving, "s"),
        Number("Envoy, anonymous, for each idle pod", grown["envoy"], "KiB", 150.0),
        Number("agent, anonymous, for each idle pod", grown["node agent"], "KiB", 50.0),
        Number("Envoy with all of them, anonymous", during["envoy"] / 1024, "MiB"),
        Number("agent with all of them, anonymous", during["node agent"] / 1024, "MiB"),
    ]


def _idle(name: str) -> dict[str, object]:
    spec = {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "bench", "command": ["sleep", "infinity"]}],
    }
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


async def _label(mesh: Instance, mode: str, captured: int) -> float:
    """Seconds until so many pods are captured."""
    started = time.monotonic()
    labels = dict.fromkeys(ENROLLED, mode)
    await mesh.client.patch(NAMESPACES, NAMESPACE, {"metadata": {"labels": labels}})
    await until(
        f"{captured} pods are captured", lambda: _count_is(mesh, captured, _is_captured), PATIENCE, PAUSE
    )
    return time.monotonic() - started


async def _count_is(mesh: Instance, wanted: int, holds: object) -> bool:
    assert callable(holds)
    return sum(map(bool, map(holds, await mesh.client.list(PODS, NAMESPACE)))) == wanted


def _is_captured(pod: dict[str, dict[str, dict[str, str]]]) -> bool:
    return (pod["metadata"].get("annotations") or {}).get(REDIRECTION_ANNOTATION) == REDIRECTION_ENABLED


def _anonymous(mesh: Instance) -> dict[str, int]:
    """KiB of the node's Envoy and agent."""

    def of(part: str) -> Process:
        (found,) = (each for each in mesh.processes() if each.part == part)
        return found

    return {part: of(part).anonymous for part in ("envoy", "node agent")}
