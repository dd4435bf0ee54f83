"""Rules about requests that are enforced where a pod is: those of services without a proxy between (`Service.rules`).

A pod can serve several services on one port, and nobody who reaches it can be trusted to say which one was meant. So:

1. Each service with rules has its say: what one of them denies is denied. Requests to others that share the port are
   held to them as well.
2. A port is read as HTTP if a service with rules has it as HTTP, and then every service judges requests.
3. Rules about tokens of several such services must be the same, for a token of one must not count as another's: else
   no request passes (`PodPort.is_closed`).
4. Only services of the pod's own namespace have a say: an EndpointSlice can put any pod behind any service.
5. Which of its addresses a service was called by is not known here: a condition that some of them meet counts as it
   harms most.
6. Rules that refuse nothing (AUDIT, dry runs) are told of, and change nothing for anybody: their ports are read only
   where all that is called by them is HTTP in plain text, whatever service was meant (`PodPort.is_told`).

`READ_AT_POD` policies stand for all this where it is not done; here they are lifted, each for what is done instead.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import msgspec

from ambit.core.address import Address, Network
from ambit.core.identity import Identity
from ambit.model.inline_rules import InlineRules
from ambit.model.jwt import TokenPolicy
from ambit.model.policy import Authorization
from ambit.model.request_policy import Attribute, Clause, Condition, Match, RequestPolicy, Rule, Value
from ambit.model.service import HTTP, AppProtocol, Service
from ambit.model.view import MeshView
from ambit.model.workload import TunnelProtocol, Workload
from ambit.policy.decide import ConnectionFacts, Decision, Reason, decide

_HTTP2 = frozenset({AppProtocol.HTTP2, AppProtocol.GRPC})


class Ruled(msgspec.Struct, frozen=True):
    """A port of a service (by its key) without a proxy between, and what rules there are."""

    service: str
    hostname: str
    port: int
    is_http: bool
    addresses: tuple[Address, ...]
    rules: InlineRules | None
    is_http2: bool = False

    @property
    def policies(self) -> tuple[RequestPolicy, ...]:
        return self.rules.policies if self.rules is not None else ()

    @property
    def tokens(self) -> tuple[TokenPolicy, ...]:
        return self.rules.tokens if self.rules is not None else ()


class PodPort(msgspec.Struct, frozen=True):
    """A port of a pod with the services that have it, of which one at least has no proxy between. `is_clear`: all that
    is called by it is HTTP in plain text."""

    services: tuple[Ruled, ...]
    is_clear: bool = True

    @property
    def ruled(self) -> tuple[Ruled, ...]:
        """Those that have rules that may refuse something."""
        return tuple(each for each in self.services if each.rules is not None and each.rules.forbid)

    @property
    def judges(self) -> tuple[Ruled, ...]:
        """Those whose rules requests are held to, or told by; all where there are none."""
        return tuple(each for each in self.services if each.rules is not None) or self.services

    @property
    def is_http(self) -> bool:
        """Whether requests can be read."""
        return any(each.is_http for each in self.ruled or self.services)

    @property
    def is_read(self) -> bool:
        """Whether they are: by the node, before anybody else."""
        return self.is_http and bool(self.ruled)

    @property
    def is_told(self) -> bool:
        """Whether they are read only to be told of."""
        has_rules = any(each.rules is not None for each in self.services)
        return has_rules and not self.ruled and self.is_http and self.is_clear

    @property
    def of_connections(self) -> tuple[Ruled, ...]:
        """Whose rules are asked about connections."""
        return () if self.is_http else self.ruled

    @property
    def is_http2(self) -> bool:
        return any(each.is_http2 for each in self.services)

    @property
    def tokens(self) -> tuple[TokenPolicy, ...]:
        return self.ruled[0].tokens if self.ruled else ()

    @property
    def is_closed(self) -> bool:
        """Whether no request passes, since rules about tokens differ."""
        return len({tuple(each.key for each in ruled.tokens) for ruled in self.ruled}) > 1


def ports_of(workload: Workload | None, view: MeshView) -> dict[int, PodPort]:
    """The ports of a pod where something is enforced, or may come to be, by number. None of a pod whose application is
    told of tunnels: nobody reads what they carry."""
    if workload is None or not _is_served(workload):
        return {}
    found: dict[int, list[Ruled]] = defaultdict(list)
    for key, ports in sorted(workload.services.items()):
        service = view.service(key)
        if service is None or (service.inline is None and service.rules is None):
            continue
        if not _has_say(service, workload):
            continue
        for port in ports:
            if port.target:
                found[port.target].append(_ruled(service, port.service))
    return {
        target: PodPort(tuple(several), _is_clear(workload, target, view))
        for target, several in sorted(found.items())
    }


def enforces(workload: Workload, service: Service, target: int) -> bool:
    """Whether the rules of the service hold at this port of the workload."""
    ports = workload.services.get(service.key, ())
    is_here = _is_served(workload) and _has_say(service, workload)
    return is_here and any(each.target == target for each in ports)


def policies_for(
    workload: Workload, view: MeshView, unread: Collection[int] = ()
) -> tuple[tuple[Authorization, ...], tuple[str, ...]]:
    """As `MeshView.policies_for`, without what stands for the rules that are enforced here: those for services with one
    of the ports `unread` are not yet."""
    policies, unknown = view.policies_for(workload)
    lifted: set[str] = set()
    for key, ports in workload.services.items() if _is_served(workload) else ():
        service = view.service(key)
        if service is None or not _has_say(service, workload):
            continue
        if not any(each.target in unread for each in ports):
            lifted |= service.lifted(workload)
    if not lifted:
        return policies, unknown
    return (
        tuple(each for each in policies if each.key not in lifted),
        tuple(each for each in unknown if each not in lifted),
    )


def decide_here(workload: Workload, facts: ConnectionFacts, view: MeshView) -> Decision:
    """Whether a connection gets to a port of the workload, whatever is said of requests on it."""
    policies, unknown = policies_for(workload, view)
    decision = decide(policies, facts, unknown)
    ruled = ports_of(workload, view).get(facts.destination_port)
    if not decision.allowed or ruled is None:
        return decision
    of_bytes = decide_connection(ruled, facts.source, facts.identity)
    return decision if of_bytes.allowed else of_bytes


def decide_connection(port: PodPort, source: Address, identity: Identity | None) -> Decision:
    """What the services say to a connection, where no requests are read."""
    decision = Decision(True, Reason.NO_ALLOW_POLICY)
    if not port.of_connections:
        return decision
    # What expressions are read with takes room, and few have such rules.
    from ambit.policy.requests import RequestFacts, decide_request

    for each in port.of_connections:
        facts = RequestFacts(source, each.port, next(iter(each.addresses), None), identity)
        decision = decide_request(each.policies, facts).decision
        if not decision.allowed:
            break
    return decision


def _is_clear(workload: Workload, target: int, view: MeshView) -> bool:
    """Whether whoever means a service by this port speaks HTTP in plain text."""
    called = (
        (view.service(key), port.service)
        for key, ports in workload.services.items()
        for port in ports
        if port.target == target
    )
    return all(
        service is not None
        and port not in service.backend_tls
        and (service.inline_routes(port) is not None or service.app_protocols.get(port) in HTTP)
        for service, port in called
    )


def _has_say(service: Service, workload: Workload) -> bool:
    """Whether the service's rules are this pod's. An EndpointSlice can name anybody's pod: without this, whoever may
    write one would decide about the requests of another namespace."""
    return service.namespace == workload.namespace


def _is_served(workload: Workload) -> bool:
    return workload.tunnel is TunnelProtocol.HBONE and workload.application_tunnel is None


def _ruled(service: Service, port: int) -> Ruled:
    protocol = service.app_protocols.get(port)
    return Ruled(
        service=service.key,
        hostname=service.hostname,
        port=port,
        is_http=service.inline_routes(port) is not None or protocol in HTTP,
        addresses=service.single_addresses,
        rules=_folded_all(service.rules, service.single_addresses) if service.rules is not None else None,
        is_http2=protocol in _HTTP2,
    )


def _folded_all(rules: InlineRules, addresses: tuple[Address, ...]) -> InlineRules:
    policies = tuple(_folded(each, addresses) for each in rules.policies)
    return msgspec.structs.replace(rules, policies=policies)


def _folded(policy: RequestPolicy, addresses: tuple[Address, ...]) -> RequestPolicy:
    """With conditions on the address that was called only where all of `addresses` say the same."""
    rules = tuple(
        Rule(
            tuple(
                Clause(tuple(Match(_conditions(match.conditions, addresses)) for match in clause.matches))
                for clause in rule.clauses
            )
        )
        for rule in policy.rules
    )
    return policy if rules == policy.rules else msgspec.structs.replace(policy, rules=rules)


def _conditions(given: Iterable[Condition], addresses: tuple[Address, ...]) -> tuple[Condition, ...]:
    return tuple(
        msgspec.structs.replace(each, attribute=Attribute.UNSEEN)
        if each.attribute is Attribute.DESTINATION_IP and not _is_settled(each, addresses)
        else each
        for each in given
    )


def _is_settled(condition: Condition, addresses: tuple[Address, ...]) -> bool:
    def hits(values: tuple[Value, ...], address: Address) -> bool:
        networks = (each for each in values if isinstance(each, Network))
        return any(address in network for network in networks)

    answers = {(hits(condition.values, each), hits(condition.unwanted, each)) for each in addresses}
    return len(answers) == 1


def networks_of(addresses: Iterable[Address]) -> tuple[Network, ...]:
    """One network of each address."""
    return tuple(ipaddress.ip_network(each) for each in addresses)


Ports = Mapping[int, PodPort]
