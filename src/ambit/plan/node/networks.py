"""Ways to a service in another network: a tunnel to that network's gateway, and inside of it one to the server.

The gateway sees who asks for which service and no byte of what is said; the server is believed by the names that the
service gives (`subject_alt_names`), for which workload it will be only the gateway knows. Both requests name the
service and the port that was asked for (ztunnel `outbound.rs::build_request_through_gateway`). Only a service's
address leads to another network: addresses of workloads mean something in their own.
"""

from collections.abc import Iterable

from ambit.core.address import Address
from ambit.core.names import HBONE_PORT
from ambit.envoy import clusters, names, tcp_proxy
from ambit.envoy.logs import access_log
from ambit.envoy.words import AnyMessage
from ambit.model.service import Service
from ambit.model.view import MeshView
from ambit.plan import gateways
from ambit.plan.endpoints import RemoteChoice
from ambit.plan.pins import pins, spiffe, with_names
from ambit.plan.values import NodeSettings

TUNNEL = "tunnel"


def endpoint(
    asked: tuple[Address, int],
    service: Service,
    choice: RemoteChoice,
    served_by: Service | None,
    settings: NodeSettings,
    weight: int,
) -> clusters.Endpoint | None:
    """The way for connections to `asked`, an address and port of `service`, to an endpoint of `served_by` (the service
    itself, or its waypoint). None when nobody there can prove who they are."""
    if served_by is None or not spiffe(served_by.subject_alt_names):
        return None
    address, port = asked
    authority = f"{service.hostname}:{port}"
    return clusters.Endpoint(
        listener=names.NETWORK_ORIGINATE,
        hop=asked,
        cluster=names.inner(names.Inner(address.version, authority, served_by.key, choice.gateway)),
        authority=authority,
        weight=weight,
        tags={
            access_log.ROUTE: TUNNEL,
            access_log.WORKLOAD: choice.workload.uid,
            access_log.TARGET: authority,
            tcp_proxy.NETWORK: settings.network,
        },
    )


def inner(name: str, asked: names.Inner, view: MeshView, settings: NodeSettings) -> AnyMessage:
    """The cluster of the inner tunnels: through any workload of the gateway, to a server of that service."""
    service = view.service(asked.service)
    expected = spiffe(service.subject_alt_names) if service is not None else []
    ways = list(_through(asked, view, settings))
    if not expected or not ways:
        reason = (
            f"the gateway to {asked.authority} is not known" if expected else "no name to know servers by"
        )
        return clusters.refused(name, {access_log.ROUTE: "refused", access_log.REASON: reason})
    return clusters.nested(name, ways, pins((), expected, settings), {})


def _through(asked: names.Inner, view: MeshView, settings: NodeSettings) -> Iterable[clusters.Endpoint]:
    for choice, service in gateways.network_gateway(asked.gateway, asked.family, view, settings):
        yield clusters.Endpoint(
            listener=names.CONNECT_ORIGINATE,
            hop=(choice.address, choice.port or HBONE_PORT),
            cluster=names.tunnel(choice.workload.identity, with_names(service, view)),
            authority=asked.authority,
            weight=choice.workload.capacity,
            tags={access_log.ROUTE: TUNNEL, access_log.WORKLOAD: choice.workload.uid},
        )
