"""Authorization of requests as waypoints and gateways enforce it (Istio: AuthorizationPolicy).

What it means is in `ambit.policy.requests` and nowhere else. Structure: rules OR; the clauses of a rule AND; the
matches of a clause OR; the conditions of a match AND; the values of a condition OR; none of `unwanted` may hit.
"""

from enum import Enum, StrEnum

import msgspec

from ambit.core.address import Network
from ambit.core.finding import ObjectRef
from ambit.model.jwt import Target
from ambit.model.policy import ServiceAccountMatch, StringMatch
from ambit.model.provider import Authorizer


class RequestAction(Enum):
    """In the order in which they are asked; AUDIT decides nothing."""

    CUSTOM = "CUSTOM"
    DENY = "DENY"
    ALLOW = "ALLOW"
    AUDIT = "AUDIT"


class Attribute(StrEnum):
    """What a condition looks at, by the name that it has in AuthorizationPolicy."""

    PRINCIPAL = "principals"
    NAMESPACE = "namespaces"
    SERVICE_ACCOUNT = "serviceAccounts"
    TRUST_DOMAIN = "trustDomains"
    SOURCE_IP = "ipBlocks"
    REMOTE_IP = "remoteIpBlocks"
    DESTINATION_IP = "destination.ip"
    PORT = "ports"
    HOST = "hosts"
    METHOD = "methods"
    PATH = "paths"
    HEADER = "request.headers"
    REQUEST_PRINCIPAL = "requestPrincipals"
    CLAIM = "request.auth.claims"
    SNI = "connection.sni"
    """The name in the client's hello: gateways at the edge see it, nobody else does."""
    UNSEEN = "unseen"
    """Nobody here can see it: it counts as it harms most."""


OF_TOKENS = frozenset({Attribute.CLAIM, Attribute.REQUEST_PRINCIPAL})
"""What only a valid token says."""


class PathTemplate(msgspec.Struct, frozen=True, tag="template"):
    """A path in which `{*}` is one segment and `{**}`, at the end, any rest (Istio `operation.paths`)."""

    value: str


Value = StringMatch | PathTemplate | ServiceAccountMatch | Network | int


class Condition(msgspec.Struct, frozen=True):
    """One of `values` hits, if there are any, and none of `unwanted`. `name` is a header's, in lower case, or the way
    to a claim. Types of values go by the attribute."""

    attribute: Attribute
    values: tuple[Value, ...] = ()
    unwanted: tuple[Value, ...] = ()
    name: tuple[str, ...] = ()


class Match(msgspec.Struct, frozen=True):
    """One conjunction. Without conditions it never holds."""

    conditions: tuple[Condition, ...] = ()


class Clause(msgspec.Struct, frozen=True):
    """Matches, ORed. Without matches it always holds."""

    matches: tuple[Match, ...] = ()


class Rule(msgspec.Struct, frozen=True):
    """Clauses, ANDed. Without clauses it always holds."""

    clauses: tuple[Clause, ...] = ()


NEVER = Rule((Clause((Match(),)),))
"""Stands for a rule that must not allow anything, so that the others keep their numbers."""


class Asked(msgspec.Struct, frozen=True):
    """Somebody who is asked about requests, and the key of the service where."""

    authorizer: Authorizer
    service: str


class RequestPolicy(msgspec.Struct, frozen=True):
    """A named policy. Without rules it never matches (an ALLOW without rules denies everything)."""

    name: str
    namespace: str
    action: RequestAction
    targets: tuple[Target, ...]
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False
    provider: str = ""
    """Whom CUSTOM asks, by name."""
    origin: ObjectRef | None = None
    asked: Asked | None = None
    """Whom CUSTOM asks; None when there is nobody of that name, or no such service. What is for him is refused then."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"
