"""The Kubernetes part of the graph: from sources to services and workloads."""

from collections.abc import Callable, Mapping

import msgspec

from ambit.graph.collection import Collection, Index
from ambit.graph.engine import Context, Graph
from ambit.ingest.binds import Binds
from ambit.ingest.kube.endpoints import Membership, memberships
from ambit.ingest.kube.endpoints import workloads as slice_workloads
from ambit.ingest.kube.service import service, service_target
from ambit.ingest.kube.workload import locality, workload
from ambit.ingest.pod_addresses import PodAddresses
from ambit.ingest.settings import MeshSettings
from ambit.ingest.targets import ServiceTarget, chosen, filed
from ambit.model.service import Service
from ambit.model.workload import Workload
from ambit.objects import kube

Attach = Callable[[Context, str, Mapping[str, str]], tuple[str, ...]]
"""Names of the selector-scoped policies for a pod's namespace and labels; reads through the context."""


class KubeSources(msgspec.Struct, frozen=True):
    namespaces: Collection[kube.Namespace]
    nodes: Collection[kube.Node]
    services: Collection[kube.Service]
    slices: Collection[kube.EndpointSlice]
    pods: Collection[kube.Pod]


class KubeCollections(msgspec.Struct, frozen=True):
    """`targets` finds everything that selects workloads (`ambit.ingest.targets.chosen`)."""

    services: Collection[Service]
    workloads: Collection[Workload]
    targets: Index[ServiceTarget]


def compile_kube(
    graph: Graph,
    sources: KubeSources,
    others: Collection[ServiceTarget],
    attach: Attach,
    binds: Binds,
    own: PodAddresses,
    settings: MeshSettings,
) -> KubeCollections:
    """Adds the collections to a graph. Services are keyed `<namespace>/<hostname>`, workloads by uid. `others` are
    what else than Services selects pods, `own` says which addresses are pods' own."""
    services = graph.derive(
        "mesh services",
        sources.services,
        lambda context, given: service(
            given,
            context.get(sources.namespaces, given.metadata.namespace),
            binds.service(context, given.metadata.namespace, given.metadata.labels),
            settings,
        ),
        key=lambda made: made.key,
    )
    targets = graph.derive(
        "service targets", sources.services, lambda context, given: service_target(given, settings)
    )
    by_selector = graph.join("all targets", [targets, others]).index(filed)

    def selectorless(context: Context, given: kube.EndpointSlice) -> ServiceTarget | None:
        if not given.service:
            return None
        target = context.get(targets, f"{given.metadata.namespace}/{given.service}")
        return target if target is not None and not target.selector else None

    def members(context: Context, given: kube.EndpointSlice) -> Mapping[str, Membership]:
        target = selectorless(context, given)
        return memberships(given, target) if target else {}

    def outsiders(context: Context, given: kube.EndpointSlice) -> Mapping[str, Workload]:
        target = selectorless(context, given)
        return slice_workloads(given, target, settings) if target else {}

    memberships_of = graph.derive_many("slice memberships", sources.slices, members)
    by_pod = memberships_of.index(lambda member: [member.pod])
    localities = graph.derive("localities", sources.nodes, lambda context, node: locality(node))

    def pod_workload(context: Context, pod: kube.Pod) -> Workload | None:
        addresses = own.of(context, pod)
        if not addresses:
            return None
        meta = pod.metadata
        targets_here = chosen(context, by_selector, meta.namespace, meta.labels)
        where = context.get(localities, pod.spec.node_name) if pod.spec.node_name else None
        policies = attach(context, meta.namespace, meta.labels)
        waypoint = binds.workload(context, meta.namespace, meta.labels)
        handed = binds.handed(context, meta.namespace, meta.labels)
        made = workload(pod, addresses, targets_here, where, policies, waypoint, settings, handed)
        extra = context.lookup(by_pod, meta.key)
        if extra:
            joined = {**made.services, **{member.service: member.ports for member in extra}}
            made = msgspec.structs.replace(made, services=joined)
        return made

    pods = graph.derive("pod workloads", sources.pods, pod_workload, key=lambda made: made.uid)
    slices = graph.derive_many("slice workloads", sources.slices, outsiders)
    return KubeCollections(services, graph.join("kube workloads", [pods, slices]), by_selector)
