"""Routes of a gateway that lead back to the gateway: what comes in would go round until something gives, and one
request, connection or datagram would become as many as its pods can hold. So a gateway does not call those of its own
ports from which routes lead to themselves. Others it may call: a listener that passes TLS on may lead to one that ends
it. Circles over several gateways are only told of (`ambit.ingest.findings.circles`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from ambit.core.address import Address
from ambit.model.proxy import ListenerRoutes, Protocol, Proxy, called_by
from ambit.model.service import Service
from ambit.model.streams import Datagrams, datagrams_key
from ambit.model.view import MeshView
from ambit.model.workload import Workload
from ambit.plan.backends import Backend


class Circles(msgspec.Struct, frozen=True):
    """Addresses and ports by which a gateway would call those of its own ports that lead to themselves."""

    places: frozenset[tuple[Address, int]] = frozenset()

    def has(self, address: Address, port: int) -> bool:
        """Whether what is sent there comes back."""
        return (address, port) in self.places


NONE = Circles()


class _Doors(msgspec.Struct, frozen=True):
    """Where a gateway is: addresses of its pods, and what leads to their ports from virtual ones."""

    addresses: frozenset[Address]
    virtual: Mapping[tuple[Address, int], int]
    all_addresses: frozenset[Address]

    def port(self, address: Address, port: int) -> int:
        """The gateway's port; 0 where somebody else is."""
        return port if address in self.addresses else self.virtual.get((address, port), 0)


def circles(
    proxy: Proxy,
    routes: Mapping[str, ListenerRoutes],
    datagrams: Mapping[str, Datagrams],
    called: AbstractSet[Backend],
    asked: AbstractSet[Backend],
    view: MeshView,
) -> Circles:
    """Those of a gateway with these routes of its listeners, and these UDP ports of services. `called` is all that the
    routes of requests and connections lead to; requests may be shown to those who are `asked`, too. Whoever puts the
    gateway's addresses behind a Service of his own is seen through: an EndpointSlice or a ServiceEntry may say
    anything."""
    doors = _doors(proxy, view)
    if not doors.addresses:
        return NONE
    here = _here({key for key, _ in called | asked}, view, doors)
    if not here and all(each.protocol is not Protocol.UDP for each in proxy.listeners):
        return NONE
    leads: dict[int, set[int]] = defaultdict(set)
    for listener in proxy.listeners:
        given = routes.get(listener.name)
        if given is None:
            continue
        if listener.protocol is Protocol.UDP:
            ports = _ports_of_datagrams(given, datagrams, doors)
        else:
            others = asked if listener.protocol.is_of_requests else frozenset()
            ports = _ports(_called(given) | others, doors, here)
        leads[listener.port].update(ports)
    back = {port for port in leads if port in _reached(port, leads)}
    return Circles(
        frozenset((address, port) for address in doors.addresses for port in back)
        | {place for place, port in doors.virtual.items() if port in back}
    )


def _doors(proxy: Proxy, view: MeshView) -> _Doors:
    own = view.service(f"{proxy.identity.namespace}/{proxy.service}")
    pods = view.endpoints(own) if own is not None else ()
    virtual = {}
    for pod in pods:
        for service in filter(None, map(view.service, pod.services)):
            for port in service.ports:
                target = service.target_port(pod, port.service)
                virtual.update({(address, port.service): target for address in service.single_addresses})
    addresses = frozenset(address for each in pods for address in each.addresses)
    return _Doors(addresses, virtual, addresses.union(address for address, _ in virtual))


def _called(routes: ListenerRoutes) -> set[Backend]:
    return called_by((entry for host in routes.hosts for entry in host.entries), routes.streams)


_Here = Mapping[str, tuple[Service, list[Workload]]]
"""Services by their keys, with those of their endpoints that are at the gateway."""


def _here(keys: Iterable[str], view: MeshView, doors: _Doors) -> _Here:
    found = {}
    for service in filter(None, map(view.service, keys)):
        endpoints = view.endpoints(service)
        own = [each for each in endpoints if not doors.all_addresses.isdisjoint(each.addresses)]
        if own:
            found[service.key] = service, own
    return found


def _ports(called: Iterable[Backend], doors: _Doors, here: _Here) -> Iterator[int]:
    for key, port in called:
        if key in here:
            service, workloads = here[key]
            for workload in workloads:
                target = service.target_port(workload, port)
                yield from (doors.port(address, target) for address in workload.addresses)


def _ports_of_datagrams(
    routes: ListenerRoutes, datagrams: Mapping[str, Datagrams], doors: _Doors
) -> Iterator[int]:
    for key, port in _called(routes):
        found = datagrams.get(datagrams_key(key, port))
        for address, target in found.endpoints if found is not None else ():
            if address in doors.addresses:
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
