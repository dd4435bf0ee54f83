"""From nothing to a mesh, from there to bookinfo behind mutual TLS, and what both keep in memory."""

import re
import time

from ambit.cli.demo.manifests import create_all, manifest
from ambit.cli.demo.traffic import TITLE, curl
from ambit.core.errors import AmbitError
from ambit.kube.resource import NAMESPACES, PODS
from ambit.local.controllers.pods import is_ready
from ambit.local.instance.processes import Process
from bench.harness import Number, Options, summary
from bench.instance import ENROLLED, Instance, instance, until

NAMESPACE = "default"
PAGE = "http://productpage:9080/productpage"
PODS_IN_ALL = 7
"""Bookinfo's six and the curl pod."""
MEBIBYTE = 1024


async def measure(options: Options) -> list[Number]:
    """Each round is a cluster of its own."""
    rounds = 1 if options.quick else options.rounds
    ups, idle, serving = [], [], []
    envoys: list[Process] = []
    agents: list[Process] = []
    both: list[float] = []
    shims: list[float] = []
    for _ in range(rounds):
        async with instance() as mesh:
            ups.append(mesh.up_seconds)
            idle.append(sum(each.pss for each in _ours(mesh)) / MEBIBYTE)
            serving.append(await _bookinfo(mesh))
            ours = _ours(mesh)
            envoys += [each for each in ours if each.part == "envoy"]
            agents += [each for each in ours if each.part == "node agent"]
            both += [each / MEBIBYTE for each in _by_node(ours).values()]
            shims += [each.pss / MEBIBYTE for each in ours if each.part == "shim"]
    return [
        summary("`ambit up`, two nodes", ups, "s", 5.0),
        summary("then bookinfo enrolled and serving", serving, "s", 20.0),
        summary("idle, everything but applications, PSS", idle, "MiB", 350.0),
        *_memory("Envoy of a node with bookinfo", envoys, 40.0),
        *_memory("agent of a node with bookinfo", agents, 60.0),
        summary("both of a node with bookinfo, anonymous", both, "MiB", 90.0),
        summary("one shim, PSS", shims, "MiB"),
    ]


def _ours(mesh: Instance) -> list[Process]:
    return [each for each in mesh.processes() if each.part != "application"]


def _by_node(processes: list[Process]) -> dict[str, int]:
    """Anonymous memory of Envoy and agent together, KiB; both name the node's folder."""
    found: dict[str, int] = {}
    for each in processes:
        node = re.search(r"/run/ambit/nodes/([^/ ]+)", each.command)
        if node is not None and each.part in ("envoy", "node agent"):
            found[node[1]] = found.get(node[1], 0) + each.anonymous
    return found


def _memory(name: str, processes: list[Process], target: float) -> list[Number]:
    return [
        summary(f"{name}, anonymous", [each.anonymous / MEBIBYTE for each in processes], "MiB", target),
        summary(f"{name}, PSS", [each.pss / MEBIBYTE for each in processes], "MiB"),
        summary(f"{name}, RSS", [each.rss / MEBIBYTE for each in processes], "MiB"),
    ]


async def _bookinfo(mesh: Instance) -> float:
    """Seconds from the first object to the page, with every pod enrolled from its start."""
    client = mesh.client

    async def ready() -> bool:
        pods = await client.list(PODS, NAMESPACE)
        return len(pods) >= PODS_IN_ALL and all(is_ready(pod) for pod in pods)

    async def page() -> bool:
        try:
            return TITLE in (await curl(client, NAMESPACE, PAGE)).stdout.decode(errors="replace")
        except AmbitError:
            return False

    started = time.monotonic()
    await client.patch(NAMESPACES, NAMESPACE, {"metadata": {"labels": ENROLLED}})
    for name in ("bookinfo", "curl"):
        await create_all(client, NAMESPACE, manifest(name))
    await until("bookinfo is ready", ready)
    await until("productpage answers", page)
    return time.monotonic() - started
