"""Which field of Istio's security objects means what to node proxies. Tests hold it against the CRD and the compiler.

A path is the CRD's, below `spec`, with `[]` for items and `{}` for values of a map.
"""

import msgspec


class Enforced(msgspec.Struct, frozen=True):
    """Its value changes what nodes do."""


class Refused(msgspec.Struct, frozen=True):
    """Using it makes a finding of one of these codes."""

    codes: tuple[str, ...]


class Ignored(msgspec.Struct, frozen=True):
    """It changes nothing, for a reason."""

    reason: str


Treatment = Enforced | Refused | Ignored

_ENFORCED = Enforced()
_HTTP = Refused(("AMB0201", "AMB0202"))
_TARGET = Refused(("AMB0206",))
_SOURCE = "rules[].from[].source."
_OPERATION = "rules[].to[].operation."

AUTHORIZATION_POLICY: dict[str, Treatment] = {
    "action": _ENFORCED,
    "provider.name": Ignored("belongs to the action CUSTOM, which is refused as a whole"),
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
        )
    },
    **{
        f"{_SOURCE}{name}[]": _HTTP
        for name in (
            "requestPrincipals",
            "notRequestPrincipals",
            "remoteIpBlocks",
            "notRemoteIpBlocks",
            "trustDomains",
            "notTrustDomains",
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

PEER_AUTHENTICATION: dict[str, Treatment] = {
    "mtls.mode": _ENFORCED,
    "portLevelMtls{}.mode": _ENFORCED,
    "selector.matchLabels{}": _ENFORCED,
}

KINDS = {"AuthorizationPolicy": AUTHORIZATION_POLICY, "PeerAuthentication": PEER_AUTHENTICATION}


def reference() -> str:
    """The Markdown tables of `docs/policy.md`."""
    parts = []
    for kind, table in KINDS.items():
        rows = "\n".join(f"| `{path}` | {_words(treatment)} |" for path, treatment in table.items())
        parts.append(f"### {kind}\n\n| field of `spec` | at nodes |\n| --- | --- |\n{rows}\n")
    return "\n".join(parts)


def _words(treatment: Treatment) -> str:
    match treatment:
        case Enforced():
            return "enforced"
        case Refused(codes):
            return "refused, " + " or ".join(codes)
        case Ignored(reason):
            return f"ignored: {reason}"
