"""Listeners of a gateway at the edge: whoever can reach the pod can connect."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

from ambit.envoy import (
    defaults,
    names,
    request_log,
    request_manager,
    sockets,
    streams,
    tls,
    waypoint_services,
)
from ambit.envoy.words import ANY_V4, ANY_V6, pack, seconds, socket_address, uint32
from ambit.model.streams import Stream
from ambit.model.telemetry import RequestLog


def http(port: int, *, subject: str, families: Iterable[int], logs: Iterable[RequestLog] = ()) -> Any:
    """Requests in plain text, answered by the table of the port's name as the policies of `subject` permit."""
    name = names.gateway_port(port)
    manager = request_manager.at_the_edge(
        stat=waypoint_services.REQUESTS, table=name, subject=subject, logs=logs
    )
    chain = listener_components_pb2.FilterChain(name=name, filters=[manager])
    return _listener(port, families, filter_chains=[chain])


_REQUESTS = ("h2", "http/1.1")


class Secured(msgspec.Struct, frozen=True):
    """One listener of a port by TLS: `name` is that of its chains, with these secrets to end TLS with. Requests are
    answered by the table of that name; with `streams` nobody reads any. No `hostname`: everybody, also who says no
    name."""

    name: str
    secrets: tuple[str, ...]
    hostname: str = ""
    client_roots: str = ""
    """The secret with the roots of what clients are asked for."""
    must_verify: bool = True
    streams: tuple[Stream, ...] | None = None


def secured(
    port: int,
    own: Iterable[Secured],
    *,
    subject: str,
    families: Iterable[int],
    logs: Sequence[RequestLog] = (),
) -> Any:
    """What comes by TLS. The name in the client's hello chooses the listener; a name that none has ends the
    connection. A change of one listener drains no other's connections."""
    chains = [chain for each in own for chain in _chains(each, subject, logs)]
    inspector = listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.tls_inspector", typed_config=pack(tls_inspector_pb2.TlsInspector())
    )
    return _listener(port, families, filter_chains=chains, listener_filters=[inspector])


def tcp(port: int, given: Iterable[Stream], *, families: Iterable[int]) -> Any:
    """Bytes of whoever connects."""
    return _listener(port, families, filter_chains=streams.filter_chains(names.gateway_port(port), given))


def _chains(given: Secured, subject: str, logs: Iterable[RequestLog]) -> Iterator[Any]:
    if given.streams is not None:
        for chain in streams.filter_chains(given.name, given.streams):
            if given.secrets:
                _end_tls(chain, tls.public_server_socket(given.secrets))
            yield chain
        return
    manager = request_manager.at_the_edge(
        stat=waypoint_services.REQUESTS, table=given.name, subject=subject, logs=logs
    )
    chain = listener_components_pb2.FilterChain(name=given.name, filters=[manager])
    if given.hostname:
        chain.filter_chain_match.server_names.append(given.hostname)
    socket = tls.public_server_socket(given.secrets, _REQUESTS)
    if given.client_roots:
        socket = tls.asking_server_socket(
            given.secrets, _REQUESTS, given.client_roots, must=given.must_verify
        )
    _end_tls(chain, socket)
    yield chain


def _end_tls(chain: Any, socket: Any) -> None:
    chain.transport_socket.CopyFrom(socket)
    chain.transport_socket_connect_timeout.CopyFrom(seconds(defaults.HEADERS_TIMEOUT))


def _listener(port: int, families: Iterable[int], **more: Any) -> Any:
    metadata = base_pb2.Metadata()
    metadata.filter_metadata[names.METADATA].update({request_log.PORT: str(port)})
    hosts = [host for version, host in ((4, ANY_V4), (6, ANY_V6)) if version in set(families)]
    return listener_pb2.Listener(
        name=names.gateway_port(port),
        address=socket_address(hosts[0], port),
        additional_addresses=[
            listener_pb2.AdditionalAddress(address=socket_address(host, port)) for host in hosts[1:]
        ],
        metadata=metadata,
        traffic_direction="OUTBOUND",
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        socket_options=sockets.keepalive(),
        **more,
    )
