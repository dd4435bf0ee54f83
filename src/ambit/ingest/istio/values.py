"""Values of policy fields: text to what it means, or a finding that says why it means nothing.

Every parser takes the text, its path in the object, and the report; it returns None for what it refused.
"""

import ipaddress
from collections.abc import Callable
from typing import TypeVar

from ambit.core.address import Network
from ambit.core.finding import Finding, Level, ObjectRef
from ambit.model.policy import Exact, Prefix, Presence, ServiceAccountMatch, StringMatch, Suffix

T = TypeVar("T")


class Report:
    """Collects findings of one object, and whether the rule at hand holds a malformed value."""

    def __init__(self, origin: ObjectRef) -> None:
        self.origin = origin
        self.findings: list[Finding] = []
        self.malformed = False

    def say(self, code: str, level: Level, path: str, text: str) -> None:
        self.findings.append(Finding(code, level, self.origin, path, text))

    def refuse(self, code: str, path: str, text: str) -> None:
        self.malformed = True
        self.say(code, Level.ERROR, path, text)


def values_of(
    given: tuple[str, ...], path: str, parse: Callable[[str, str, Report], T | None], report: Report
) -> tuple[T, ...]:
    parsed = (parse(text, f"{path}[{i}]", report) for i, text in enumerate(given))
    return tuple(value for value in parsed if value is not None)


def string(text: str, path: str, report: Report) -> StringMatch | None:
    """`*`, `*suffix`, `prefix*` or exact, as Istio reads it."""
    if not text:
        report.refuse("AMB0213", path, "an empty text matches nothing")
        return None
    if text == "*":
        return Presence()
    if text.startswith("*"):
        return Suffix(text[1:])
    if text.endswith("*"):
        return Prefix(text[:-1])
    return Exact(text)


def principal(text: str, path: str, report: Report) -> StringMatch | None:
    if text.startswith("spiffe://"):
        report.refuse("AMB0213", path, f"write {text.removeprefix('spiffe://')!r}, without spiffe://")
        return None
    return string(text, path, report)


def network(text: str, path: str, report: Report) -> Network | None:
    """An address or a CIDR with a prefix length. Netmasks and zones, which Python takes too, are refused, and
    so are IPv4 addresses in IPv6 form, which no connection would match."""
    address, slash, length = text.partition("/")
    if slash and not (length.isascii() and length.isdigit()):
        report.refuse("AMB0212", path, f"{text!r} has no prefix length")
        return None
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        report.refuse("AMB0212", path, f"{text!r} is neither an IP address nor a CIDR")
        return None
    if "%" in address or (found.version == 6 and found.network_address.ipv4_mapped):
        report.refuse("AMB0212", path, f"{text!r} would match no connection: write it without zone, as IPv4")
        return None
    return found


def port(text: str, path: str, report: Report) -> int | None:
    if is_port(text):
        return int(text)
    report.refuse("AMB0210", path, f"{text!r} is no port between 1 and 65535")
    return None


def is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535


def service_account(text: str, namespace: str, path: str, report: Report) -> ServiceAccountMatch | None:
    """`<namespace>/<account>`, or `<account>` in the policy's own namespace."""
    first, slash, rest = text.partition("/")
    match = ServiceAccountMatch(first, rest) if slash else ServiceAccountMatch(namespace, first)
    if not match.namespace or not match.service_account or "*" in text or "/" in match.service_account:
        report.refuse("AMB0213", path, f"{text!r} is neither <account> nor <namespace>/<account>")
        return None
    return match
