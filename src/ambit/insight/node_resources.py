"""What the Envoy of every node would get for a compiled mesh: the same plan as the node agent's, for pods that are
taken as captured when they are published so.

Sandbox and network namespace are the node's own affair; they have the pod's name here. Destinations are answers to
questions, so those are given that pods can ask about services, and the tunnels that these answers name.
"""

from collections.abc import Iterator

from ambit.envoy import names
from ambit.insight.manifests import Compiled
from ambit.model.workload import NetworkMode, TunnelProtocol, Workload
from ambit.plan.node import node_proxy
from ambit.plan.values import LocalPod, LocalPods, NodeSettings, PlannedResource

SANDBOX = "0"


def node_resources(compiled: Compiled, pod: str = "") -> Iterator[tuple[str, PlannedResource]]:
    """(node, resource) in the order of sending, nodes by name. `pod` is a `NAMESPACE/NAME` to which pods'
    resources are limited."""
    view = compiled.view()
    captured = [each for each in compiled.workloads if _is_captured(each)]
    for node in sorted({each.node for each in captured}):
        here = [each for each in captured if each.node == node]
        settings = node_settings(node, compiled)
        pods = LocalPods(map(_local_pod, here))
        for resource in node_proxy.shared_resources():
            yield node, resource
        for local in pods:
            if pod in ("", f"{local.namespace}/{local.name}"):
                for resource in node_proxy.pod_resources(local, view, settings, pods=pods):
                    yield node, resource
                for name in _questions(local, compiled):
                    yield node, node_proxy.destination(name, view, pods, settings)
        for identity in sorted({each.identity for each in captured if each.node != node}):
            yield node, node_proxy.destination(names.tunnel(identity), view, pods, settings)


def node_settings(node: str, compiled: Compiled) -> NodeSettings:
    """A node as its agent knows it; where it lies is what its workloads say."""
    where = next((each.locality for each in compiled.workloads if each.node == node), None)
    return NodeSettings(
        node=node,
        network=compiled.settings.network,
        trust_domain=compiled.settings.trust_domain,
        trust_domain_aliases=compiled.settings.trust_domain_aliases,
        cluster_id=compiled.settings.cluster_id,
        region=where.region if where else "",
        zone=where.zone if where else "",
        subzone=where.subzone if where else "",
    )


def _is_captured(workload: Workload) -> bool:
    return (
        workload.tunnel is TunnelProtocol.HBONE
        and workload.network_mode is NetworkMode.STANDARD
        and not workload.native_tunnel
        and bool(workload.node)
    )


def _local_pod(workload: Workload) -> LocalPod:
    return LocalPod(
        uid=workload.uid,
        namespace=workload.namespace,
        name=workload.name,
        sandbox=SANDBOX,
        identity=workload.identity,
        addresses=workload.addresses,
        netns=f"/run/netns/{workload.namespace}_{workload.name}",
        workload=workload,
    )


def _questions(pod: LocalPod, compiled: Compiled) -> Iterator[str]:
    families = {address.version for address in pod.addresses}
    for service in compiled.services:
        for virtual in service.addresses:
            if virtual.prefix is None and virtual.address.version in families:
                for port in service.ports:
                    yield names.destination(pod.key, virtual.address, port.service)
