"""Decision records of requests. Pure. Requests that differ only in numbers and in what was asked share all else."""

from collections.abc import Iterator

import msgspec

from ambit.agent.record import End, Flow, Reporter, RequestPart, described, peer
from ambit.plan.announcement import parse_baggage
from ambit.plan.destinations import DIRECT, TUNNEL
from ambit.proxy.flows.entry import About, read_asked

ANSWERED = "answered"
"""The proxy itself did; no endpoint was asked."""


class KeptRequest(msgspec.Struct, frozen=True, gc=False):
    """An ended request: its own numbers, what was `asked`, and the `flow` that lacks them. Thousands are kept, so this
    is what they do not share."""

    flow: Flow
    started: int
    milliseconds: float
    client_port: str
    received: int
    sent: int
    attempts: int
    asked: str

    def records(self) -> Iterator[Flow]:
        """The complete record."""
        flow, asked = self.flow, read_asked(self.asked)
        part = flow.request or RequestPart()
        yield msgspec.structs.replace(
            flow,
            time=self.started / 1e9,
            source=msgspec.structs.replace(flow.source, address=f"{flow.source.address}:{self.client_port}"),
            received=self.received,
            sent=self.sent,
            milliseconds=self.milliseconds,
            trace=asked.tunnel,
            request=msgspec.structs.replace(
                part,
                method=asked.method,
                host=asked.host,
                path=asked.path,
                attempts=self.attempts,
                id=asked.id,
                trace=asked.trace,
            ),
        )


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
