"""What a gateway does with requests to one of its listeners: entries of all routes on it, by host name.

For a request the routes count whose host names match it, the most specific first; of one host name GRPCRoutes, then
HTTPRoutes; then as in tables of services (Gateway API `HTTPRouteSpec.hostnames`, `HTTPRouteRule.matches`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ambit.core import hostnames
from ambit.ingest.gateway.attachment import CompiledRoute, ListenerAttachment
from ambit.ingest.gateway.edge import EdgeGateway
from ambit.ingest.gateway.rules import RankedEntry
from ambit.model.http import Entry, Host
from ambit.model.proxy import Listener, ListenerRoutes
from ambit.model.streams import Stream

_GRPC = "GRPCRoute"
_Attached = tuple[tuple[str, str, str], ListenerAttachment]
"""Age of the route, and where it is."""


def listener_routes(gateway: EdgeGateway, attached: Iterable[CompiledRoute]) -> dict[str, ListenerRoutes]:
    """The tables of all accepted listeners of a gateway, by `ListenerRoutes.key`."""
    proxy = gateway.proxy
    if proxy is None:
        return {}
    here: dict[str, list[_Attached]] = defaultdict(list)
    for route in attached:
        for each in route.listeners:
            if each.gateway == proxy.key:
                here[each.listener].append((route.age, each))
    tables = {}
    for listener in proxy.listeners:
        on_it = here.get(listener.name, [])
        own = listener.hostname or hostnames.ANY
        if listener.protocol.is_of_requests:
            table = ListenerRoutes(proxy.key, listener.name, _hosts(own, on_it))
        else:
            table = ListenerRoutes(proxy.key, listener.name, streams=tuple(_streams(listener, on_it)))
        tables[table.key] = table
    return tables


def _streams(listener: Listener, attached: list[_Attached]) -> Iterator[Stream]:
    """Of TCPRoutes the oldest counts (Gateway API `TCPRouteSpec`, "the oldest Route"). Of several TLSRoutes for one
    name in the client's hello the oldest has it; a TCPRoute has the names of a TLS listener that no TLSRoute has; what
    nobody has is refused."""
    ordered = sorted(attached, key=lambda each: each[0])
    named = [each for each in ordered if each[1].kind == "TLSRoute"]
    others = [each for each in ordered if each[1].kind != "TLSRoute"]
    for _, each in (*named, *others[:1]):
        names = tuple(name for name in each.hostnames if name != hostnames.ANY)
        for stream in each.streams:
            yield msgspec.structs.replace(stream, hostnames=names)
    yield Stream("-/-/nobody", (), (listener.hostname,) if listener.hostname else ())


def _hosts(own: str, attached: list[_Attached]) -> tuple[Host, ...]:
    by_pattern: dict[str, list[_Attached]] = {own: []}
    for age, each in attached:
        for pattern in dict.fromkeys(each.hostnames):
            by_pattern.setdefault(pattern, []).append((age, each))
    return tuple(
        Host((name,), tuple(_entries(name, by_pattern))) for name in sorted(by_pattern, key=_by_precision)
    )


def _entries(name: str, by_pattern: Mapping[str, list[_Attached]]) -> Iterable[Entry]:
    """A route counts once, by the most specific of its host names."""
    placed: list[tuple[tuple[bool, int], bool, tuple[str, str, str], RankedEntry]] = []
    seen: set[int] = set()
    for pattern in hostnames.covering(name):
        precision = hostnames.by_precision(pattern)
        for age, each in by_pattern.get(pattern, ()):
            if id(each) not in seen:
                seen.add(id(each))
                placed += [(precision, each.kind != _GRPC, age, entry) for entry in each.entries]
    ordered = sorted(placed, key=lambda each: (each[0], each[1], each[3].rank, each[2], each[3].place))
    return (each[3].entry for each in ordered)


def _by_precision(name: str) -> tuple[tuple[bool, int], str]:
    return hostnames.by_precision(name), name
