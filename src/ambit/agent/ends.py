"""What Envoy's records say of both ends, whether they are of a request or of a connection. Pure."""

import re
from collections.abc import Mapping
from typing import TypedDict

import msgspec

from ambit.envoy import names
from ambit.envoy.logs.access_log import BAGGAGE, IDENTITY, SERVICE

WOULD_DENY = "denied"
"""What RBAC says of a dry run that would have denied."""
NO_POLICY = "default"
"""RBAC's rule name when no policy decided."""
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """Who called what, where it led, and what was decided. `service` is the key of the service that was called, or the
    uid of a workload that was called by its own address; at a gateway, which `is_edge`, of the service that it led to.
    `client` is an address (IPv6 in brackets), `identity` what the client proved, `target` the endpoint's address and
    port, empty when none was asked; `target_identity` only of who proved it. `error`: why the proxy could not do what
    was asked; empty when it could, or decided not to."""

    service: str
    port: str
    is_edge: bool = False
    client: str
    identity: str = ""
    baggage: str = ""
    target: str = ""
    target_pod: str = ""
    target_identity: str = ""
    target_baggage: str = ""
    denied: bool = False
    policy: str = ""
    dry_run: str = ""
    error: str = ""


class Caller(TypedDict):
    """The fields of `Ends` that every record has in the same places."""

    service: str
    client: str
    identity: str
    baggage: str


def caller(found: Mapping[str, str]) -> Caller:
    """From the texts of a record, by name."""
    return Caller(
        service=found[SERVICE] or names.service_of(found["cluster"]),
        client=bracketed(found["client"]),
        identity=found[IDENTITY].partition(",")[0],
        baggage=found[BAGGAGE],
    )


def in_words(flags: str) -> str:
    """Envoy's flags (RESPONSE_FLAGS_LONG) as people say them."""
    return _WORD.sub(" ", flags).lower().replace(",", ", ")


def bracketed(address: str) -> str:
    """An address as it is written before a port."""
    return f"[{address}]" if ":" in address else address
