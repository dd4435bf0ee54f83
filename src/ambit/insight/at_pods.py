"""What rules about requests make of a request where its server is, as that node reads it (`ambit.plan.node.at_pod`);
from configuration alone. Pure."""

import ipaddress

import msgspec

from ambit.core.identity import Identity
from ambit.insight.at_tokens import NOTHING, Shown, borne
from ambit.insight.at_waypoint import forwarded, ruling_of
from ambit.insight.manifests import Compiled
from ambit.insight.ruling import ALLOWED, ASKED, DENIED, REFUSED, Ruling
from ambit.model.service import Service
from ambit.model.workload import Workload
from ambit.plan.node import at_pod
from ambit.policy.requests import Request, RequestFacts

OTHER_TOKENS = "services that share the port have other rules about tokens, so no request passes"


def judged(connection: Ruling, request: Request, compiled: Compiled, shown: Shown = NOTHING) -> Ruling:
    """The ruling of a pod about a connection, when it is this request that comes by it."""
    workload = _workload(connection, compiled)
    port = at_pod.ports_of(workload, compiled.view()).get(connection.port)
    if connection.verdict != ALLOWED or port is None or not _is_read(port):
        return connection
    if port.is_closed:
        return _said(connection, Ruling(DENIED, OTHER_TOKENS, identity=connection.identity))
    token = borne(port.tokens, request, shown)
    if token.refused:
        return _said(connection, token.ruling(connection.identity))
    found, audited = connection, dict[str, None]()
    source = ipaddress.ip_address(connection.source) if connection.source else None
    for ruled in port.judges:
        assert source is not None, "a pod is asked from somewhere"
        facts = RequestFacts(
            source=source,
            port=ruled.port,
            destination=next(iter(ruled.addresses), None),
            identity=Identity.parse(connection.identity) if connection.identity else None,
            remote=forwarded(request),
            request=token.request,
        )
        said = _said(connection, ruling_of(ruled.policies, facts, token.said))
        audited.update(dict.fromkeys(said.audited))
        asks = tuple(dict.fromkeys((*found.asks, *said.asks)))
        found = said
        if said.verdict == DENIED:
            break
        found = msgspec.structs.replace(said, asks=asks, verdict=ASKED if asks else said.verdict)
    return msgspec.structs.replace(found, audited=tuple(audited))


def is_read(connection: Ruling, compiled: Compiled) -> bool:
    """Whether the pod's node reads what comes by this connection."""
    port = at_pod.ports_of(_workload(connection, compiled), compiled.view()).get(connection.port)
    return port is not None and _is_read(port)


def _is_read(port: at_pod.PodPort) -> bool:
    return port.is_read or port.is_told


def held_to(connection: Ruling, service: Service, compiled: Compiled) -> Ruling:
    """The ruling of a backend's pod about what was called by the name of `service`, which nobody sends where its rules
    are not enforced."""
    workload = _workload(connection, compiled)
    if service.enforced is None or (workload and at_pod.enforces(workload, service, connection.port)):
        return connection
    called = f"{service.namespace}/{service.name}"
    reason = (
        f"it is no pod of {called}, so nobody would enforce the rules for that, and nothing is sent there"
    )
    return msgspec.structs.replace(connection, verdict=REFUSED, reason=reason)


def _said(connection: Ruling, found: Ruling) -> Ruling:
    """`found` at the same pod."""
    return msgspec.structs.replace(
        found,
        pod=connection.pod,
        address=connection.address,
        port=connection.port,
        source=connection.source,
        of_request=True,
        is_pod=connection.is_pod,
        mode=connection.mode,
        mode_by=connection.mode_by,
        policies=tuple(sorted({*connection.policies, *found.policies})),
    )


def _workload(connection: Ruling, compiled: Compiled) -> Workload | None:
    return next(
        (
            each
            for each in compiled.workloads
            if f"{each.namespace}/{each.name}" == connection.pod
            and connection.address in map(str, each.addresses)
        ),
        None,
    )
