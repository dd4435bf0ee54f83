"""Requests that are read where their server is: what one port of a pod has for it.

tunnel, same node or plain ─> cluster `into|pod|POD|PORT` ─> internal listener `svc|pod|POD|PORT`: who else is asked,
tokens, policies ─> cluster of that name ─> the port, in the pod's namespace, from the client's address

Who the client is comes with the connection: from the tunnel's certificate (`filter_state.CALLER`), or from the node
itself, in the endpoint's metadata (`CALLER`), where the client is a pod of the same node. Plain connections are
nobody's.
"""

from collections.abc import Mapping
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2

from ambit.core.address import Address
from ambit.envoy import clusters, defaults, filter_state, names, waypoint_services
from ambit.envoy.http import manager as request_manager
from ambit.envoy.http import routes
from ambit.envoy.logs import access_log, request_log
from ambit.envoy.node import listeners
from ambit.envoy.waypoint_services import REQUESTS, Speaks
from ambit.envoy.words import uint32

CALLER = "caller"
"""Metadata of endpoints: the identity of a client of the same node."""


def endpoint(
    pod: str, address: Address, port: int, caller: str, tags: Mapping[str, str]
) -> clusters.Endpoint:
    """The way of a client on the same node."""
    return clusters.Endpoint(
        listener=names.service_cluster(names.pod_requests(pod), port),
        hop=(address, port),
        cluster=names.REFUSED,
        tags={**tags, CALLER: caller},
    )


def into(pod: str, port: int) -> Any:
    """The cluster that leads into the listener."""
    subject = names.pod_requests(pod)
    made = clusters.into(names.into_service(subject, port), names.service_cluster(subject, port))
    waypoint_services.without_limits(made)
    return made


def server(pod: str, netns: str, port: int, *, is_http2: bool) -> Any:
    """The cluster of the port itself."""
    made = clusters.inside(names.service_cluster(names.pod_requests(pod), port), netns, {})
    waypoint_services.speak(made, Speaks.HTTP2 if is_http2 else Speaks.AS_CLIENT)
    waypoint_services.without_limits(made)
    return made


def listener(pod: str, port: int, *, identity: str, service: str, default_host: str, places: int = 1) -> Any:
    """Reads requests to a port of the pod with this identity, which are told of as those to this service. There are so
    many `places` for others who authorize."""
    subject = names.pod_requests(pod)
    name = names.service_cluster(subject, port)
    own = routes.to_service(subject, port)
    manager = request_manager.of_pod(
        stat=REQUESTS,
        table=routes.table(name, own, port=port, more=routes.TableOptions(identity)),
        subject=subject,
        port=port,
        default_host=default_host,
        by=identity,
        places=places,
    )
    chain = listener_components_pb2.FilterChain(
        name=name,
        filters=[
            filter_state.network_filter(
                filter_state.told_caller(f"%DYNAMIC_METADATA({names.METADATA}:{CALLER})%"),
                filter_state.own_client(),
                filter_state.own_peer(),
            ),
            manager,
        ],
    )
    made = listener_pb2.Listener(
        name=name,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        listener_filters=listeners.original_addresses(),
        filter_chains=[chain],
    )
    made.metadata.filter_metadata[names.METADATA].update(
        {access_log.SERVICE: names.at_pod(pod, service), request_log.PORT: str(port)}
    )
    return made
