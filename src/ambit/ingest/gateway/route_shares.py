"""What one namespace may add by its routes to the tables of other namespaces' Services: consumer routes (Gateway API
`RouteConditionReason`: implementations may have reasons of their own).

The waypoint of a Service and, for one with an inline waypoint, every node carry the routes of all namespaces for it, at
the cost of the Service's owner: 1 MiB takes about 4 MiB of an Envoy. So each namespace has one share for all Services
of others together. Its older routes go first; a route beyond it is not accepted, and says so.
"""

from collections.abc import Iterable, Mapping

import msgspec

from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.attachment import CompiledRoute
from ambit.ingest.gateway.conditions import ACCEPTED, no
from ambit.model.status import Parent

MOST_ROUTES = 512
"""Routes of one namespace for Services of others."""
MOST_BYTES = 2 * 1024 * 1024
"""Bytes of their rules: with short ones some 4,000 matches."""
TOO_MANY = "TooManyRoutes"
_TEXT = (
    f"the routes of namespace {{}} for Services of other namespaces are more than {MOST_ROUTES}, or more than "
    f"{MOST_BYTES >> 20} MiB, each counted for each of its Services and ports, and older ones go first: its requests "
    "go as without this route. Delete routes, or have fewer matches and parents"
)


class _Use(msgspec.Struct, frozen=True):
    """What one route needs of its namespace's share."""

    namespace: str
    age: tuple[str, str, str]
    key: str
    size: int


class _Namespace(msgspec.Struct, frozen=True):
    name: str


def within_shares(
    graph: Graph, compiled: Iterable[Collection[CompiledRoute]]
) -> list[Collection[CompiledRoute]]:
    """The same collections: a route beyond its namespace's share has no place at Services of others."""
    collections = list(compiled)
    uses = graph.join(
        "shares that routes use",
        [
            graph.derive(f"shares used by {each.name}", each, lambda _, route: _use(route), key=_key_of_use)
            for each in collections
        ],
    )
    by_namespace = uses.index(lambda each: [each.namespace])
    namespaces = graph.derive_many(
        "namespaces with consumer routes", uses, lambda _, each: {each.namespace: _Namespace(each.namespace)}
    )

    def fitting(context: Context, given: _Namespace) -> Mapping[str, bool]:
        return dict.fromkeys(_fitting(context.lookup(by_namespace, given.name)), True)

    # Of their own, so that among thousands of refused routes one that comes or goes wakes no other.
    fits = graph.derive_many("consumer routes within their shares", namespaces, fitting)

    def admitted(context: Context, route: CompiledRoute) -> CompiledRoute:
        if not any(each.consumer for each in route.attachments) or context.get(fits, _key(route)):
            return route
        return _refused(route)

    return [graph.derive(f"{each.name}, within shares", each, admitted) for each in collections]


def _fitting(uses: Iterable[_Use]) -> list[str]:
    """The oldest that fit. What is too large takes no share, so that a smaller one after it may still have it."""
    found: list[str] = []
    sum_ = 0
    for each in sorted(uses, key=lambda use: (use.age, use.key)):
        if len(found) == MOST_ROUTES:
            break
        if sum_ + each.size <= MOST_BYTES:
            sum_ += each.size
            found.append(each.key)
    return found


def _use(route: CompiledRoute) -> _Use | None:
    counted = [(each.entries, each.consumer, len(each.ports)) for each in route.attachments if each.consumer]
    if not counted:
        return None
    size = sum(len(msgspec.json.encode(entries, enc_hook=str)) * ports for entries, _, ports in counted)
    return _Use(counted[0][1], route.age, _key(route), size)


def _key_of_use(use: _Use) -> str:
    return use.key


def _key(route: CompiledRoute) -> str:
    return str(route.status.version.origin)


def _refused(route: CompiledRoute) -> CompiledRoute:
    """Without its places at other namespaces' Services; where it has none else it is not accepted."""
    refused: dict[Parent, str] = {each.parent: each.consumer for each in route.attachments if each.consumer}
    parents = tuple(
        msgspec.structs.replace(
            each,
            conditions=(no(ACCEPTED, TOO_MANY, _TEXT.format(refused[each.parent])), *each.conditions[1:]),
        )
        if each.parent in refused
        else each
        for each in route.status.parents
    )
    return msgspec.structs.replace(
        route,
        attachments=tuple(each for each in route.attachments if not each.consumer),
        status=msgspec.structs.replace(route.status, parents=parents),
    )
