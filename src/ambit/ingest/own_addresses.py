"""Addresses that are the cluster's own: names of hosts outside lead to none of them, whoever says that they do.

Those of nodes and pods, of Services (virtual, of a load balancer, `externalIPs`), and of the API servers.
EndpointSlices of other Services do not count: who writes one can name anybody's address, which would be out of
everybody's reach then.
"""

import ipaddress
from collections.abc import Iterable

import msgspec

from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.model.server_names import NamesNote
from ambit.model.service import ServerNames
from ambit.objects.kube import EndpointSlice, Node, Pod, Service

_API_SERVERS = ("default", "kubernetes")
"""The Service whose endpoints are the API servers (Kubernetes, "Accessing the API from a Pod")."""


class OwnAddresses:
    """`given` is what names may lead to; None where there are no such names, and then nothing is looked at."""

    def __init__(
        self,
        graph: Graph,
        nodes: Collection[Node],
        services: Collection[Service],
        slices: Collection[EndpointSlice],
        pods: Collection[Pod],
        given: ServerNames | None,
    ) -> None:
        self._given = given
        self._kinds: list[Collection[frozenset[str]]] = []
        if given is None:
            return
        others = NamesNote(ranges=given.ranges)

        def kept(addresses: Iterable[str]) -> frozenset[str] | None:
            """Those that names could lead to otherwise."""
            return frozenset(each for each in addresses if _is_reached(each, others)) or None

        self._kinds = [
            graph.derive(
                "nodes' own addresses",
                nodes,
                lambda _, node: kept(each.address for each in node.status.addresses or ()),
            ),
            graph.derive("services' own addresses", services, lambda _, service: kept(service.every_address)),
            graph.derive("API servers' own addresses", slices, lambda _, part: kept(_of_api_servers(part))),
            graph.derive(
                "pods' own addresses", pods, lambda _, pod: None if pod.finished else kept(pod.addresses)
            ),
        ]

    def server_names(self, context: Context) -> ServerNames | None:
        """What names may lead to, and what not; read through the context."""
        if self._given is None:
            return None
        own = {each for kind in self._kinds for several in context.all(kind).values() for each in several}
        return msgspec.structs.replace(self._given, own=tuple(sorted(own)))


def _of_api_servers(part: EndpointSlice) -> Iterable[str]:
    if (part.metadata.namespace, part.service) != _API_SERVERS:
        return ()
    return (address for each in part.endpoints or () for address in each.addresses)


def _is_reached(text: str, note: NamesNote) -> bool:
    try:
        return bool(note.reachable([ipaddress.ip_address(text)]))
    except ValueError:
        return False
