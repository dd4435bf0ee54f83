"""The table of one port of a service: the entries of all routes on it, in the order in which they count.

1. Requests from a namespace with consumer routes meet these only; one that none of them matches is answered with 404.
2. All others meet the producer's routes; with none of those they go on to the service itself.
3. Among entries of one group: rank, then the older route, then its name, then the earlier rule, then the earlier match
   (Gateway API `HTTPRouteRule.matches`, GEP-1426 "Multiple routes for a Service").
4. Of TCPRoutes on a port the oldest alone counts (Gateway API `TCPRoute`), of TLSRoutes each for its own host names.
"""

from collections.abc import Iterable, Iterator

import msgspec

from ambit.ingest.gateway.attachment import Attachment, CompiledRoute
from ambit.ingest.gateway.rules import RankedEntry
from ambit.model.http import Action, Backend, Entry, Host, RequestMatch
from ambit.model.proxy import ServiceRoutes
from ambit.model.service import Service
from ambit.model.streams import Stream

ANY_HOST = ("*",)
_Placed = tuple[tuple[str, str, str], RankedEntry]
"""Age of the route, and entry."""


def service_routes(service: Service, attached: Iterable[CompiledRoute]) -> dict[str, ServiceRoutes]:
    """The tables of all ports of a service that have any route, by `ServiceRoutes.key`."""
    here = [
        (route.age, attachment)
        for route in attached
        for attachment in route.attachments
        if attachment.service == service.key
    ]
    tables = {}
    for port in service.ports:
        on_port = [(age, each) for age, each in here if port.service in each.ports]
        streams = tuple(_streams(on_port))
        if streams:
            table = ServiceRoutes(service.key, port.service, streams=streams)
            tables[table.key] = table
        elif on_port:
            hosts = (Host(ANY_HOST, tuple(_entries(service, port.service, on_port))),)
            table = ServiceRoutes(service.key, port.service, hosts)
            tables[table.key] = table
    return tables


def _streams(attached: list[tuple[tuple[str, str, str], Attachment]]) -> Iterator[Stream]:
    for _, attachment in sorted(attached, key=lambda each: each[0]):
        for stream in attachment.streams:
            yield stream
            if not stream.hostnames:
                return


def _entries(
    service: Service, port: int, attached: list[tuple[tuple[str, str, str], Attachment]]
) -> Iterator[Entry]:
    producers: list[_Placed] = []
    consumers: dict[str, list[_Placed]] = {}
    for age, attachment in attached:
        group = consumers.setdefault(attachment.consumer, []) if attachment.consumer else producers
        group += [(age, entry) for entry in attachment.entries]
    for namespace, placed in sorted(consumers.items()):
        for entry in _ordered(placed):
            yield _from_namespace(entry, namespace)
        yield Entry(
            name=f"{namespace}/-/no-match",
            match=RequestMatch(source_namespaces=(namespace,)),
            action=Action(status=404),
        )
    if any(not attachment.consumer for _, attachment in attached):
        yield from _ordered(producers)
    else:
        itself = Action(backends=(Backend(service.key, port),), session=service.session)
        yield Entry(f"{service.key}/-/itself", RequestMatch(), itself)


def _ordered(placed: list[_Placed]) -> Iterator[Entry]:
    for _, ranked in sorted(placed, key=lambda each: (each[1].rank, each[0], each[1].place)):
        yield ranked.entry


def _from_namespace(entry: Entry, namespace: str) -> Entry:
    match = msgspec.structs.replace(entry.match, source_namespaces=(namespace,))
    return msgspec.structs.replace(entry, match=match)
