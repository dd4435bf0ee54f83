"""UDP ports of Kubernetes Services, and what stands behind them: the ready endpoints of their EndpointSlices.

The mesh carries no UDP, so none of this is in services or workloads; gateways at the edge send it on as it is
(Gateway API `UDPRoute`). Of a service with endpoints of both families those of IPv4 count. Who writes a slice may name
any address: those of the proxy's own machine, and of groups, are left out.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from ambit.core.address import Address, is_of_the_machine
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.settings import MeshSettings
from ambit.model.streams import Datagrams
from ambit.objects import kube

_UDP = "UDP"
_FAMILIES = ("IPv4", "IPv6")
"""Types of addresses, the preferred one first. There is a third (FQDN), which nobody resolves here."""


def compile_datagrams(
    graph: Graph,
    services: Collection[kube.Service],
    slices: Collection[kube.EndpointSlice],
    settings: MeshSettings,
) -> Collection[Datagrams]:
    """Adds the collection to a graph, by `Datagrams.key`."""
    by_service = slices.index(
        lambda each: [f"{each.metadata.namespace}/{each.service}"] if each.service else []
    )

    def made(context: Context, given: kube.Service) -> Mapping[str, Datagrams]:
        if all(port.protocol != _UDP for port in given.spec.ports or ()):
            return {}
        return datagrams(given, context.lookup(by_service, given.metadata.key), settings)

    return graph.derive_many("datagrams", services, made)


def datagrams(
    given: kube.Service, slices: Iterable[kube.EndpointSlice], settings: MeshSettings
) -> dict[str, Datagrams]:
    """The UDP ports of a Service with its slices."""
    meta = given.metadata
    if given.spec.type == "ExternalName":
        return {}
    service = f"{meta.namespace}/{settings.hostname(meta.name, meta.namespace)}"
    behind = list(slices)
    found = (
        Datagrams(service, port.port, _endpoints(port.name, behind))
        for port in given.spec.ports or ()
        if port.protocol == _UDP
    )
    return {each.key: each for each in found}


def _endpoints(port: str, slices: list[kube.EndpointSlice]) -> tuple[tuple[Address, int], ...]:
    for family in _FAMILIES:
        found = {place for each in slices if each.address_type == family for place in _of_slice(port, each)}
        if found:
            return tuple(sorted(found))
    return ()


def _of_slice(port: str, given: kube.EndpointSlice) -> Iterator[tuple[Address, int]]:
    """A port of a Service and one of a slice belong together by their name."""
    numbers = [
        each.port
        for each in given.ports or ()
        if each.port is not None and each.protocol == _UDP and each.name == port
    ]
    for endpoint in given.endpoints or ():
        if not endpoint.is_ready:
            continue
        for text in endpoint.addresses[:1]:
            address = ipaddress.ip_address(text)
            if not is_of_the_machine(address) and not address.is_multicast:
                yield from ((address, number) for number in numbers)
