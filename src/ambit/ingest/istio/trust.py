"""Trust domains in policies: aliases of the mesh's own mean the same, and a source's trust domain is a principal's.

1. A pattern of principals that holds for an identity under one of the mesh's trust domains holds for that identity
   under all of them (Istio: `pilot/pkg/trustdomain`), also where it excludes.
2. `trustDomains: [a]` is the principal `a/*`, so nodes need nothing further on the wire. Together with `principals`
   both must hold, which is one pattern again, unless it would have to fix the beginning and the end: None says so.
"""

import re
from collections.abc import Iterable

from ambit.core.identity import TrustDomains
from ambit.ingest.istio.values import Report, string
from ambit.model.policy import Exact, Prefix, Presence, StringMatch, Suffix

_WHOLE = re.compile(r"([^/]*)(/ns/[^/]+/sa/[^/]+)")


def equated(patterns: Iterable[StringMatch], domains: TrustDomains) -> tuple[StringMatch, ...]:
    """The patterns and what they are under the other trust domains of the mesh."""
    found: dict[StringMatch, None] = {}
    for pattern in patterns:
        found[pattern] = None
        found.update(dict.fromkeys(_others(pattern, domains)))
    return tuple(found)


def _others(pattern: StringMatch, domains: TrustDomains) -> Iterable[StringMatch]:
    match pattern:
        case Exact(text):
            first, slash, rest = text.partition("/")
            if slash and first in domains:
                return [Exact(f"{each}/{rest}") for each in domains]
        case Prefix(text):
            first, slash, rest = text.partition("/")
            if slash and first in domains:
                return [Prefix(f"{each}/{rest}") for each in domains]
            if not slash and any(each.startswith(first) for each in domains):
                return [Prefix(f"{each}/") for each in domains]
        case Suffix(text):
            whole = _WHOLE.fullmatch(text)
            if whole and whole[1] and any(each.endswith(whole[1]) for each in domains):
                return [Exact(f"{each}{whole[2]}") for each in domains]
        case Presence():
            pass
    return ()


def trust_domain(text: str, path: str, report: Report) -> StringMatch | None:
    """A trust domain, as the principals in it. One that begins with `*` stays a `Suffix`, which is none."""
    if "/" in text:
        report.refuse("AMB0213", path, f"{text!r} is no trust domain")
        return None
    found = string(text, path, report)
    return Prefix(f"{found.value}/") if isinstance(found, Exact) else found


def within(
    principals: tuple[StringMatch, ...], domains: tuple[StringMatch, ...]
) -> tuple[StringMatch, ...] | None:
    """The patterns of what is both among `principals` and in one of `domains`; None when no pattern says it. Either
    may be empty, which asks for nothing; the result is empty when nothing can be both."""
    if any(isinstance(each, Suffix) for each in domains):
        return None
    if not principals or not domains:
        return principals or domains
    found: dict[StringMatch, None] = {}
    for domain in domains:
        for principal in principals:
            if isinstance(principal, Suffix) and isinstance(domain, Prefix):
                return None
            both = _both(principal, domain)
            if both is not None:
                found[both] = None
    return tuple(found)


def _both(principal: StringMatch, domain: StringMatch) -> StringMatch | None:
    match principal, domain:
        case Presence(), _:
            return domain
        case _, Presence():
            return principal
        case ((Exact(text) | Prefix(text)), Prefix(start)) if text.startswith(start):
            return principal
        case Prefix(text), Prefix(start) if start.startswith(text):
            return domain
        case _:
            return None
