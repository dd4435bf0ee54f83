"""The Kubernetes part of the graph: from sources to services and workloads."""

from collections.abc import Callable, Mapping

import msgspec

from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.kube.endpoints import Membership, memberships
from ambit.ingest.kube.endpoints import workloads as slice_workloads
from ambit.ingest.kube.service import ServiceTarget, service, service_target
from ambit.ingest.kube.workload import is_workload, locality, workload
from ambit.ingest.selection import label_entries, selector_entry, selects
from ambit.ingest.settings import MeshSettings
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
    services: Collection[Service]
    workloads: Collection[Workload]


def compile_kube(
    graph: Graph, sources: KubeSources, attach: Attach, settings: MeshSettings
) -> KubeCollections:
    """Adds the collections to a graph. Services are keyed `<namespace>/<hostname>`, workloads by uid."""
    services = graph.derive(
        "mesh services",
        sources.services,
        lambda context, given: service(
            given, context.get(sources.namespaces, given.metadata.namespace), settings
        ),
        key=lambda made: made.key,
    )
    targets = graph.derive(
        "service targets", sources.services, lambda context, given: service_target(given, settings)
    )
    by_selector = targets.index(
        lambda target: [selector_entry(target.namespace, target.selector)] if target.selector else []
    )

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
        if not is_workload(pod):
            return None
        meta = pod.metadata
        chosen = [
            target
            for entry in label_entries(meta.namespace, meta.labels)
            for target in context.lookup(by_selector, entry)
            if selects(target.selector, meta.labels)
        ]
        where = context.get(localities, pod.spec.node_name) if pod.spec.node_name else None
        policies = attach(context, meta.namespace, meta.labels)
        made = workload(pod, chosen, where, policies, settings)
        extra = context.lookup(by_pod, meta.key)
        if extra:
            joined = {**made.services, **{member.service: member.ports for member in extra}}
            made = msgspec.structs.replace(made, services=joined)
        return made

    pods = graph.derive("pod workloads", sources.pods, pod_workload, key=lambda made: made.uid)
    slices = graph.derive_many("slice workloads", sources.slices, outsiders)
    return KubeCollections(services, graph.join("mesh workloads", [pods, slices]))
