"""Parents of routes that nobody has, as findings: no controller writes a status for them, so the route is silent.

A parent of another group, and one that exists and is not ours, is somebody else's to tell about.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from ambit.core.finding import Finding, Level
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.attachment import KINDS, Route, kind_of
from ambit.objects import gateway
from ambit.objects.routes import ParentRef

_GROUPS = {"Service": "", "ServiceEntry": "networking.istio.io"}
"""Kinds that are meant, where the group is not written: then it is the Gateway API's."""
Exists = Callable[[str, str], bool]
"""Whether there is an object of a kind of the Gateway API, `<namespace>/<name>`."""


class ParentSources(msgspec.Struct, frozen=True):
    """`routes` of each kind, in the order of `KINDS`."""

    routes: tuple[Collection[Any], ...]
    gateways: Collection[gateway.Gateway]
    sets: Collection[gateway.ListenerSet]


def missing_parents(graph: Graph, sources: ParentSources) -> Collection[tuple[Finding, ...]]:
    """Adds the findings to a graph, by the text of the route and `(parents)`."""

    def findings(context: Context, route: Route) -> tuple[Finding, ...] | None:
        def exists(kind: str, key: str) -> bool:
            if kind == "Gateway":
                return context.get(sources.gateways, key) is not None
            return context.get(sources.sets, key) is not None

        return tuple(_findings(route, exists)) or None

    return graph.join(
        "missing parents",
        [
            graph.derive(
                f"missing parents of {kind.__name__}",
                each,
                findings,
                key=lambda found: f"{found[0].origin} (parents)",
            )
            for kind, each in zip(KINDS, sources.routes, strict=True)
        ],
    )


def _findings(route: Route, exists: Exists) -> Iterator[Finding]:
    origin = route.metadata.reference(kind_of(route))
    for index, parent in enumerate(route.spec.parent_refs):
        text = _problem(parent, route.metadata.namespace, exists)
        if text:
            yield Finding("AMB0401", Level.ERROR, origin, f"spec.parentRefs[{index}]", text)


def _problem(parent: ParentRef, namespace: str, exists: Exists) -> str:
    """Why nobody takes a route for this parent; empty when somebody does, or may."""
    key = f"{parent.namespace or namespace}/{parent.name}"
    match parent.group, parent.kind:
        case gateway.GROUP, ("Gateway" | "ListenerSet") as kind:
            return "" if exists(kind, key) else f"{kind} {key} does not exist (NoMatchingParent)"
        case gateway.GROUP, kind:
            return f"group {gateway.GROUP} has no parents of kind {kind}: {_meant(kind)}"
        case "", kind if kind != "Service":
            return f'group "" has no parents of kind {kind}: write kind: Service'
        case _:
            return ""


def _meant(kind: str) -> str:
    group = _GROUPS.get(kind)
    known: Iterable[str] = ("Gateway", "ListenerSet")
    return f"name a {' or '.join(known)}" if group is None else f'write group: "{group}"'
