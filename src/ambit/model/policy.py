"""L4 authorization as enforcement points see it: `istio.security.Authorization`, as Python values.

What policies mean is in `ambit.policy.decide` and nowhere else. Structure: rules OR; the clauses of a rule AND; the
matches of a clause OR; the fields of a match AND; the values of a field OR; a `not_` field must have no hit.
"""

from enum import IntEnum

import msgspec

from ambit.core.address import Network
from ambit.core.finding import ObjectRef


class Scope(IntEnum):
    GLOBAL = 0
    NAMESPACE = 1
    WORKLOAD_SELECTOR = 2


class Action(IntEnum):
    ALLOW = 0
    DENY = 1


class Exact(msgspec.Struct, frozen=True, tag="exact"):
    value: str


class Prefix(msgspec.Struct, frozen=True, tag="prefix"):
    value: str


class Suffix(msgspec.Struct, frozen=True, tag="suffix"):
    value: str


class Presence(msgspec.Struct, frozen=True, tag="presence"):
    """Any non-empty value."""


StringMatch = Exact | Prefix | Suffix | Presence


def text_hits(want: StringMatch, value: str) -> bool:
    """Whether the value is such a text. An empty one is a text, too, but not present."""
    match want:
        case Exact(text):
            return value == text
        case Prefix(text):
            return value.startswith(text)
        case Suffix(text):
            return value.endswith(text)
        case Presence():
            return bool(value)


class ServiceAccountMatch(msgspec.Struct, frozen=True, order=True):
    namespace: str
    service_account: str


class Match(msgspec.Struct, frozen=True):
    """One conjunction. A match with no field set never matches (ztunnel `rbac.rs`)."""

    namespaces: tuple[StringMatch, ...] = ()
    not_namespaces: tuple[StringMatch, ...] = ()
    principals: tuple[StringMatch, ...] = ()
    not_principals: tuple[StringMatch, ...] = ()
    source_ips: tuple[Network, ...] = ()
    not_source_ips: tuple[Network, ...] = ()
    destination_ips: tuple[Network, ...] = ()
    not_destination_ips: tuple[Network, ...] = ()
    destination_ports: tuple[int, ...] = ()
    not_destination_ports: tuple[int, ...] = ()
    service_accounts: tuple[ServiceAccountMatch, ...] = ()
    not_service_accounts: tuple[ServiceAccountMatch, ...] = ()


class Clause(msgspec.Struct, frozen=True):
    """Matches, ORed. Without matches it always holds."""

    matches: tuple[Match, ...] = ()


class Rule(msgspec.Struct, frozen=True):
    """Clauses, ANDed. Without clauses it always holds."""

    clauses: tuple[Clause, ...] = ()


class Authorization(msgspec.Struct, frozen=True):
    """A named policy. Without rules it never matches (an ALLOW without rules denies everything)."""

    name: str
    namespace: str
    scope: Scope
    action: Action
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False
    origin: ObjectRef | None = None

    @property
    def key(self) -> str:
        """Its resource name in the workload API."""
        return f"{self.namespace}/{self.name}"
