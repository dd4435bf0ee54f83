"""Decision records of requests, and of connections in which none are read. Pure. Those that differ only in numbers,
and in what was asked, share all else."""

import msgspec

from ambit.agent.ends import Ends
from ambit.agent.record import ANSWERED, End, Flow, Reporter, RequestPart, described, peer
from ambit.agent.request_entry import About
from ambit.agent.stream_entry import About as Stream
from ambit.plan.announcement import parse_baggage
from ambit.plan.node.ways import DIRECT, REFUSED, TUNNEL


def flow_of(about: About, *, proxy: str, node: str) -> Flow:
    """What records of such requests have in common. The source's address lacks the port."""
    service = about.service if about.service.count("/") == 1 else ""
    return Flow(
        time=0.0,
        node=node,
        reporter=Reporter.GATEWAY if about.is_edge else Reporter.WAYPOINT,
        source=peer(about.client, about.identity, about.baggage),
        destination=_destination(about, service),
        hop=(TUNNEL if about.target_identity else DIRECT) if about.target else ANSWERED,
        decision="deny" if about.denied else "allow",
        policy=about.policy,
        dry_run=about.dry_run,
        audited=about.audited,
        error=about.error,
        mutual_tls=bool(about.identity) and (not about.target or bool(about.target_identity)),
        proxy=proxy,
        request=RequestPart(
            protocol=about.protocol,
            code=about.code,
            grpc_status=about.grpc_status,
            route=about.route,
            flags=about.flags,
            details=about.details,
        ),
    )


def stream_flow(about: Stream, *, proxy: str, node: str) -> Flow:
    """What records of such connections have in common. The source's address lacks the port."""
    service = about.service if about.service.count("/") == 1 else ""
    hop = TUNNEL if about.target_identity else DIRECT
    destination = _destination(about, service)
    if about.is_edge and not about.target and not service:
        # It came no farther than to the gateway.
        destination = msgspec.structs.replace(destination, namespace=proxy.partition("/")[0])
    return Flow(
        time=0.0,
        node=node,
        reporter=Reporter.GATEWAY if about.is_edge else Reporter.WAYPOINT,
        source=peer(about.client, about.identity, about.baggage),
        destination=destination,
        hop=hop if about.target else REFUSED,
        decision="deny" if about.denied else "allow",
        policy=about.policy,
        dry_run=about.dry_run,
        error=about.error,
        mutual_tls=bool(about.identity) and (not about.target or bool(about.target_identity)),
        proxy=proxy,
    )


def _destination(about: Ends, service: str) -> End:
    if not about.target:
        host = service.partition("/")[2] or about.service.rpartition("/")[2] or "listener"
        return End(f"{host}:{about.port}", service=service)
    if not about.target_baggage and about.target_pod:
        known = peer(about.target, about.target_identity, "")
        return msgspec.structs.replace(known, workload=about.target_pod, service=service)
    return described(
        about.target,
        parse_baggage(about.target_baggage),
        workload=about.target_pod,
        identity=about.target_identity,
        service=service,
    )
