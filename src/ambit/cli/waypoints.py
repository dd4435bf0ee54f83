"""Waypoints as `ambit waypoint` makes, finds and shows them. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ambit.core.errors import BadInput
from ambit.core.names import (
    HBONE_PORT,
    INLINE_CLASS,
    REVISION_LABEL,
    USE_WAYPOINT_LABEL,
    USE_WAYPOINT_NAMESPACE_LABEL,
    WAYPOINT_CLASSES,
    WAYPOINT_FOR_LABEL,
    WAYPOINT_NONE,
)
from ambit.kube.resource import GATEWAYS
from ambit.model.proxy import WaypointFor

DEFAULT = "waypoint"
PROGRAMMED = "Programmed"
Object = dict[str, Any]


def gateway(
    name: str, namespace: str, traffic: str, revision: str, of_class: str = WAYPOINT_CLASSES[0]
) -> Object:
    """The Gateway. Empty texts are left out: what it takes is then its class's to say. Raises BadInput."""
    name = name or DEFAULT
    if name == WAYPOINT_NONE:
        raise BadInput(
            f"no waypoint can be called {name!r}, which as a label means none", "choose another name"
        )
    if of_class == INLINE_CLASS and traffic not in ("", WaypointFor.SERVICE.value):
        raise BadInput(
            f"an inline waypoint takes no traffic of `--for {traffic}`: it is for services only",
            "leave out --for, or --inline",
        )
    labels = {WAYPOINT_FOR_LABEL: traffic, REVISION_LABEL: revision}
    metadata: Object = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if chosen := {key: value for key, value in labels.items() if value}:
        metadata["labels"] = chosen
    listener = {"name": "mesh", "port": HBONE_PORT, "protocol": "HBONE"}
    return {
        "apiVersion": GATEWAYS.api_version,
        "kind": GATEWAYS.kind,
        "metadata": metadata,
        "spec": {"gatewayClassName": of_class, "listeners": [listener]},
    }


def waypoints_of(gateways: Iterable[Object], revision: str = "") -> list[Object]:
    """Those that are waypoints (of the revision, when one is named), by namespace and name."""
    found = [
        each
        for each in gateways
        if each["spec"].get("gatewayClassName") in (*WAYPOINT_CLASSES, INLINE_CLASS)
        and revision in ("", _labels(each).get(REVISION_LABEL, ""))
    ]
    return sorted(found, key=lambda each: (each["metadata"]["namespace"], each["metadata"]["name"]))


def condition(waypoint: Object) -> Object:
    """Whether it is programmed, said about what is there now; of an older generation it says nothing."""
    for each in (waypoint.get("status") or {}).get("conditions") or ():
        generation = waypoint["metadata"].get("generation", 0)
        if each.get("type") == PROGRAMMED and each.get("observedGeneration", generation) >= generation:
            return dict(each)
    return {"type": PROGRAMMED, "status": "Unknown", "reason": "Pending", "message": "nobody has said so yet"}


def is_programmed(waypoint: Object) -> bool:
    return bool(condition(waypoint)["status"] == "True")


def is_inline(waypoint: Object) -> bool:
    """Whether it has no pods of its own."""
    return bool(waypoint["spec"].get("gatewayClassName") == INLINE_CLASS)


def row(waypoint: Object, classes: Mapping[str, Object]) -> list[str]:
    """NAMESPACE, NAME, REVISION, TRAFFIC TYPE (which says what is inline) and PROGRAMMED. `classes` are GatewayClasses
    by name."""
    labels, of_class = _labels(waypoint), classes.get(waypoint["spec"]["gatewayClassName"], {})
    traffic = labels.get(WAYPOINT_FOR_LABEL) or _labels(of_class).get(WAYPOINT_FOR_LABEL)
    return [
        waypoint["metadata"]["namespace"],
        waypoint["metadata"]["name"],
        labels.get(REVISION_LABEL) or "default",
        (traffic or WaypointFor.SERVICE.value) + (" (inline)" if is_inline(waypoint) else ""),
        condition(waypoint)["status"],
    ]


def status_row(waypoint: Object) -> list[str]:
    """NAMESPACE, NAME, STATUS, TYPE, REASON, PLACEMENT and MESSAGE."""
    said = condition(waypoint)
    metadata = waypoint["metadata"]
    return [
        metadata["namespace"],
        metadata["name"],
        *(str(said.get(each, "")) for each in ("status", "type", "reason")),
        "inline" if is_inline(waypoint) else "pods",
        str(said.get("message", "")),
    ]


def enrolled_in(labels: Mapping[str, str], namespace: str) -> str:
    """`<namespace>/<name>` of the waypoint that labels of an object of this namespace name; empty for none."""
    name = labels.get(USE_WAYPOINT_LABEL, "")
    return (
        f"{labels.get(USE_WAYPOINT_NAMESPACE_LABEL) or namespace}/{name}"
        if name not in ("", WAYPOINT_NONE)
        else ""
    )


def users(objects: Iterable[Object], keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Objects that are labelled with one of these waypoints, each as `kubectl label` names it, with the waypoint."""
    wanted = set(keys)
    for each in objects:
        metadata = each["metadata"]
        is_namespace = each["kind"] == "Namespace"
        key = enrolled_in(_labels(each), metadata["name"] if is_namespace else metadata["namespace"])
        if key in wanted:
            of = "" if is_namespace else f" -n {metadata['namespace']}"
            yield f"{each['kind'].lower()} {metadata['name']}{of}", key


def _labels(value: Object) -> dict[str, str]:
    return (value.get("metadata") or {}).get("labels") or {}
