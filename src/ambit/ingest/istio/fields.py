"""Which field of Istio's security objects means what to node proxies and waypoints. Tests hold it against the CRD and
the compiler.

A path is the CRD's, below `spec`, with `[]` for items and `{}` for values of a map.
"""

from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec


class Enforced(msgspec.Struct, frozen=True):
    """Its value changes what proxies do."""


class Refused(msgspec.Struct, frozen=True):
    """Using it makes a finding of one of these codes, `unless` (words) something holds."""

    codes: tuple[str, ...]
    unless: str = ""


class Ignored(msgspec.Struct, frozen=True):
    """It changes nothing, for a reason."""

    reason: str


class Elsewhere(msgspec.Struct, frozen=True):
    """Using it makes the policy one for other proxies, as these words say."""

    words: str


Treatment = Enforced | Refused | Ignored | Elsewhere

_ENFORCED = Enforced()
_HTTP = Refused(("AMB0201", "AMB0202"))
_TARGET = Elsewhere("the policy is for waypoints")
_SOURCE = "rules[].from[].source."
_OPERATION = "rules[].to[].operation."

AUTHORIZATION_POLICY: dict[str, Treatment] = {
    "action": _ENFORCED,
    "provider.name": Ignored("belongs to the action CUSTOM, which nodes do not enforce"),
    "selector.matchLabels{}": _ENFORCED,
    **{
        f"{target}.{part}": _TARGET
        for target in ("targetRef", "targetRefs[]")
        for part in ("group", "kind", "name", "namespace")
    },
    **{
        f"{_SOURCE}{name}[]": _ENFORCED
        for name in (
            "principals",
            "notPrincipals",
            "namespaces",
            "notNamespaces",
            "ipBlocks",
            "notIpBlocks",
            "serviceAccounts",
            "notServiceAccounts",
            "trustDomains",
            "notTrustDomains",
        )
    },
    **{
        f"{_SOURCE}{name}[]": _HTTP
        for name in (
            "requestPrincipals",
            "notRequestPrincipals",
            "remoteIpBlocks",
            "notRemoteIpBlocks",
        )
    },
    f"{_OPERATION}ports[]": _ENFORCED,
    f"{_OPERATION}notPorts[]": _ENFORCED,
    **{
        f"{_OPERATION}{name}[]": _HTTP
        for name in ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")
    },
    "rules[].when[].key": _ENFORCED,
    "rules[].when[].values[]": _ENFORCED,
    "rules[].when[].notValues[]": _ENFORCED,
}

AT_WAYPOINTS: dict[str, Treatment] = {
    **dict.fromkeys(AUTHORIZATION_POLICY, _ENFORCED),
    **{
        f"{target}.{part}": Refused(("AMB0206",), f"it is {what}")
        for target in ("targetRef", "targetRefs[]")
        for part, what in (("group", "that of the kind"), ("namespace", "the policy's own"))
    },
    "provider.name": Ignored("but with the action CUSTOM: who is asked"),
    "selector.matchLabels{}": Elsewhere("the policy is for nodes; with a target it is closed (AMB0205)"),
}
"""Fields of an AuthorizationPolicy with targets."""

PEER_AUTHENTICATION: dict[str, Treatment] = {
    "mtls.mode": _ENFORCED,
    "portLevelMtls{}.mode": _ENFORCED,
    "selector.matchLabels{}": _ENFORCED,
}

KINDS = {"AuthorizationPolicy": AUTHORIZATION_POLICY, "PeerAuthentication": PEER_AUTHENTICATION}
_RULE = "jwtRules[]."
REQUEST_AUTHENTICATION = frozenset(
    {
        "selector.matchLabels{}",
        *(
            f"{target}.{part}"
            for target in ("targetRef", "targetRefs[]")
            for part in ("group", "kind", "name", "namespace")
        ),
        *(f"{_RULE}{name}[]" for name in ("audiences", "fromParams", "fromCookies", "spaceDelimitedClaims")),
        *(f"{_RULE}{name}" for name in ("issuer", "jwks", "jwksUri", "jwks_uri", "timeout")),
        *(f"{_RULE}{name}" for name in ("forwardOriginalToken", "outputPayloadToHeader")),
        *(f"{_RULE}fromHeaders[].{part}" for part in ("name", "prefix")),
        *(f"{_RULE}outputClaimToHeaders[].{part}" for part in ("header", "claim")),
    }
)
"""It says nothing to nodes (`ambit.ingest.istio.tokens`)."""
KNOWN: dict[str, Collection[str]] = {**KINDS, "RequestAuthentication": REQUEST_AUTHENTICATION}
"""The fields of each kind."""

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")


def unknown_fields(kind: str, given: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of an object of one of `KNOWN` that its kind does not have, each with the known one nearest to it, or ''.

    Values of a wrong type are not looked into: reading the object names those.
    """
    yield from ((str(key), _nearest(key, _TOP)) for key in given if key not in _TOP)
    ends = ((path, index) for path in KNOWN[kind] for index, sign in enumerate(path) if sign in ".[{")
    known = {*KNOWN[kind], *(path[:index] for path, index in ends)}
    yield from _unknown(given.get("spec"), "", "spec", known)


def _unknown(value: Any, path: str, shown: str, known: set[str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, list) and f"{path}[]" in known:
        for index, each in enumerate(value):
            yield from _unknown(each, f"{path}[]", f"{shown}[{index}]", known)
    elif isinstance(value, dict) and f"{path}{{}}" in known:
        for key, each in value.items():
            yield from _unknown(each, f"{path}{{}}", f"{shown}.{key}", known)
    elif isinstance(value, dict):
        before = f"{path}." if path else ""
        for key, each in value.items():
            if f"{before}{key}" in known:
                yield from _unknown(each, f"{before}{key}", f"{shown}.{key}", known)
            else:
                names = {each.removeprefix(before) for each in known if each.startswith(before)}
                yield f"{shown}.{key}", _nearest(key, [name for name in sorted(names) if name.isalnum()])


def _nearest(name: Any, among: Sequence[str]) -> str:
    return next(iter(get_close_matches(str(name), among, 1)), "")


def reference() -> str:
    """The Markdown tables of `docs/policy.md`."""
    parts = []
    for kind, table in KINDS.items():
        columns = [table, AT_WAYPOINTS] if table is AUTHORIZATION_POLICY else [table]
        rows = "\n".join(
            f"| `{path}` | {' | '.join(_words(each[path]) for each in columns)} |" for path in table
        )
        heads = " | ".join(("at nodes", "at waypoints")[: len(columns)])
        line = " | ".join("---" for _ in ("", *columns))
        parts.append(f"### {kind}\n\n| field of `spec` | {heads} |\n| {line} |\n{rows}\n")
    return "\n".join(parts)


def _words(treatment: Treatment) -> str:
    match treatment:
        case Enforced():
            return "enforced"
        case Refused(codes, unless):
            return f"refused, {' or '.join(codes)}" + (f", unless {unless}" if unless else "")
        case Ignored(reason):
            return f"ignored: {reason}"
        case Elsewhere(words):
            return words
