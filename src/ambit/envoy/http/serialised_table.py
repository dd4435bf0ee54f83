"""Tables of requests as bytes, put together from what was made for the last one.

A table may have thousands of entries that many namespaces wrote, and most changes are of one. As a message it would be
copied and serialised as a whole for each. A repeated field of protobuf is the same whether its elements are serialised
together or one after the other, so those that are as before are taken as they are.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from envoy.config.route.v3 import route_components_pb2

from ambit.core.memo import Memo
from ambit.envoy.http.routes import TableOptions, empty_table, first_routes, joined, routes_of
from ambit.model.http import Entry, Host

_HOSTS, _ROUTES = 2, 3
"""Numbers of `RouteConfiguration.virtual_hosts` and `VirtualHost.routes`."""
_Parts = list[tuple[Entry, bytes]]
"""Entries with their routes, as elements of a virtual host."""


class SerialisedTable:
    """A RouteConfiguration that knows its bytes only."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self, *, deterministic: bool = True) -> bytes:  # noqa: N802 - protobuf's name
        """The bytes. Equal tables have equal ones."""
        del deterministic
        return self._data


def serialised_table(
    name: str, hosts: Sequence[Host], memo: Memo, *, port: int, scheme: str = "http", more: TableOptions
) -> SerialisedTable:
    """What `ambit.envoy.http.routes.table` makes, serialised. `memo` is the one of the last time."""
    found = [empty_table(name, more).SerializeToString(deterministic=True)]
    for host in joined(hosts):
        found += _element(_HOSTS, _host(name, host, scheme, port, memo))
    return SerialisedTable(b"".join(found))


def _host(table: str, host: Host, scheme: str, port: int, memo: Memo) -> Sequence[bytes]:
    message = route_components_pb2.VirtualHost(name=host.domains[0], domains=host.domains)
    found = [message.SerializeToString(deterministic=True)]
    for route in first_routes(host):
        found += _element(_ROUTES, [route.SerializeToString(deterministic=True)])
    for namespaces, block in groupby(host.entries, _namespaces):
        parts = _block((table, host.domains, namespaces, scheme, port), tuple(block), memo)
        found.extend(each for _, each in parts)
    return found


def _block(name: tuple[Any, ...], entries: tuple[Entry, ...], memo: Memo) -> _Parts:
    """Of one namespace. `name` ends with the scheme and the port, on which routes depend."""

    def make() -> _Parts:
        former: _Parts = memo.former(name) or []
        known = {id(entry): (entry, part) for entry, part in former}
        return [known.get(id(entry)) or (entry, _entry(entry, *name[-2:])) for entry in entries]

    return memo.of(name, (entries,), make)


def _entry(entry: Entry, scheme: str, port: int) -> bytes:
    return b"".join(
        part
        for route in routes_of(entry, scheme, port)
        for part in _element(_ROUTES, [route.SerializeToString(deterministic=True)])
    )


def _namespaces(entry: Entry) -> tuple[str, ...]:
    return entry.match.source_namespaces


def _element(number: int, parts: Sequence[bytes]) -> Iterator[bytes]:
    """One element of a repeated field of messages (protobuf encoding: tag, length, content)."""
    yield bytes([number << 3 | 2])
    yield _varint(sum(map(len, parts)))
    yield from parts


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
