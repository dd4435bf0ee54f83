"""Why a connection would be allowed or denied, from configuration alone. Pure.

The way is the node proxies': a service leads to the endpoints that the source's node may choose, with the pod's port;
what passes through a waypoint comes to endpoints as the waypoint;
a captured source shows its identity to a captured destination and to nobody else; a destination that is not captured
is guarded by nothing. `ambit.policy.decide` decides.
"""

from collections.abc import Iterator, Sequence

import msgspec

from ambit.core.address import Address, host_port
from ambit.core.errors import BadInput
from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.core.names import RESERVED_PORTS
from ambit.ingest.istio.peer import deciding
from ambit.insight.at_gateway import connecting, gateway_of
from ambit.insight.at_waypoint import Passage, at_waypoint, otherwise, reads
from ambit.insight.ends import Destination, find_destination, find_source
from ambit.insight.manifests import Compiled
from ambit.insight.node_resources import node_settings
from ambit.insight.ruling import (
    ALLOWED,
    DENIED,
    REFUSED,
    Otherwise,
    Ruling,
    in_words,
    together,
    verdict_name,
    verdict_of,
)
from ambit.insight.way import Way, each_alone, waypoint_between
from ambit.model.policy import Action, Authorization
from ambit.model.service import LoadBalancing, Service
from ambit.model.workload import TunnelProtocol, Workload
from ambit.plan.endpoints import Choice, all_choices, choices, for_client, preferred_address
from ambit.plan.node import at_pod
from ambit.plan.values import at
from ambit.policy.decide import ConnectionFacts, Decision, Reason, decide, rule_name
from ambit.policy.nearest import decide_without, nearest
from ambit.policy.requests import RequestFacts, decide_request

NOT_CAPTURED = "the destination is not in the mesh, so nothing decides"
NOBODY = "nobody in the mesh has this address, so it passes untouched"


class Answer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`verdict` is allowed or denied when every endpoint says so, mixed when they differ, refused when the connection
    does not come to any. `findings` are about the policies that apply. `waypoint` (`<namespace>/<name>`) is what the
    connection passes through: endpoints see that, not the source. Where several waypoints share a service's connections
    `parts` have the answers, and it has none itself."""

    source: str
    destination: str
    verdict: str
    rulings: tuple[Ruling, ...]
    findings: tuple[str, ...] = ()
    waypoint: str = ""
    parts: "tuple[Part, ...]" = ()

    @property
    def all_rulings(self) -> tuple[Ruling, ...]:
        """Its own, or those of its parts."""
        return self.rulings or tuple(each for part in self.parts for each in part.answer.rulings)


class Part(msgspec.Struct, frozen=True):
    """What becomes of so much of the connections, in percent."""

    percent: float
    answer: Answer


def why(source: str, destination: str, compiled: Compiled, namespace: str = "default") -> Answer:
    """The answer for `SRC` and `DST:PORT` as `ambit.insight.ends` reads them. Raises BadInput."""
    client = find_source(source, compiled, namespace)
    if isinstance(client, Workload):
        if not client.addresses:
            raise BadInput(f"{source} has no address yet")
        namespace = client.namespace
    target = find_destination(destination, compiled, namespace)
    if target.service is None:
        return connecting_to(client, target, compiled)
    parts = tuple(
        Part(percent, connecting_to(client, msgspec.structs.replace(target, service=each), compiled))
        for percent, each in each_alone(client, target.service, compiled)
    )
    if len(parts) == 1:
        return parts[0].answer
    one = parts[0].answer
    return Answer(
        one.source, one.destination, together(each.answer.verdict for each in parts), (), parts=parts
    )


def connecting_to(client: Workload | Address, target: Destination, compiled: Compiled) -> Answer:
    """The answer for these ends; the first waypoint of a service takes everything."""
    name = _pod(client) if isinstance(client, Workload) else str(client)
    if target.service is not None:
        title = f"service {target.service.namespace}/{target.service.name}:{target.port}"
        node = client.node if isinstance(client, Workload) else ""
        version = target.address.version if target.address else _version(client)
        if not any(port.service == target.port for port in target.service.ports):
            known = ", ".join(str(port.service) for port in target.service.ports) or "none"
            refused = Ruling(REFUSED, f"the service has no port {target.port} of TCP; it has: {known}")
            return Answer(name, title, REFUSED, (refused,))
        if (way := waypoint_between(client, target.service, compiled)) is not None:
            rulings = _barred(client, way, target, compiled)
            rulings = rulings or through(way, target.service, target.port, compiled)
            return _by_way(name, title, way, rulings, compiled)
        if (edge := gateway_of(target.service, compiled)) is not None:
            address = client.addresses[0] if isinstance(client, Workload) else client
            said = connecting(edge, address, target.port, compiled)
            return Answer(name, title, said.verdict, (said,))
        settings = node_settings(node, compiled)
        place = at(client.locality, settings) if isinstance(client, Workload) else settings
        found = for_client(
            target.service,
            client.addresses if isinstance(client, Workload) else (client,),
            choices(target.service, target.port, version, compiled.view(), place),
        )
        if not found:
            refused = Ruling(REFUSED, f"the service has no healthy endpoint for port {target.port}")
            return Answer(name, title, REFUSED, (refused,))
    elif target.workload is not None and target.address is not None:
        title = f"pod {_pod(target.workload)}:{target.port}"
        if (way := waypoint_between(client, target.workload, compiled)) is not None:
            choice = Choice(target.workload, target.address, target.port)
            told = (_ruling(way.pod, choice, compiled),) if way.pod is not None else ()
            return _by_way(name, title, way, _barred(client, way, target, compiled) or told, compiled)
        found = (Choice(target.workload, target.address, target.port),)
    else:
        asked = host_port(target.address, target.port) if target.address is not None else str(target.port)
        return Answer(name, asked, ALLOWED, (Ruling(ALLOWED, NOBODY),))
    rulings = tuple(_ruling(client, choice, compiled) for choice in found)
    return Answer(name, title, verdict_of(rulings), rulings, tuple(_findings(rulings, compiled)))


def through(way: Way, service: Service, port: int, compiled: Compiled) -> tuple[Ruling, ...]:
    """What endpoints of a service, wherever they are, say to a waypoint; none when it gets to none."""
    if way.pod is None:
        return ()
    health = (service.load_balancing or LoadBalancing()).health_policy
    anywhere = msgspec.structs.replace(service, load_balancing=LoadBalancing(health_policy=health))
    settings = node_settings(way.pod.node, compiled)
    found = all_choices(anywhere, port, way.pod.addresses[0].version, compiled.view(), settings)
    return tuple(_ruling(way.pod, each, compiled) for each in found if isinstance(each, Choice))


def _barred(
    client: Workload | Address, way: Way, target: Destination, compiled: Compiled
) -> tuple[Ruling, ...]:
    """What a waypoint says that lets no connection of bytes through. Of a port whose requests it reads it asks of each
    request."""
    bound = target.service or target.workload
    if not isinstance(client, Workload) or bound is None or way.proxy is None or way.pod is None:
        return ()
    if reads(bound, target.port, compiled):
        return ()
    ruling = at_waypoint(Passage(client, way.proxy, bound, target.port, target.address), compiled)
    return (ruling,) if ruling.verdict == DENIED else ()


def _by_way(name: str, title: str, way: Way, rulings: tuple[Ruling, ...], compiled: Compiled) -> Answer:
    if not rulings:
        rulings = (Ruling(REFUSED, way.refused or "the waypoint knows no healthy endpoint for it"),)
    findings = tuple(_findings(rulings, compiled))
    return Answer(name, title, verdict_of(rulings), rulings, findings, waypoint=way.name)


def _ruling(client: Workload | Address, choice: Choice, compiled: Compiled) -> Ruling:
    server = choice.workload
    source = _source_address(client, choice.address.version)
    at = Ruling(
        "", "", _pod(server), str(choice.address), choice.port, is_pod=server.is_pod, source=str(source)
    )
    captured = isinstance(client, Workload) and client.tunnel is TunnelProtocol.HBONE
    if choice.port in RESERVED_PORTS and (captured or server.tunnel is TunnelProtocol.HBONE):
        return _said(at, REFUSED, f"port {choice.port} belongs to the mesh")
    if server.tunnel is not TunnelProtocol.HBONE:
        return _said(at, ALLOWED, NOT_CAPTURED)
    facts = ConnectionFacts(
        source=source,
        destination=choice.address,
        destination_port=choice.port,
        identity=client.identity if captured and isinstance(client, Workload) else None,
    )
    if facts.identity is None:
        mode, peer = deciding(
            compiled.peers,
            server.namespace,
            compiled.labels.get(_pod(server), {}),
            choice.port,
            compiled.settings,
        )
        at = msgspec.structs.replace(at, mode=mode.value, mode_by=str(peer.origin) if peer else "")
    view = compiled.view()
    policies, missing = at_pod.policies_for(server, view)
    decision = decide(policies, facts, missing)
    ruled = at_pod.ports_of(server, view).get(choice.port)
    of_bytes = at_pod.decide_connection(ruled, source, facts.identity) if ruled is not None else None
    if decision.allowed and of_bytes is not None and not of_bytes.allowed:
        # What rules about requests say of bytes, which nobody knows to be requests.
        return msgspec.structs.replace(
            at,
            verdict=verdict_name(of_bytes),
            reason=of_bytes.reason.value,
            identity=facts.identity.uri if facts.identity else "",
            rule=rule_name(of_bytes),
            policies=(*(policy.key for policy in policies), of_bytes.policy),
            nearest=_otherwise_of_bytes(ruled, source, facts.identity),
        )
    without = decide_without(policies, decision, facts)
    return msgspec.structs.replace(
        at,
        verdict=verdict_name(decision),
        reason=decision.reason.value,
        identity=facts.identity.uri if facts.identity else "",
        rule=rule_name(decision),
        policies=tuple(policy.key for policy in policies),
        nearest=_otherwise(policies, decision, facts),
        without=in_words(without) if without else "",
        dry_run=in_words(decision.dry_run) if decision.dry_run else "",
    )


def _otherwise(
    policies: Sequence[Authorization], decision: Decision, facts: ConnectionFacts
) -> Otherwise | None:
    """Allowed: the DENY rule that lacks least. Denied: the ALLOW rule, also when a DENY rule goes before it."""
    if decision.reason is Reason.UNKNOWN_POLICY:
        return None
    action = Action.DENY if decision.allowed else Action.ALLOW
    found = nearest(policies, action, facts)
    if found is None:
        return None
    return Otherwise(f"{found.policy.key}[{found.rule}]", action.name, found.misses)


def _otherwise_of_bytes(
    port: at_pod.PodPort | None, source: Address, identity: Identity | None
) -> Otherwise | None:
    """Of the service of this port whose rules about requests deny."""
    for each in port.of_connections if port is not None else ():
        facts = RequestFacts(source, each.port, next(iter(each.addresses), None), identity)
        if not decide_request(each.policies, facts).decision.allowed:
            return otherwise(each.policies, facts, is_allowed=False)
    return None


def _said(at: Ruling, verdict: str, reason: str) -> Ruling:
    return msgspec.structs.replace(at, verdict=verdict, reason=reason)


def _findings(rulings: Sequence[Ruling], compiled: Compiled) -> Iterator[str]:
    """Of the policies that apply; those that could not be compiled to anything apply nowhere."""
    keys = {key for ruling in rulings for key in ruling.policies}
    origins: set[ObjectRef | None] = {each.origin for each in compiled.authorizations if each.key in keys}
    return (str(finding) for finding in compiled.findings if finding.origin in origins)


def _pod(workload: Workload) -> str:
    return f"{workload.namespace}/{workload.name}"


def _version(client: Workload | Address) -> int:
    return (client.addresses[0] if isinstance(client, Workload) else client).version


def _source_address(client: Workload | Address, version: int) -> Address:
    if not isinstance(client, Workload):
        return client
    found = preferred_address(client.addresses, version)
    assert found is not None, "a source has an address"
    return found
