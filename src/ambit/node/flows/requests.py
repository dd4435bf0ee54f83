"""Decision records of requests that were read on this node: where they come from, or where their server is. Pure."""

import msgspec

from ambit.agent.record import ANSWERED, End, Flow, Reporter, RequestPart
from ambit.agent.request_entry import About
from ambit.core.address import host_port
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.node.flows import record
from ambit.plan.endpoints import preferred_address
from ambit.plan.node.ways import REFUSED, SAME_NODE, TUNNEL
from ambit.plan.values import LocalPod, LocalPods, NodeSettings


def flow_of(about: About, view: MeshView, pods: LocalPods, settings: NodeSettings) -> Flow | None:
    """What records of such requests have in common; None of those of no pod here. The source's address lacks the
    port."""
    if (found := names.parse_from_pod(about.service)) is not None:
        pod = pods.by_key(found[0])
        return _of_caller(about, found[1], pod, view, settings) if pod is not None else None
    if (found := names.parse_at_pod(about.service)) is not None:
        pod = pods.by_key(found[0])
        return _of_server(about, found[1], pod, view, pods, settings) if pod is not None else None
    return None


def _of_caller(about: About, service: str, pod: LocalPod, view: MeshView, settings: NodeSettings) -> Flow:
    """What the server's node decides it tells by itself; but where both are on one node, who may not connect is refused
    before anything is sent."""
    is_denied = about.target_way == REFUSED and bool(about.target_policy)
    return Flow(
        time=0.0,
        node=settings.node,
        reporter=Reporter.SOURCE,
        source=record.local_end(_bare(pod, about), pod.key, pod, view, settings),
        destination=_server(about, service, view),
        hop=about.target_way if about.target else ANSWERED,
        decision="deny" if is_denied else "allow",
        policy=about.target_policy if is_denied else "",
        error="" if is_denied else about.error,
        mutual_tls=bool(about.target) and about.target_way in {TUNNEL, SAME_NODE},
        request=_part(about),
    )


def _server(about: About, service: str, view: MeshView) -> End:
    if not about.target:
        return End(f"{service.partition('/')[2]}:{about.port}", service=service)
    return record.endpoint_end(about.target, about.target_workload, about.target_identity, service, view)


def _of_server(
    about: About, service: str, pod: LocalPod, view: MeshView, pods: LocalPods, settings: NodeSettings
) -> Flow:
    place = f"{_bare(pod, about)}:{int(about.port)}"
    server = record.local_end(place, pod.key, pod, view, settings, is_server=True)
    return Flow(
        time=0.0,
        node=settings.node,
        reporter=Reporter.DESTINATION,
        source=record.client_end(about.client, about.identity, about.baggage, view, settings),
        destination=msgspec.structs.replace(server, service=service),
        hop=_hop(about, pods),
        decision="deny" if about.denied else "allow",
        policy=about.policy,
        dry_run=about.dry_run,
        audited=about.audited,
        error=about.error,
        mutual_tls=bool(about.identity),
        request=_part(about),
    )


def _part(about: About) -> RequestPart:
    return RequestPart(
        protocol=about.protocol,
        code=about.code,
        grpc_status=about.grpc_status,
        route=about.route,
        flags=about.flags,
        details=about.details,
    )


def _bare(pod: LocalPod, about: About) -> str:
    """The pod's address of the family that its peer has, or it itself; IPv6 in brackets."""
    address = preferred_address(pod.addresses, 6 if about.client.startswith("[") else 4)
    assert address is not None, "a pod has an address"
    return host_port(address, 0).rpartition(":")[0]


def _hop(about: About, pods: LocalPods) -> str:
    """How it came; empty without an identity, in plain text."""
    if not about.identity:
        return ""
    return SAME_NODE if pods.by_address(record.address_of(about.client)) is not None else TUNNEL
