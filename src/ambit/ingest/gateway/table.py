"""The table of one port of a service: the entries of all routes on it, in the order in which they count.

1. Requests from a namespace with consumer routes meet these only; one that none of them matches is answered with 404.
2. All others meet the producer's routes; with none of those they go on to the service itself.
3. Among entries of one group: rank, then the older route, then its name, then the earlier rule, then the earlier match
   (Gateway API `HTTPRouteRule.matches`, GEP-1426 "Multiple routes for a Service").
4. Of TCPRoutes on a port the oldest alone counts (Gateway API `TCPRoute`), of TLSRoutes each for its own host names.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from ambit.graph.collection import Collection
from ambit.graph.engine import Graph
from ambit.ingest.gateway.attachment import Attachment, CompiledRoute
from ambit.model.http import Action, Backend, Entry, Host, RequestMatch
from ambit.model.proxy import ServiceRoutes
from ambit.model.service import Service
from ambit.model.streams import Stream

ANY_HOST = ("*",)
_Placed = tuple[tuple[str, str, str], Attachment]
"""Age of the route, and what it has there."""


class BlockName(msgspec.Struct, frozen=True):
    """Of the entries that the routes of one namespace add to a port of a service. `consumer` is empty for the service's
    own namespace."""

    service: str
    port: int
    consumer: str

    @property
    def key(self) -> str:
        return f"{self.service}:{self.port} {self.consumer}"


class Block(msgspec.Struct, frozen=True):
    """The entries (or streams) themselves, in order. Made anew only when a route of this namespace changes."""

    name: BlockName
    entries: tuple[Entry, ...]
    streams: tuple[Stream, ...] = ()


def compile_tables(
    graph: Graph, services: Collection[Service], compiled: Sequence[Collection[CompiledRoute]]
) -> Collection[ServiceRoutes]:
    """The tables of all services, by `ServiceRoutes.key`. A route that changes has its namespace's blocks made anew; of
    the others tables take what is there."""
    by_block = [each.index(blocks_of) for each in compiled]
    names = graph.join(
        "names of blocks of routes",
        [
            graph.derive_many(f"blocks of {each.name}", each, lambda _, route: blocks_of(route))
            for each in compiled
        ],
    )
    blocks = graph.derive(
        "blocks of routes",
        names,
        lambda context, name: block(
            name, [each for index in by_block for each in context.lookup(index, name.key)]
        ),
    )
    by_service = blocks.index(lambda each: [each.name.service])
    return graph.derive_many(
        "service routes",
        services,
        lambda context, service: service_routes(service, context.lookup(by_service, service.key)),
    )


def blocks_of(route: CompiledRoute) -> dict[str, BlockName]:
    """The blocks that a route has entries in, by their keys."""
    names = (
        BlockName(each.service, port, each.consumer) for each in route.attachments for port in each.ports
    )
    return {each.key: each for each in names}


def block(name: BlockName, attached: Iterable[CompiledRoute]) -> Block:
    """One block from the routes that have entries in it."""
    placed = [
        (route.age, each)
        for route in attached
        for each in route.attachments
        if (each.service, each.consumer) == (name.service, name.consumer) and name.port in each.ports
    ]
    entries: Iterable[Entry] = _ordered(placed)
    if name.consumer:
        entries = (*entries, _no_match(name.consumer))
    return Block(name, tuple(entries), tuple(_streams(placed)))


def service_routes(service: Service, blocks: Iterable[Block]) -> dict[str, ServiceRoutes]:
    """The tables of all ports of a service that have any route, by `ServiceRoutes.key`."""
    by_port: dict[int, list[Block]] = {}
    for each in blocks:
        by_port.setdefault(each.name.port, []).append(each)
    tables = {}
    for port in service.ports:
        here = by_port.get(port.service, ())
        streams = tuple(stream for each in here for stream in each.streams)
        if streams:
            table = ServiceRoutes(service.key, port.service, streams=streams)
            tables[table.key] = table
        elif here:
            hosts = (Host(ANY_HOST, _entries(service, port.service, here)),)
            table = ServiceRoutes(service.key, port.service, hosts)
            tables[table.key] = table
    return tables


def _streams(placed: Iterable[_Placed]) -> Iterator[Stream]:
    for _, attachment in sorted(placed, key=lambda each: each[0]):
        for stream in attachment.streams:
            yield stream
            if not stream.hostnames:
                return


def _entries(service: Service, port: int, blocks: Iterable[Block]) -> tuple[Entry, ...]:
    """Of all blocks of a port: those of consumers, then the service's own or the way to the service itself."""
    own = None
    found: list[Entry] = []
    for each in sorted(blocks, key=lambda block: block.name.consumer):
        if each.name.consumer:
            found += each.entries
        else:
            own = each.entries
    if own is None:
        itself = Action(backends=(Backend(service.key, port),), session=service.session)
        own = (Entry(f"{service.key}/-/itself", RequestMatch(), itself),)
    return (*found, *own)


def _no_match(namespace: str) -> Entry:
    match = RequestMatch(source_namespaces=(namespace,))
    return Entry(name=f"{namespace}/-/no-match", match=match, action=Action(status=404))


def _ordered(placed: Iterable[_Placed]) -> Iterator[Entry]:
    entries = [(age, entry) for age, attachment in placed for entry in attachment.entries]
    for _, ranked in sorted(entries, key=lambda each: (each[1].rank, each[0], each[1].place)):
        yield ranked.entry
