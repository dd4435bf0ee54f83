"""Routes whose parent is a Gateway at the edge: to which listeners they are attached (Gateway API `ParentReference`).

`sectionName` and `port` choose listeners, which must take routes of the kind and namespace, and have a host name in
common with the route. A route is accepted when one listener takes it.
"""

from collections.abc import Callable, Iterable

import msgspec

from ambit.core import hostnames
from ambit.ingest.gateway.conditions import ACCEPTED, no
from ambit.ingest.gateway.edge import Front
from ambit.ingest.gateway.listeners import EdgeListener
from ambit.model.status import Condition
from ambit.objects.routes import ParentRef

_NAMED = 3
"""So many listeners are named in a message; the others are counted."""


class Chosen(msgspec.Struct, frozen=True):
    """A listener that takes a route, and for which host names."""

    listener: EdgeListener
    hostnames: tuple[str, ...]


class Guest(msgspec.Struct, frozen=True):
    """A route that wants to be attached."""

    kind: str
    namespace: str
    hostnames: tuple[str, ...] = ()


def choose(
    front: Front,
    reference: ParentRef,
    own_namespace: str,
    guest: Guest,
    labels: Callable[[str], dict[str, str]],
) -> tuple[Chosen, ...] | Condition:
    """The listeners of a Gateway, or of one of its ListenerSets, in `own_namespace` that take a route, or why none
    does. `labels` are a namespace's."""
    named = f"{reference.kind} {own_namespace}/{reference.name}"
    meant = [each for each in front.listeners if _is_meant(each, reference)]
    if not meant:
        return no(ACCEPTED, "NoMatchingParent", f"{named} has no such listener")
    willing = [each for each in meant if _takes(each, own_namespace, guest, labels)]
    if not willing:
        text = f"no listener of {named} takes a {guest.kind} of namespace {guest.namespace}"
        if not any(guest.kind in each.kinds for each in meant):
            text = f"no listener of {named} takes a {guest.kind}: {_kinds_by_listener(meant)}"
        return no(ACCEPTED, "NotAllowedByListeners", text)
    chosen = tuple(
        Chosen(each, found) for each in willing if (found := _common(each.given.hostname, guest.hostnames))
    )
    if not chosen:
        text = f"no listener of {named} has a host name in common with {', '.join(guest.hostnames)}"
        return no(ACCEPTED, "NoMatchingListenerHostname", text)
    return chosen


def _kinds_by_listener(listeners: Iterable[EdgeListener]) -> str:
    """What the first of these listeners take, for a message."""
    given = list(listeners)
    several = [
        f"{each.name} ({each.given.protocol}) takes {' and '.join(each.kinds) or 'no route'}"
        for each in given[:_NAMED]
    ]
    more = [f"{len(given) - _NAMED} more"] if len(given) > _NAMED else []
    return ", ".join([*several, *more])


def _is_meant(listener: EdgeListener, reference: ParentRef) -> bool:
    return reference.section_name in ("", listener.name) and reference.port in (0, listener.given.port)


def _takes(listener: EdgeListener, own: str, guest: Guest, labels: Callable[[str], dict[str, str]]) -> bool:
    if guest.kind not in listener.kinds:
        return False
    by_labels = listener.admission.sources == "Selector"
    found = labels(guest.namespace) if by_labels else {}
    return listener.admission.admits(own, guest.namespace, found)


def _common(of_listener: str, of_route: Iterable[str]) -> tuple[str, ...]:
    own = of_listener.lower() or hostnames.ANY
    wanted = tuple(each.lower() for each in of_route) or (hostnames.ANY,)
    found = (hostnames.common(own, each) for each in wanted)
    return tuple(dict.fromkeys(each for each in found if each is not None))
