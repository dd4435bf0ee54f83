"""Interleaved rounds over every variant and load, on pods of one laptop cluster.

Rules:
1. Every variant has pods of its own, with the same servers, on the same nodes and the same wires.
2. Within a round each load visits every variant before the next load starts; rounds rotate the order.
3. Processor time is that of every process the variant adds: proxies, and for the mesh the agents beside them,
   which count metrics and keep decision records (the sidecars have nothing of the kind).
4. With $AMBIT_BENCH_NAT, for agents that capture without NAT, there are pods besides whose annotation has them captured
   by NAT redirect.
5. With $AMBIT_BENCH_ZTUNNEL the cluster has two nodes more, on the same fabric, whose proxy is that ztunnel, as
   Istio ships it: two threads, NAT redirect, one log line for each connection.
"""

import os
from pathlib import Path

import msgspec

from ambit.core.names import CAPTURE_ANNOTATION
from ambit.kube.resource import CONFIG_MAPS
from bench.datapath.samples import (
    Sample,
    Samples,
    Variant,
    absolute,
    matrix,
    processor_seconds,
    ratio,
    slowest_ratio,
)
from bench.datapath.sidecar import sidecars
from bench.datapath.tools import LOADS, Load, known_tools, run_load, sink
from bench.harness import Number, Options, summary
from bench.instance import Instance, instance, until
from bench.servers import BULK_PORT, HTTP_PORT, SECOND_HTTP_PORT, http_server
from bench.ztunnel import nodes as ztunnel_nodes

LOADER = Path(__file__).parents[1] / "load.py"
ZTUNNEL, NAT = "bench-ztunnel", "bench-nat"
NAMESPACES = {"bench-direct": False, "bench-mesh": True, "bench-sidecar": False}
NODES, ZTUNNEL_NODES = ("node1", "node2"), ("node3", "node4")
"""Where client and near server are, and the far server."""
NEAR, FAR = "server-near", "server-far"


VARIANTS = (
    Variant("direct, same node", "bench-direct", NEAR),
    Variant("mesh, same node", "bench-mesh", NEAR, baseline="direct, same node"),
    Variant("direct, across nodes", "bench-direct", FAR),
    Variant("mesh, across nodes", "bench-mesh", FAR, baseline="direct, across nodes"),
    Variant("sidecars, TCP", "bench-sidecar", FAR, SECOND_HTTP_PORT, "direct, across nodes"),
    Variant("sidecars, HTTP", "bench-sidecar", FAR, HTTP_PORT, "direct, across nodes", has_bulk=False),
)
NAT_VARIANTS = (
    Variant("mesh by NAT, same node", NAT, NEAR, baseline="direct, same node"),
    Variant("mesh by NAT, across nodes", NAT, FAR, baseline="direct, across nodes"),
)
ZTUNNEL_VARIANTS = (
    Variant("ztunnel, same node", ZTUNNEL, NEAR, baseline="direct, same node"),
    Variant("ztunnel, across nodes", ZTUNNEL, FAR, baseline="direct, across nodes"),
)
MESH = "mesh, across nodes"
NAT_PAIRS = ((MESH, "mesh by NAT, across nodes"), ("mesh, same node", "mesh by NAT, same node"))
PEERS = ("sidecars, TCP", "sidecars, HTTP")
ZTUNNEL_PAIRS = ((MESH, "ztunnel, across nodes"), ("mesh, same node", "ztunnel, same node"))
RATES_OF_ZTUNNEL: dict[tuple[str, str], float] = {
    (MESH, "throughput, 1 stream"): 1.2,
    (MESH, "keepalive requests/s, 1 connection"): 1.0,
    (MESH, "keepalive requests/s, 16 connections"): 1.25,
    (MESH, "new connections/s, 16 at a time"): 0.9,
    ("mesh, same node", "keepalive requests/s, 1 connection"): 1.6,
    ("mesh, same node", "keepalive requests/s, 16 connections"): 1.6,
}
"""At least so much of ztunnel's rate, by variant and load."""
SLOWEST_OF_ZTUNNEL = 1.05
"""At most so much of ztunnel's 99th percentile, with 16 connections."""


class Processes(msgspec.Struct, frozen=True):
    proxies: tuple[int, ...] = ()
    agents: tuple[int, ...] = ()

    @classmethod
    def of_nodes(cls, mesh: Instance) -> "Processes":
        """Envoy and agent of every node."""
        found = mesh.processes()
        return cls(
            tuple(each.pid for each in found if each.part == "envoy"),
            tuple(each.pid for each in found if each.part == "node agent"),
        )

    @classmethod
    def of_ztunnel(cls, mesh: Instance, program: Path) -> "Processes":
        """The ztunnel of every node that has one."""
        return cls(
            tuple(each.pid for each in mesh.processes() if each.command.startswith(f"{program} proxy"))
        )

    def used(self) -> tuple[float, float]:
        """Processor seconds of proxies and of agents so far."""
        return processor_seconds(self.proxies), processor_seconds(self.agents)


async def measure(options: Options) -> list[Number]:
    """Rates and latencies of each variant, the ratios that count, and what the load left in memory."""
    ztunnel = ztunnel_nodes.program()
    by_nat = bool(os.environ.get("AMBIT_BENCH_NAT"))
    variants = (*VARIANTS, *(NAT_VARIANTS if by_nat else ()), *(ZTUNNEL_VARIANTS if ztunnel else ()))
    known = await known_tools()
    samples: Samples = {}
    async with instance(4 if ztunnel else 2) as mesh:
        addresses: dict[tuple[str, str], str] = {}
        processes = {"bench-direct": Processes()}
        if ztunnel:
            await ztunnel_nodes.give_nodes(mesh.client, ztunnel, ZTUNNEL_NODES)
            processes[ZTUNNEL] = Processes.of_ztunnel(mesh, ztunnel)
        # Before pods, whose servers are Envoys too.
        own = processes["bench-mesh"] = processes[NAT] = Processes.of_nodes(mesh)
        for namespace, enrolled in (NAMESPACES | ({NAT: True} if by_nat else {})).items():
            addresses |= await _pods(mesh, namespace, NODES, known, enrolled=enrolled)
        if ztunnel:
            addresses |= await _pods(mesh, ZTUNNEL, ZTUNNEL_NODES, known, enrolled=True)
        async with sidecars(mesh, "bench-sidecar-client", f"bench-sidecar-{FAR}") as pids:
            processes["bench-sidecar"] = Processes(pids)
            site = Site(mesh, addresses, processes, known)
            for variant in variants:
                await site.warm(variant)
            for number in range(options.rounds):
                turn = number % len(variants)
                for load in LOADS:
                    for variant in (*variants[turn:], *variants[:turn]):
                        if variant.has_bulk or not load.bulk:
                            sample = await site.sample(variant, load, options.seconds)
                            samples.setdefault((variant.name, load.name), []).append(sample)
        after = _memory(mesh, own, processes.get(ZTUNNEL))
    return [*absolute(samples), *_ratios(samples), *after]


class Site(msgspec.Struct, frozen=True):
    """Where the variants run. `addresses` by namespace and server, `processes` by namespace."""

    mesh: Instance
    addresses: dict[tuple[str, str], str]
    processes: dict[str, Processes]
    known: bool

    async def warm(self, variant: Variant) -> None:
        """Until the variant's servers answer: what starts late must not count as slow."""
        target = f"{self.addresses[variant.namespace, variant.server]}:{variant.http_port}"

        async def answers() -> bool:
            try:
                words = ("python3", "/bench/load.py", "first", target)
                return bool(await self.mesh.run(variant.namespace, f"{variant.namespace}-client", *words))
            except RuntimeError:
                return False

        await until(f"{variant.name} answers", answers)

    async def sample(self, variant: Variant, load: Load, seconds: float) -> Sample:
        """One load on one variant."""
        processes = self.processes[variant.namespace]
        place = (variant.namespace, f"{variant.namespace}-client")
        port = BULK_PORT if load.bulk else variant.http_port
        target = (self.addresses[variant.namespace, variant.server], port)
        proxies, agents = processes.used()
        result = await run_load(self.mesh, place, target, load, seconds, self.known)
        proxies_now, agents_now = processes.used()
        unit = 1e6 / (result.amount * (1000 if load.bulk else 1))
        return Sample(result, (proxies_now - proxies) * unit, (agents_now - agents) * unit)


def _memory(mesh: Instance, own: Processes, ztunnel: Processes | None) -> list[Number]:
    sizes = {each.pid: each.anonymous / 1024 for each in mesh.processes()}
    parts: list[tuple[str, tuple[int, ...], float | None]] = [
        ("Envoy", own.proxies, 40.0),
        ("agent", own.agents, 60.0),
    ]
    if ztunnel is not None:
        parts.append(("ztunnel", ztunnel.proxies, None))
    return [
        summary(f"{name} of a node after the load, anonymous", [sizes[pid] for pid in pids], "MiB", target)
        for name, pids, target in parts
    ]


async def _pods(
    mesh: Instance, namespace: str, nodes: tuple[str, str], known: bool, *, enrolled: bool
) -> dict[tuple[str, str], str]:
    """A client and a server on the first node, a server on the second, all ready; the servers' addresses."""
    await mesh.namespace(namespace, enrolled=enrolled)
    script = {"metadata": {"name": "script", "namespace": namespace}, "data": {"load.py": LOADER.read_text()}}
    await mesh.client.create(CONFIG_MAPS, script)
    servers = {"http": http_server(), "bulk": sink(known)}
    near, far = nodes
    client = {"client": ["sleep", "infinity"]}
    annotations = {CAPTURE_ANNOTATION: "nat"} if namespace == NAT else {}
    for name, node, containers in (("client", near, client), (NEAR, near, servers), (FAR, far, servers)):
        await mesh.pod(namespace, f"{namespace}-{name}", node, containers, "script", annotations)
    await mesh.address(namespace, f"{namespace}-client")
    return {
        (namespace, server): await mesh.address(namespace, f"{namespace}-{server}") for server in (NEAR, FAR)
    }


def _ratios(samples: Samples) -> list[Number]:
    """Meshes against direct (no target: it is what mutual TLS costs), ours against sidecars (at least as fast) and
    ztunnel."""
    meshes = [
        each
        for each in (*VARIANTS, *NAT_VARIANTS, *ZTUNNEL_VARIANTS)
        if each.namespace in ("bench-mesh", NAT, ZTUNNEL) and (each.name, LOADS[0].name) in samples
    ]
    pairs: list[tuple[Load, str, str, float | None]] = []
    for load in LOADS:
        pairs += [(load, variant.name, variant.baseline, None) for variant in meshes]
        pairs += [(load, one, peer, None) for one, peer in NAT_PAIRS if (peer, load.name) in samples]
        pairs += [(load, MESH, peer, 1.0) for peer in PEERS if (peer, load.name) in samples]
        pairs += [
            (load, one, peer, RATES_OF_ZTUNNEL.get((one, load.name)))
            for one, peer in ZTUNNEL_PAIRS
            if (peer, load.name) in samples
        ]
    slowest = [
        slowest_ratio(samples, load, *ZTUNNEL_PAIRS[0], SLOWEST_OF_ZTUNNEL)
        for load in LOADS
        if not load.bulk and load.keep and load.width > 1 and (ZTUNNEL_PAIRS[0][1], load.name) in samples
    ]
    return [*(ratio(samples, *pair) for pair in pairs), *slowest]


def show(subject: str, numbers: list[Number]) -> str:
    """A matrix of the variants."""
    return matrix(subject, numbers, [each.name for each in (*VARIANTS, *NAT_VARIANTS, *ZTUNNEL_VARIANTS)])
