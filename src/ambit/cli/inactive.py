"""Objects that are accepted and have no effect in this version, so that nobody takes them for protection. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ambit.core.names import WAYPOINT_CLASSES
from ambit.kube.resource import (
    AUTHORIZATION_POLICIES,
    GATEWAY_CLASSES,
    GATEWAYS,
    PEER_AUTHENTICATIONS,
    REFERENCE_GRANTS,
    SERVICE_ENTRIES,
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
        SERVICE_ENTRIES,
        WORKLOAD_ENTRIES,
        GATEWAY_CLASSES,
        REFERENCE_GRANTS,
    )
)
_SERVICES = frozenset({"Service", "ServiceEntry"})
"""Kinds of parents whose routes waypoints apply."""
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


def without_effect(kind: Resource, objects: Iterable[Object]) -> Iterator[str]:
    """One sentence for all objects of a kind that do nothing."""
    names = sorted(_name(each) for each in objects if not _is_of_waypoint(kind, each))
    if names:
        others = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"{kind.kind} {', '.join(names[:NAMED])}{others}: this version does nothing with the kind"


def _is_of_waypoint(kind: Resource, each: Object) -> bool:
    """Whether it is a waypoint, or a route that one applies. Their own status says what became of them."""
    spec = each.get("spec") or {}
    match kind.kind:
        case "Gateway" if kind.group == GATEWAYS.group:
            return spec.get("gatewayClassName") in WAYPOINT_CLASSES
        case "HTTPRoute" | "GRPCRoute":
            return any(parent.get("kind") in _SERVICES for parent in spec.get("parentRefs") or ())
        case _:
            return False


def _name(each: Object) -> str:
    metadata = each["metadata"]
    return (
        f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])
    )
