"""Decision records of requests that were read where their server is: on this node. Pure."""

import msgspec

from ambit.agent.record import Flow, Reporter, RequestPart
from ambit.agent.request_entry import About
from ambit.core.address import host_port
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.node.flows import record
from ambit.plan.destinations import SAME_NODE, TUNNEL
from ambit.plan.endpoints import preferred_address
from ambit.plan.values import LocalPods, NodeSettings


def flow_of(about: About, view: MeshView, pods: LocalPods, settings: NodeSettings) -> Flow | None:
    """What records of such requests have in common; None of those that no pod here got. The source's address lacks the
    port."""
    named = names.parse_at_pod(about.service)
    pod = pods.by_key(named[0]) if named is not None else None
    if named is None or pod is None:
        return None
    address = preferred_address(pod.addresses, 6 if about.client.startswith("[") else 4)
    assert address is not None, "a pod has an address"
    place = host_port(address, int(about.port))
    server = record.local_end(place, pod.key, pod, view, settings, is_server=True)
    return Flow(
        time=0.0,
        node=settings.node,
        reporter=Reporter.DESTINATION,
        source=record.client_end(about.client, about.identity, about.baggage, view, settings),
        destination=msgspec.structs.replace(server, service=named[1]),
        hop=_hop(about, pods),
        decision="deny" if about.denied else "allow",
        policy=about.policy,
        dry_run=about.dry_run,
        error=about.error,
        mutual_tls=bool(about.identity),
        request=RequestPart(
            protocol=about.protocol,
            code=about.code,
            grpc_status=about.grpc_status,
            flags=about.flags,
            details=about.details,
        ),
    )


def _hop(about: About, pods: LocalPods) -> str:
    """How it came; empty without an identity, in plain text."""
    if not about.identity:
        return ""
    return SAME_NODE if pods.by_address(record.address_of(about.client)) is not None else TUNNEL
