"""`./dev bench kubernetes`: memory and data path of ambit, then of Istio's ambient mesh, on one cluster in one run.

Rules:
1. Both meshes are installed with their own charts and defaults, one after the other: two cannot capture at once.
2. Each phase has pods without a mesh on the same nodes, measured in turn with those in it. Rates of the meshes are
   compared by their ratios to these, so that a machine whose speed changes between the phases moves neither.
3. Processor time and memory are those of every pod that the mesh installs, as the kernel counts them.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from tests.kubernetes.cluster import lifecycle, programs
from tests.kubernetes.cluster.settings import Cluster, state_folder

from ambit.core.errors import AmbitError
from ambit.core.names import ROOT_NAMESPACE, SYSTEM_NAMESPACE
from bench.datapath.samples import Sample, Samples, Variant, absolute, matrix, processor_seconds, ratio
from bench.datapath.tools import LOADS, Load, known_tools, run_load
from bench.harness import Number, Options, summary
from bench.kubernetes import istio
from bench.kubernetes.site import CLIENT, FAR, NEAR, Site, Use
from bench.servers import BULK_PORT, HTTP_PORT
from bench.ztunnel.nodes import VARIABLE, program

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / ".cache/image/ambit.tar"
DIRECT, MESH = "bench-direct", "bench-mesh"
PLACES = {"same node": NEAR, "across nodes": FAR}


class Phase(msgspec.Struct, frozen=True):
    """A mesh: its name, the namespace of its parts, and how it comes and goes."""

    name: str
    namespace: str
    install: Callable[[Cluster], None]
    uninstall: Callable[[Cluster], None]

    def variants(self) -> list[Variant]:
        """Direct and mesh, near and far."""
        found = []
        for place, server in PLACES.items():
            direct = f"direct beside {self.name}, {place}"
            found += [
                Variant(direct, DIRECT, server),
                Variant(f"{self.name}, {place}", MESH, server, baseline=direct),
            ]
        return found


async def measure(options: Options) -> list[Number]:
    """Both meshes; only ours, and a line that says so, when no ztunnel is named. Raises AmbitError."""
    programs.check_machine()
    programs.build()
    _command([sys.executable, "-m", "image"])
    archives = [IMAGE]
    phases = [Phase("ambit", SYSTEM_NAMESPACE, _install_ambit, _uninstall_ambit)]
    if (ztunnel := program()) is None:
        print(f"{VARIABLE} names no ztunnel: Istio's ambient mesh is not measured", file=sys.stderr)
    else:
        archives += istio.prepare(ztunnel)
        phases.append(Phase("Istio", istio.NAMESPACE, istio.install, lambda _: None))
    known = await known_tools()
    numbers: list[Number] = []
    with _cluster() as cluster:
        for archive in archives:
            lifecycle.load_image(cluster, archive)
        site = Site(cluster, known)
        for phase in phases:
            numbers += await _measure(site, phase, options)
    return numbers


def show(subject: str, numbers: list[Number]) -> str:
    """A matrix of the variants."""
    names = dict.fromkeys(each.name.partition(":")[0] for each in numbers if ": " in each.name)
    return matrix(subject, numbers, list(names))


async def _measure(site: Site, phase: Phase, options: Options) -> list[Number]:
    phase.install(site.cluster)
    idle = await _settled(site, phase)
    addresses = {
        (namespace, server): address
        for namespace in (DIRECT, MESH)
        for server, address in (await site.pods(namespace, enrolled=namespace == MESH)).items()
    }
    variants = phase.variants()
    for variant in variants:
        await site.warm(variant.namespace, addresses[variant.namespace, variant.server], HTTP_PORT)
    samples: Samples = {}
    for number in range(options.rounds):
        turn = number % len(variants)
        for load in LOADS:
            for variant in (*variants[turn:], *variants[:turn]):
                address = addresses[variant.namespace, variant.server]
                sample = await _sample(site, phase, variant, address, load, options.seconds)
                samples.setdefault((variant.name, load.name), []).append(sample)
    after = await site.parts(phase.namespace)
    for namespace in (MESH, DIRECT):
        await site.kubectl("delete", "namespace", namespace, "--timeout=120s")
    phase.uninstall(site.cluster)
    ratios = [
        ratio(samples, load, each.name, each.baseline, None)
        for load in LOADS
        for each in variants
        if each.baseline
    ]
    return [
        *absolute(samples),
        *ratios,
        *_sizes(phase, "idle", idle),
        *_sizes(phase, "after the load", after),
    ]


async def _sample(
    site: Site, phase: Phase, variant: Variant, address: str, load: Load, seconds: float
) -> Sample:
    parts = await site.parts(phase.namespace) if variant.namespace == MESH else []
    proxies = [pid for each in parts for pid in each.proxies]
    others = [pid for each in parts for pid in each.others]
    before = processor_seconds(proxies), processor_seconds(others)
    target = (address, BULK_PORT if load.bulk else HTTP_PORT)
    result = await run_load(site, (variant.namespace, CLIENT), target, load, seconds, site.known)
    unit = 1e6 / (result.amount * (1000 if load.bulk else 1))
    return Sample(
        result,
        (processor_seconds(proxies) - before[0]) * unit,
        (processor_seconds(others) - before[1]) * unit,
    )


async def _settled(site: Site, phase: Phase) -> list[Use]:
    """The parts when no pod of them is new any more."""
    await site.kubectl(
        "-n", phase.namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s"
    )
    return await site.parts(phase.namespace)


def _sizes(phase: Phase, when: str, parts: list[Use]) -> list[Number]:
    """Memory of each part, a pod each, and of all together."""
    numbers = []
    for name in dict.fromkeys(each.name for each in parts):
        mine = [each for each in parts if each.name == name]
        title = f"{phase.name} {when}, {name}"
        numbers.append(summary(f"{title}, anonymous", [each.anonymous / 1024 for each in mine], "MiB"))
        if any(each.proxies and each.others for each in mine):
            proxies = [each.proxies_anonymous / 1024 for each in mine]
            numbers.append(summary(f"{title}, its proxy alone, anonymous", proxies, "MiB"))
        numbers.append(summary(f"{title}, PSS", [each.pss / 1024 for each in mine], "MiB"))
    total = sum(each.pss for each in parts) / 1024
    return [*numbers, summary(f"{phase.name} {when}, all parts on both nodes, PSS", [total], "MiB")]


def _install_ambit(cluster: Cluster) -> None:
    settings = ("--set", "global.hub=localhost", "--set", "global.tag=dev", "--timeout", "240")
    _ambit(cluster, "install", *settings)


def _uninstall_ambit(cluster: Cluster) -> None:
    """With the namespaces gone: Istio's parts go into one of the same name."""
    _ambit(cluster, "uninstall", "--purge")
    namespaces = [f"namespace/{each}" for each in (SYSTEM_NAMESPACE, ROOT_NAMESPACE)]
    words = ["kubectl", "wait", "--for=delete", "--timeout=120s", *namespaces]
    if lifecycle.execute(cluster, words):
        raise AmbitError("ambit's namespaces do not go")


def _ambit(cluster: Cluster, *words: str) -> None:
    if lifecycle.execute(cluster, [sys.executable, "-m", "ambit", *words]):
        raise AmbitError(f"`ambit {words[0]}` failed on the cluster")


@contextmanager
def _cluster() -> Iterator[Cluster]:
    """Two nodes, gone afterwards whatever happens."""
    name = f"bench-{os.getpid()}"
    cluster = Cluster(name, state_folder(name), 2)
    try:
        lifecycle.up(cluster)
        yield cluster
    finally:
        lifecycle.down(cluster.state)


def _command(words: list[str]) -> None:
    if subprocess.run(words, cwd=ROOT, stdout=sys.stderr).returncode:
        raise AmbitError(f"`{' '.join(words[1:])}` failed")
