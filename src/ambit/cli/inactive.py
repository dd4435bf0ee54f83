"""Objects that are accepted and have no effect in this version, so that nobody takes them for protection. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ambit.core.names import HBONE_PORT, INBOUND_BINDING_ANNOTATION
from ambit.insight.without_effect import (
    CLASSES,
    GROUPS,
    INGRESS_TEXT,
    ingress_controllers,
    istio_ingress_field,
)
from ambit.kube.resource import GATEWAYS, NETWORK_POLICIES, Resource
from ambit.objects.decoding import PROJECTIONS

Object = Mapping[str, Any]
NAMED = 3
"""So many objects of a kind are named; the others are counted."""
_ROUTES = frozenset({"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"})
_KNOWN = frozenset(
    name for name, each in PROJECTIONS.items() if each.kind not in _ROUTES and name != GATEWAYS.qualified
)
"""Kinds that are read, whatever the object says."""
_PARENTS = frozenset({"Service", "ServiceEntry", "Gateway", "ListenerSet"})
"""Kinds of parents whose routes waypoints and gateways apply. Without a kind it is a Gateway."""


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


def ingresses_without_effect(ingresses: Iterable[Object], classes: Iterable[Object]) -> Iterator[str]:
    """One sentence for each Ingress of Istio's class. `classes`: the IngressClasses of the cluster."""
    controllers = ingress_controllers(classes)
    for each in sorted(ingresses, key=_name):
        field = istio_ingress_field(each, controllers)
        if field:
            yield f"Ingress {_name(each)} at {field}: {INGRESS_TEXT}"


def is_laptop(nodes: Iterable[Object]) -> bool:
    """Whether the nodes are those of a laptop cluster, which has no network plugin."""
    runtimes = [
        str(((each.get("status") or {}).get("nodeInfo") or {}).get("containerRuntimeVersion"))
        for each in nodes
    ]
    return bool(runtimes) and all(runtime.startswith("ambit://") for runtime in runtimes)


def without_effect(kind: Resource, objects: Iterable[Object], classes: Mapping[str, Object]) -> Iterator[str]:
    """One sentence for all objects of a kind that do nothing, and one for each Gateway whose class is none.

    `classes`: the GatewayClasses that there are, by name.
    """
    idle = sorted((each for each in objects if not _has_effect(kind, each, classes)), key=_name)
    lost = [each for each in idle if _is_gateway(kind) and _class(each) not in classes]
    for each in lost:
        yield f"Gateway {_name(each)}: there is no GatewayClass {_class(each)!r}, so nothing serves it"
    names = [_name(each) for each in idle if each not in lost]
    if names:
        others = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        what = "with that class" if _is_gateway(kind) else "with the kind"
        what = "with a route on such a parent" if kind.kind in _ROUTES else what
        reason = f"this version does nothing {what}"
        if kind == NETWORK_POLICIES:
            reason = "the laptop cluster enforces no NetworkPolicy; write an AuthorizationPolicy"
        yield f"{kind.kind} {', '.join(names[:NAMED])}{others}: {reason}"


def _has_effect(kind: Resource, each: Object, classes: Mapping[str, Object]) -> bool:
    """Whether it is a waypoint or gateway, or a route that one applies. Their own status says what became of them."""
    spec = each.get("spec") or {}
    if _is_gateway(kind):
        return _class(each) in CLASSES or _is_foreign_waypoint(each, classes.get(_class(each), {}))
    if kind.kind in _ROUTES:
        return any(parent.get("kind", "Gateway") in _PARENTS for parent in spec.get("parentRefs") or ())
    return False


def _is_foreign_waypoint(gateway: Object, of_class: Object) -> bool:
    """Whether it says how it takes what is for it (`ambit.ingest.gateway.foreign`), once its class is there."""
    annotations = [(each.get("metadata") or {}).get("annotations") or {} for each in (gateway, of_class)]
    listeners = (gateway.get("spec") or {}).get("listeners") or ()
    return bool(of_class) and (
        any(each.get(INBOUND_BINDING_ANNOTATION) for each in annotations)
        or any((each.get("protocol"), each.get("port")) == ("HBONE", HBONE_PORT) for each in listeners)
    )


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
