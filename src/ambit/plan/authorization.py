"""L4 authorization compiled for Envoy: ordered rows for HBONE (RBAC), for plaintext (a listener's matcher), and for
requests that a pod's node reads (RBAC).

Semantics are those of `ambit.policy.decide`: a DENY that matches denies; without an enforced ALLOW the rest
is allowed; else an ALLOW must match. An unknown policy name denies everything. What is known when compiling
is folded: the destination's addresses, and on plaintext that there is no identity.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol, TypeVar

from ambit.core.address import Address, Network
from ambit.core.names import RESERVED_PORTS
from ambit.envoy import filter_state, http_rbac, matchers
from ambit.envoy.matchers import Predicate
from ambit.envoy.node import listeners
from ambit.envoy.words import AnyMessage
from ambit.model.policy import (
    Action,
    Authorization,
    Clause,
    Exact,
    Match,
    Prefix,
    Presence,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    Suffix,
)
from ambit.model.workload import ApplicationTunnel
from ambit.policy.decide import NO_ALLOW_MATCHED, UNKNOWN_POLICY

T = TypeVar("T")
Row = tuple[Predicate, bool, str]
KEPT_RULES = 4096
"""Rules whose predicates are kept, with about 1 KiB each."""
NO_POLICY = "default"
"""Name of the decision when no ALLOW policy exists."""
_ANY_PART = "[^/]+"
REFUSED_BY_ENVOY = "refused by the proxy"
"""Name of the decision while Envoy does not take a pod's policy."""


class _Facts(Protocol):
    """How the attributes of a connection are matched where a policy is enforced."""

    def port(self, port: int) -> Predicate: ...
    def identity(self, pattern: str) -> Predicate: ...
    def source(self, networks: Sequence[Network]) -> Predicate: ...
    def destination(self, networks: Sequence[Network]) -> Predicate: ...


class _Hbone:
    """A CONNECT stream: port and address are in `:authority`, the identity is the peer certificate's."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    def port(self, port: int) -> Predicate:
        return matchers.authority_port(port)

    def identity(self, pattern: str) -> Predicate:
        return matchers.peer_identity(pattern)

    def source(self, networks: Sequence[Network]) -> Predicate:
        return matchers.source_in(networks)

    def destination(self, networks: Sequence[Network]) -> Predicate:
        inside = [address for address in self._addresses if _contains(networks, address)]
        if len(inside) == len(self._addresses):
            return True
        return matchers.any_of(
            matchers.authority(re.escape(f"[{each}]:" if each.version == 6 else f"{each}:") + "[0-9]+")
            for each in inside
        )


class _Handed(_Hbone):
    """As `_Hbone`, of a pod whose application takes all streams on one port (0: each on its own), whatever address
    they are for: policy sees that port and the pod's address (ztunnel `inbound.rs`)."""

    def __init__(self, addresses: Sequence[Address], port: int) -> None:
        super().__init__(addresses)
        self._port = port

    def port(self, port: int) -> Predicate:
        return port == self._port if self._port else super().port(port)

    def destination(self, networks: Sequence[Network]) -> Predicate:
        if all(_contains(networks, address) for address in self._addresses):
            return True
        return matchers.destination_in(networks)


class _Plaintext:
    """A connection without identity; its original destination is the listener's local address."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    def port(self, port: int) -> Predicate:
        return matchers.destination_port(port)

    def identity(self, pattern: str) -> Predicate:
        del pattern
        return False

    def source(self, networks: Sequence[Network]) -> Predicate:
        return matchers.source_in(networks)

    def destination(self, networks: Sequence[Network]) -> Predicate:
        if all(_contains(networks, address) for address in self._addresses):
            return True
        return matchers.destination_in(networks)


class _Request(_Plaintext):
    """A request that is read at this port of the pod: who its client is comes with the connection."""

    def __init__(self, addresses: Sequence[Address], port: int) -> None:
        super().__init__(addresses)
        self._port = port

    def port(self, port: int) -> Predicate:
        return port == self._port

    def identity(self, pattern: str) -> Predicate:
        return matchers.filter_state(filter_state.CALLER, pattern)

    def source(self, networks: Sequence[Network]) -> Predicate:
        return matchers.filter_state_in(filter_state.CLIENT, networks)


def hbone(
    name: str,
    addresses: Sequence[Address],
    policies: Sequence[Authorization],
    unknown: Sequence[str],
    handed_on: ApplicationTunnel | None = None,
    before: Sequence[Row] = (),
) -> AnyMessage:
    """The RBAC extension of one pod, of this name. Dry-run policies are decided beside, as if they were enforced. The
    rows `before` come first."""
    facts = _Hbone(addresses) if handed_on is None else _Handed(addresses, handed_on.port)
    enforced = [policy for policy in policies if not policy.dry_run]
    rows, otherwise = _rows(enforced, unknown, facts)
    rows = [*before, *rows]
    dry_run: Iterable[Row] = ()
    if len(enforced) != len(policies):
        dry_run, fallback = _rows(policies, unknown, facts)
        dry_run = [*before, *dry_run, (True, *fallback)]
    return http_rbac.extension(name, rows, otherwise, dry_run)


def plaintext(
    addresses: Sequence[Address],
    policies: Sequence[Authorization],
    unknown: Sequence[str],
    before: Sequence[Row] = (),
    read: Sequence[int] = (),
) -> AnyMessage:
    """The matcher of a pod's plaintext listener. Ports of the mesh are denied before policy is asked; the rows `before`
    come next. What is accepted for one of the ports `read` goes to who reads it."""
    rows, otherwise = _rows([each for each in policies if not each.dry_run], unknown, _Plaintext(addresses))
    rows = [*before, *rows]
    reserved = matchers.any_of(matchers.destination_port(port) for port in sorted(RESERVED_PORTS))
    return matchers.first_match(
        [
            (reserved, _chain(False)),
            *(row for predicate, allow, _ in rows for row in _led(predicate, read, allow=allow)),
            *(_reading(True, read) if otherwise[0] else ()),
        ],
        _chain(otherwise[0]),
    )


def of_requests(
    addresses: Sequence[Address], port: int, policies: Sequence[Authorization], unknown: Sequence[str]
) -> list[Row]:
    """Rows of what is denied of requests that are read at this port of the pod. Connections were asked when they came;
    those of before a change stay open, between the client and who reads."""
    enforced = [policy for policy in policies if not policy.dry_run]
    return denying(*_rows(enforced, unknown, _Request(addresses, port)))


def denying(rows: Sequence[Row], otherwise: tuple[bool, str]) -> list[Row]:
    """Rows of what these deny, by themselves or in the end, and of nothing else."""
    found = [row for row in rows if not row[1]]
    is_allowed, name = otherwise
    if is_allowed:
        return found
    allowing = matchers.any_of(predicate for predicate, allow, _ in rows if allow)
    return [*found, (matchers.negated(allowing), False, name)]


def _led(predicate: Predicate, read: Sequence[int], *, allow: bool) -> Iterator[tuple[Predicate, AnyMessage]]:
    """Where what matches goes."""
    if allow:
        yield from _reading(predicate, read)
    yield predicate, _chain(allow)


def _reading(predicate: Predicate, read: Sequence[int]) -> Iterator[tuple[Predicate, AnyMessage]]:
    for port in read:
        is_it = matchers.all_of([predicate, matchers.destination_port(port)])
        yield is_it, matchers.filter_chain(listeners.read_chain(port))


def refused(extension: str) -> AnyMessage:
    """Stands for the RBAC extension of this name that Envoy did not take: nobody gets in."""
    return http_rbac.extension(extension, (), (False, REFUSED_BY_ENVOY))


def closed(addresses: Sequence[Address]) -> AnyMessage:
    """The matcher of a plaintext listener that accepts nothing."""
    return plaintext(addresses, (), ("",))


@lru_cache(2)
def _chain(allow: bool) -> AnyMessage:
    return matchers.filter_chain(listeners.ACCEPTED if allow else listeners.DENIED)


def _rows(
    policies: Sequence[Authorization], unknown: Sequence[str], facts: _Facts
) -> tuple[list[Row], tuple[bool, str]]:
    if unknown:
        return [], (False, UNKNOWN_POLICY + min(unknown))
    rows: list[Row] = []
    for action in (Action.DENY, Action.ALLOW):
        rows += [
            (_rule(rule, facts), action == Action.ALLOW, f"{policy.key}[{index}]")
            for policy in policies
            if policy.action == action
            for index, rule in enumerate(policy.rules)
        ]
    allowing = [policy.key for policy in policies if policy.action == Action.ALLOW]
    if allowing:
        return rows, (False, allowing[0] if len(allowing) == 1 else NO_ALLOW_MATCHED)
    return rows, (True, NO_POLICY)


def _rule(rule: Rule, facts: _Facts) -> Predicate:
    kind = type(facts)
    if kind in (_Hbone, _Plaintext) and not _looks_at_destinations(rule):
        return _of_any_pod(rule, kind)
    return matchers.all_of(_clause(clause, facts) for clause in rule.clauses)


# A pod may have a thousand policies, of which one changes; the others are the same for all pods of the node.
@lru_cache(KEPT_RULES)
def _of_any_pod(rule: Rule, kind: type[_Hbone] | type[_Plaintext]) -> Predicate:
    """The predicate of a rule that says nothing of a pod's own addresses. Shared: a message that has it as a part has
    a copy."""
    facts = kind(())
    return matchers.all_of(_clause(clause, facts) for clause in rule.clauses)


def _looks_at_destinations(rule: Rule) -> bool:
    return any(
        each.destination_ips or each.not_destination_ips for clause in rule.clauses for each in clause.matches
    )


def _clause(clause: Clause, facts: _Facts) -> Predicate:
    if not clause.matches:
        return True
    return matchers.any_of(_match(match, facts) for match in clause.matches)


def _match(match: Match, facts: _Facts) -> Predicate:
    if match == Match():
        return False

    return matchers.all_of(
        [
            _both(match.namespaces, match.not_namespaces, _identities(facts, _namespace)),
            _both(match.principals, match.not_principals, _identities(facts, _principal)),
            _both(match.service_accounts, match.not_service_accounts, _identities(facts, _service_account)),
            _both(match.source_ips, match.not_source_ips, facts.source),
            _both(match.destination_ips, match.not_destination_ips, facts.destination),
            _both(
                match.destination_ports,
                match.not_destination_ports,
                lambda ports: matchers.any_of(facts.port(port) for port in ports),
            ),
        ]
    )


def _both(
    positive: Sequence[T], negative: Sequence[T], test: Callable[[Sequence[T]], Predicate]
) -> Predicate:
    return matchers.all_of(
        [
            test(positive) if positive else True,
            matchers.negated(test(negative)) if negative else True,
        ]
    )


def _identities(facts: _Facts, pattern: Callable[[T], str]) -> Callable[[Sequence[T]], Predicate]:
    return lambda values: matchers.any_of(map(facts.identity, matchers.alternatives(map(pattern, values))))


def _namespace(match: StringMatch) -> str:
    return f"spiffe://{_ANY_PART}/ns/{_pattern(match, '[^/]*')}/sa/{_ANY_PART}"


def _principal(match: StringMatch) -> str:
    return "spiffe://" + _pattern(match, ".*")


def _service_account(match: ServiceAccountMatch) -> str:
    return f"spiffe://{_ANY_PART}/ns/{re.escape(match.namespace)}/sa/{re.escape(match.service_account)}"


def _pattern(match: StringMatch, rest: str) -> str:
    match match:
        case Exact(value):
            return re.escape(value)
        case Prefix(value):
            return re.escape(value) + rest
        case Suffix(value):
            return rest + re.escape(value)
        case Presence():
            return rest[:-1] + "+"


def _contains(networks: Sequence[Network], address: Address) -> bool:
    return any(network.version == address.version and address in network for network in networks)
