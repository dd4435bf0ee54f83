"""What a status value means for the status of a live object: the fields to write, or None when they are there. Pure.

Of conditions those of our types are ours, of a route's parents those of our controller; everything else is left alone.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

import msgspec

from ambit.core.names import GATEWAY_CONTROLLER, WAYPOINT_CONTROLLER
from ambit.ingest.gateway.client_certificates import INSECURE
from ambit.ingest.gateway.conditions import KEYS_FETCHED, WAYPOINT_ACCEPTED, WAYPOINT_BOUND
from ambit.ingest.visibility import VISIBILITY_APPLIED
from ambit.model.status import (
    Condition,
    GatewayStatus,
    ListenerSetStatus,
    ListenerStatus,
    ObjectStatus,
    Parent,
    ParentStatus,
    PolicyStatus,
    RouteStatus,
    Status,
)
from ambit.objects.gateway import GROUP

Fields = dict[str, Any]
ACCEPTED = "ZtunnelAccepted"
ACKNOWLEDGED = "ambit.io/Acknowledged"
"""Of policies for nodes."""
_LONGEST = 32_768
"""Characters of a condition's message (Kubernetes: `metav1.Condition`); who wrote an object may make us say more, and
the API would take nothing of the status."""
_OWN = {WAYPOINT_BOUND, WAYPOINT_ACCEPTED, KEYS_FETCHED, VISIBILITY_APPLIED, ACCEPTED, ACKNOWLEDGED}
"""Of an object that has conditions only: those that go when they are not said any more."""


def merged(
    existing: Iterable[Mapping[str, Any]], ours: Iterable[Condition], generation: int, now: dt.datetime
) -> list[Fields] | None:
    """The list of conditions with ours in it, or None when nothing changes."""
    result = [dict(each) for each in existing]
    before = [dict(each) for each in result]
    for condition in ours:
        wanted = msgspec.to_builtins(condition) | {"observedGeneration": generation}
        wanted["message"] = condition.message[:_LONGEST]
        known = next((each for each in result if each.get("type") == condition.type), None)
        if known is None:
            result.append(wanted | {"lastTransitionTime": time_text(now)})
            continue
        if known.get("status") != condition.status:
            known["lastTransitionTime"] = time_text(now)
        known.update(wanted)
    return None if result == before else result


def time_text(now: dt.datetime) -> str:
    """A metav1.Time."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def to_write(live: Mapping[str, Any], status: Status, now: dt.datetime) -> Fields | None:
    """The fields of `status` to write over those of the live object, as a merge patch has them."""
    existing = live.get("status") or {}
    wanted = _wanted(existing, status, now)
    return None if all(existing.get(name) == value for name, value in wanted.items()) else wanted


def to_withdraw(live: Mapping[str, Any], status: Status) -> Fields | None:
    """The fields to write when nothing is to be said any more; `status` is what was said last."""
    existing = live.get("status") or {}
    match status:
        case RouteStatus() | PolicyStatus():
            name = "parents" if isinstance(status, RouteStatus) else "ancestors"
            left = _others(existing, name)
            return None if left == list(existing.get(name) or ()) else {name: left}
        case _:
            types = {each.type for each in status.conditions}
            conditions = list(existing.get("conditions") or ())
            kept = [each for each in conditions if each.get("type") not in types]
            return None if kept == conditions else {"conditions": kept}


def _wanted(existing: Mapping[str, Any], status: Status, now: dt.datetime) -> Fields:
    generation = status.version.generation
    match status:
        case ObjectStatus():
            gone = _OWN - {each.type for each in status.conditions}
            if status.by_nodes:
                gone -= {ACCEPTED, ACKNOWLEDGED}
            kept = [each for each in existing.get("conditions") or () if each.get("type") not in gone]
            conditions = _conditions({"conditions": kept}, status.conditions, generation, now)
            features = [{"name": each} for each in status.features]
            return {"conditions": conditions} | ({"supportedFeatures": features} if features else {})
        case RouteStatus():
            return _of_parents(existing, ("parents", "parentRef"), status.parents, generation, now)
        case PolicyStatus():
            return _of_parents(existing, ("ancestors", "ancestorRef"), status.ancestors, generation, now)
        case GatewayStatus():
            gone = {INSECURE} - {each.type for each in status.conditions}
            kept = [each for each in existing.get("conditions") or () if each.get("type") not in gone]
            counted = status.sets or "attachedListenerSets" in existing
            return {
                "conditions": _conditions({"conditions": kept}, status.conditions, generation, now),
                "listeners": _listeners(existing, status.listeners, generation, now),
                "addresses": [_address(each) for each in status.addresses],
                **({"attachedListenerSets": status.sets} if counted else {}),
            }
        case ListenerSetStatus():
            return {
                "conditions": _conditions(existing, status.conditions, generation, now),
                "listeners": _listeners(existing, status.listeners, generation, now),
            }


def _address(text: str) -> Fields:
    try:
        ip_address(text)
    except ValueError:
        return {"type": "Hostname", "value": text}
    return {"type": "IPAddress", "value": text}


def _of_parents(
    existing: Mapping[str, Any],
    names: tuple[str, str],
    given: Iterable[ParentStatus],
    generation: int,
    now: dt.datetime,
) -> Fields:
    """`names` are those of the list, and of the reference in its items."""
    several, one = names
    ours = [each for each in existing.get(several) or () if _is_ours(each)]
    said = [
        {
            one: (reference := _reference(each.parent)),
            "controllerName": each.controller,
            "conditions": _all(_same(ours, one, reference), each.conditions, generation, now),
        }
        for each in given
    ]
    return {several: [*_others(existing, several), *said]} if said or ours else {}


def _listeners(
    existing: Mapping[str, Any], given: Iterable[ListenerStatus], generation: int, now: dt.datetime
) -> list[Fields]:
    before = existing.get("listeners") or ()
    return [_listener(_same(before, "name", each.name), each, generation, now) for each in given]


def _listener(
    existing: Mapping[str, Any], given: ListenerStatus, generation: int, now: dt.datetime
) -> Fields:
    return {
        "name": given.name,
        "supportedKinds": [{"group": GROUP, "kind": kind} for kind in given.kinds],
        "attachedRoutes": given.attached,
        "conditions": _all(existing, given.conditions, generation, now),
    }


def _conditions(
    existing: Mapping[str, Any], ours: Iterable[Condition], generation: int, now: dt.datetime
) -> list[Fields]:
    before = existing.get("conditions") or ()
    return merged(before, ours, generation, now) or [dict(each) for each in before]


def _all(
    existing: Mapping[str, Any], ours: Iterable[Condition], generation: int, now: dt.datetime
) -> list[Fields]:
    """The same where all conditions are ours: those that are not said any more go."""
    said = {each.type: each for each in ours}
    before = [each for each in existing.get("conditions") or () if each.get("type") in said]
    return _conditions({"conditions": before}, said.values(), generation, now)


def _same(among: Iterable[Mapping[str, Any]], name: str, value: Any) -> Mapping[str, Any]:
    return next((each for each in among if each.get(name) == value), {})


def _is_ours(parent: Mapping[str, Any]) -> bool:
    return parent.get("controllerName") in (WAYPOINT_CONTROLLER, GATEWAY_CONTROLLER)


def _others(existing: Mapping[str, Any], name: str) -> list[Any]:
    return [each for each in existing.get(name) or () if not _is_ours(each)]


def _reference(parent: Parent) -> Fields:
    """A parentRef as it is written: what is not written is left out."""
    given = {
        "group": parent.group,
        "kind": parent.kind,
        "namespace": parent.namespace or None,
        "name": parent.name,
        "sectionName": parent.section_name or None,
        "port": parent.port or None,
    }
    return {name: value for name, value in given.items() if value is not None}
