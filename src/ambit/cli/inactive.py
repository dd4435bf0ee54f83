"""Objects that are accepted and have no effect in this version, so that nobody takes them for protection. Pure."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from ambit.core.names import GATEWAY_CLASS_NAMES, INLINE_CLASS, WAYPOINT_CLASSES
from ambit.kube.resource import (
    AUTHORIZATION_POLICIES,
    GATEWAY_CLASSES,
    GATEWAYS,
    LISTENER_SETS,
    PEER_AUTHENTICATIONS,
    REFERENCE_GRANTS,
    REQUEST_AUTHENTICATIONS,
    SERVICE_ENTRIES,
    TELEMETRIES,
    WORKLOAD_ENTRIES,
    Resource,
)

Object = Mapping[str, Any]
GROUPS = frozenset(
    {
        "networking.istio.io",
        "security.istio.io",
        "telemetry.istio.io",
        "extensions.istio.io",
        "gateway.networking.k8s.io",
        "gateway.networking.x-k8s.io",
    }
)
NAMED = 3
"""So many objects of a kind are named; the others are counted."""
_KNOWN = frozenset(
    each.qualified
    for each in (
        AUTHORIZATION_POLICIES,
        PEER_AUTHENTICATIONS,
        REQUEST_AUTHENTICATIONS,
        SERVICE_ENTRIES,
        TELEMETRIES,
        WORKLOAD_ENTRIES,
        GATEWAY_CLASSES,
        LISTENER_SETS,
        REFERENCE_GRANTS,
    )
)
_PARENTS = frozenset({"Service", "ServiceEntry", "Gateway", "ListenerSet"})
"""Kinds of parents whose routes waypoints and gateways apply. Without a kind it is a Gateway."""
"""Enforced, or without an effect of their own."""


def inactive_kinds(definitions: Iterable[Object]) -> Iterator[Resource]:
    """The mesh kinds among CustomResourceDefinitions that do nothing yet."""
    for definition in definitions:
        spec = definition["spec"]
        served = [version["name"] for version in spec["versions"] if version["served"]]
        if spec["group"] not in GROUPS or definition["metadata"]["name"] in _KNOWN or not served:
            continue
        names = spec["names"]
        yield Resource(
            spec["group"], served[0], names["plural"], names["kind"], spec["scope"] == "Namespaced"
        )


def without_effect(kind: Resource, objects: Iterable[Object], classes: Container[str]) -> Iterator[str]:
    """One sentence for all objects of a kind that do nothing, and one for each Gateway whose class is none.

    `classes`: names of the GatewayClasses that there are.
    """
    idle = sorted((each for each in objects if not _has_effect(kind, each)), key=_name)
    lost = [each for each in idle if _is_gateway(kind) and _class(each) not in classes]
    for each in lost:
        yield f"Gateway {_name(each)}: there is no GatewayClass {_class(each)!r}, so nothing serves it"
    names = [_name(each) for each in idle if each not in lost]
    if names:
        others = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"{kind.kind} {', '.join(names[:NAMED])}{others}: this version does nothing with the kind"


def _has_effect(kind: Resource, each: Object) -> bool:
    """Whether it is a waypoint or gateway, or a route that one applies. Their own status says what became of them."""
    spec = each.get("spec") or {}
    match kind.kind:
        case "Gateway" if _is_gateway(kind):
            return _class(each) in (*WAYPOINT_CLASSES, *GATEWAY_CLASS_NAMES, INLINE_CLASS)
        case "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" | "UDPRoute":
            return any(parent.get("kind", "Gateway") in _PARENTS for parent in spec.get("parentRefs") or ())
        case _:
            return False


def _is_gateway(kind: Resource) -> bool:
    """Whether it is the Gateway API's, not Istio's."""
    return (kind.group, kind.kind) == (GATEWAYS.group, GATEWAYS.kind)


def _class(gateway: Object) -> str:
    return str((gateway.get("spec") or {}).get("gatewayClassName", ""))


def _name(each: Object) -> str:
    metadata = each["metadata"]
    return (
        f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])
    )
