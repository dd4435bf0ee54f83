"""Decision records of requests. Pure. Requests that differ only in numbers and in what was asked share all else."""

from ambit.agent.record import End, Flow, Reporter, RequestPart, described, peer
from ambit.agent.request_entry import About
from ambit.plan.announcement import parse_baggage
from ambit.plan.destinations import DIRECT, TUNNEL

ANSWERED = "answered"
"""The proxy itself did; no endpoint was asked."""


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


def _destination(about: About, service: str) -> End:
    if not about.target:
        host = service.partition("/")[2] or about.service.rpartition("/")[2] or "listener"
        return End(f"{host}:{about.port}", service=service)
    return described(
        about.target,
        parse_baggage(about.target_baggage),
        workload=about.target_pod,
        identity=about.target_identity,
        service=service,
    )
