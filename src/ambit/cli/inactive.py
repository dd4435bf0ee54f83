"""Objects that are accepted and have no effect in this version, so that nobody takes them for protection. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ambit.kube.resource import (
    AUTHORIZATION_POLICIES,
    GATEWAY_CLASSES,
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
WAYPOINT_LABEL = "istio.io/use-waypoint"
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
    """One sentence for all objects of a kind."""
    names = sorted(_name(each) for each in objects)
    if names:
        others = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"{kind.kind} {', '.join(names[:NAMED])}{others}: this version does nothing with the kind"


def waypoint_labels(objects: Iterable[Object]) -> Iterator[str]:
    """One sentence for each namespace or Service that asks for a waypoint."""
    for each in objects:
        wanted = (each["metadata"].get("labels") or {}).get(WAYPOINT_LABEL, "none")
        if wanted != "none":
            yield f"{each['kind']} {_name(each)} asks for waypoint {wanted}: this version has none; it is left out"


def _name(each: Object) -> str:
    metadata = each["metadata"]
    return (
        f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])
    )
