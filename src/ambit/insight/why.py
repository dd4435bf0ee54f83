"""Why a connection would be allowed or denied, from configuration alone. Pure.

The way is the node proxies': a service leads to the endpoints that the source's node may choose, with the pod's port;
a captured source shows its identity to a captured destination and to nobody else; a destination that is not captured
is guarded by nothing. `ambit.policy.decide` decides.
"""

from collections.abc import Iterator, Sequence

import msgspec

from ambit.core.address import Address
from ambit.core.errors import BadInput
from ambit.core.finding import ObjectRef
from ambit.core.names import RESERVED_PORTS
from ambit.insight.ends import find_destination, find_source
from ambit.insight.manifests import Compiled
from ambit.insight.node_resources import node_settings
from ambit.model.policy import Action, Authorization
from ambit.model.workload import TunnelProtocol, Workload
from ambit.plan.destinations import rule_name
from ambit.plan.endpoints import Choice, choices, for_client, preferred_address
from ambit.plan.values import at
from ambit.policy.decide import ConnectionFacts, Decision, Reason, decide
from ambit.policy.nearest import Miss, decide_without, nearest

ALLOWED, DENIED, REFUSED, MIXED = "allowed", "denied", "refused", "mixed"
NOT_CAPTURED = "the destination is not in the mesh, so nothing decides"
NOBODY = "nobody in the mesh has this address, so it passes untouched"


class Otherwise(msgspec.Struct, frozen=True, rename="camel"):
    """The nearest rule that would have decided otherwise and what it lacks."""

    rule: str
    action: str
    misses: tuple[Miss, ...]


class Ruling(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is decided at one pod. `rule` is named as in logs and flows. `without` is what would be decided if that rule
    did not hold, with what would decide then; `dry_run` what the dry-run policies would make of it. `is_pod` is false
    of an endpoint that is none: of a ServiceEntry, or of a Service without selector."""

    verdict: str
    reason: str
    pod: str = ""
    address: str = ""
    port: int = 0
    identity: str = ""
    rule: str = ""
    policies: tuple[str, ...] = ()
    nearest: Otherwise | None = None
    without: str = ""
    dry_run: str = ""
    is_pod: bool = True


class Answer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`verdict` is allowed or denied when every endpoint says so, mixed when they differ, refused when the connection
    does not come to any. `findings` are about the policies that apply."""

    source: str
    destination: str
    verdict: str
    rulings: tuple[Ruling, ...]
    findings: tuple[str, ...] = ()


def why(source: str, destination: str, compiled: Compiled, namespace: str = "default") -> Answer:
    """The answer for `SRC` and `DST:PORT` as `ambit.insight.ends` reads them. Raises BadInput."""
    client = find_source(source, compiled, namespace)
    if isinstance(client, Workload):
        if not client.addresses:
            raise BadInput(f"{source} has no address yet")
        namespace = client.namespace
    target = find_destination(destination, compiled, namespace)
    name = _pod(client) if isinstance(client, Workload) else str(client)
    if target.service is not None:
        title = f"service {target.service.namespace}/{target.service.name}:{target.port}"
        node = client.node if isinstance(client, Workload) else ""
        version = target.address.version if target.address else _version(client)
        if not any(port.service == target.port for port in target.service.ports):
            known = ", ".join(str(port.service) for port in target.service.ports) or "none"
            refused = Ruling(REFUSED, f"the service has no port {target.port}; its ports: {known}")
            return Answer(name, title, REFUSED, (refused,))
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
        found = (Choice(target.workload, target.address, target.port),)
    else:
        return Answer(name, destination, ALLOWED, (Ruling(ALLOWED, NOBODY),))
    rulings = tuple(_ruling(client, choice, compiled) for choice in found)
    verdicts = {each.verdict for each in rulings}
    verdict = verdicts.pop() if len(verdicts) == 1 else MIXED
    return Answer(name, title, verdict, rulings, tuple(_findings(rulings, compiled)))


def _ruling(client: Workload | Address, choice: Choice, compiled: Compiled) -> Ruling:
    server = choice.workload
    at = Ruling("", "", _pod(server), str(choice.address), choice.port, is_pod=server.is_pod)
    captured = isinstance(client, Workload) and client.tunnel is TunnelProtocol.HBONE
    if choice.port in RESERVED_PORTS and (captured or server.tunnel is TunnelProtocol.HBONE):
        return _said(at, REFUSED, f"port {choice.port} belongs to the mesh")
    if server.tunnel is not TunnelProtocol.HBONE:
        return _said(at, ALLOWED, NOT_CAPTURED)
    facts = ConnectionFacts(
        source=_source_address(client, choice.address.version),
        destination=choice.address,
        destination_port=choice.port,
        identity=client.identity if captured and isinstance(client, Workload) else None,
    )
    policies, missing = compiled.view().policies_for(server)
    decision = decide(policies, facts, missing)
    without = decide_without(policies, decision, facts)
    return msgspec.structs.replace(
        at,
        verdict=_verdict(decision),
        reason=decision.reason.value,
        identity=facts.identity.uri if facts.identity else "",
        rule=rule_name(decision),
        policies=tuple(policy.key for policy in policies),
        nearest=_otherwise(policies, decision, facts),
        without=_in_words(without) if without else "",
        dry_run=_in_words(decision.dry_run) if decision.dry_run else "",
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


def _in_words(decision: Decision) -> str:
    if decision.rule is not None:
        return f"{_verdict(decision)} by {rule_name(decision)}"
    return f"{_verdict(decision)}, {decision.reason.value}"


def _verdict(decision: Decision) -> str:
    return ALLOWED if decision.allowed else DENIED


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
