"""Routes of a gateway that lead back to the gateway: what comes in would go round until something gives, and one
request, connection or datagram would become as many as its pods can hold. So a gateway does not call those of its own
ports from which routes lead to themselves. Others it may call: a listener that passes TLS on may lead to one that ends
it. Circles over several gateways are only told of (`ambit.ingest.findings.circles`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from ambit.core.address import Address
from ambit.model.proxy import ListenerRoutes, Protocol, Proxy
from ambit.model.streams import Datagrams, datagrams_key
from ambit.model.view import MeshView
from ambit.plan.backends import Backend


class Circles(msgspec.Struct, frozen=True):
    """Addresses of the gateway's pods, and those of their ports which lead to themselves."""

    addresses: frozenset[Address] = frozenset()
    ports: frozenset[int] = frozenset()

    def has(self, address: Address, port: int) -> bool:
        """Whether what is sent there comes back."""
        return port in self.ports and address in self.addresses


NONE = Circles()


def circles(
    proxy: Proxy,
    routes: Mapping[str, ListenerRoutes],
    datagrams: Mapping[str, Datagrams],
    called: AbstractSet[str],
    view: MeshView,
) -> Circles:
    """Those of a gateway with these routes of its listeners, and these UDP ports of services. `called` are keys of all
    services that requests and connections may be sent or shown to."""
    own = view.service(f"{proxy.identity.namespace}/{proxy.service}")
    pods = view.endpoints(own) if own is not None else ()
    addresses = frozenset(address for each in pods for address in each.addresses)
    services = called & {key for each in pods for key in each.services}
    if not services and all(each.protocol is not Protocol.UDP for each in proxy.listeners):
        return NONE
    leads: dict[int, set[int]] = defaultdict(set)
    for listener in proxy.listeners:
        given = routes.get(listener.name)
        if given is None:
            continue
        if listener.protocol is Protocol.UDP:
            ports = _ports_of_datagrams(given, datagrams, addresses)
        else:
            ports = _ports((each for each in _called(given) if each[0] in services), view, addresses)
        leads[listener.port].update(ports)
    return Circles(addresses, frozenset(port for port in leads if port in _reached(port, leads)))


def _called(routes: ListenerRoutes) -> Iterator[Backend]:
    for host in routes.hosts:
        for entry in host.entries:
            yield from entry.action.called()
    for stream in routes.streams:
        yield from ((each.service, each.port) for each in stream.backends)


def _ports(called: Iterator[Backend], view: MeshView, addresses: frozenset[Address]) -> Iterator[int]:
    for key, port in set(called):
        service = view.service(key)
        for workload in view.endpoints(service) if service is not None else ():
            if service is not None and not addresses.isdisjoint(workload.addresses):
                yield service.target_port(workload, port)


def _ports_of_datagrams(
    routes: ListenerRoutes, datagrams: Mapping[str, Datagrams], addresses: frozenset[Address]
) -> Iterator[int]:
    for key, port in _called(routes):
        found = datagrams.get(datagrams_key(key, port))
        for address, target in found.endpoints if found is not None else ():
            if address in addresses:
                yield target


def _reached(start: int, leads: Mapping[int, set[int]]) -> set[int]:
    found: set[int] = set()
    ahead = list(leads.get(start, ()))
    while ahead:
        port = ahead.pop()
        if port not in found:
            found.add(port)
            ahead += leads.get(port, ())
    return found
