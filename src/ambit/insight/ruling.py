"""What is decided, and why, in the words of answers. Pure."""

from collections.abc import Iterable, Sequence

import msgspec

from ambit.policy.decide import Decision, rule_name
from ambit.policy.nearest import Miss

ALLOWED, DENIED, REFUSED, MIXED = "allowed", "denied", "refused", "mixed"
ASKED = "asked"
"""Somebody else decides, and nothing else is against it."""


class Otherwise(msgspec.Struct, frozen=True, rename="camel"):
    """The nearest rule that would have decided otherwise and what it lacks."""

    rule: str
    action: str
    misses: tuple[Miss, ...]


class Ruling(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is decided at one pod, or by a waypoint (then `pod` is empty). `rule` is named as in logs and flows.
    `without` is what would be decided if that rule did not hold, with what would decide then; `dry_run` what the
    dry-run policies would make of it. `is_pod` is false of an endpoint that is none: of a ServiceEntry, or of a Service
    without selector."""

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
    token: str = ""
    """What tokens have to do with it: what is known of its own, else what a valid one would change."""
    asks: tuple[str, ...] = ()
    """Who else is asked before, and the rules that say so."""
    audited: tuple[str, ...] = ()
    """Rules of AUDIT policies that it matches."""
    mode: str = ""
    """Of mutual TLS at this port, when asked in plain text: STRICT or PERMISSIVE."""
    mode_by: str = ""
    """The PeerAuthentication that says so; empty when none does."""
    source: str = ""
    """The address that a pod is asked from."""
    of_request: bool = False
    """The pod's node has read a request."""


def verdict_of(rulings: Sequence[Ruling]) -> str:
    """What all of them say, or that they differ; refused when there is none."""
    return together(each.verdict for each in rulings)


def together(verdicts: Iterable[str]) -> str:
    """What all say, or that they differ; refused when there is none."""
    found = set(verdicts)
    if not found:
        return REFUSED
    return found.pop() if len(found) == 1 else MIXED


def in_words(decision: Decision) -> str:
    """Verdict, and rule or reason."""
    if decision.rule is not None:
        return f"{verdict_name(decision)} by {rule_name(decision)}"
    return f"{verdict_name(decision)}, {decision.reason.value}"


def verdict_name(decision: Decision) -> str:
    """Allowed or denied."""
    return ALLOWED if decision.allowed else DENIED
