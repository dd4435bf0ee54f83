"""Listeners of a gateway at the edge: whoever can reach the pod can connect."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from envoy.config.core.v3 import base_pb2, udp_socket_config_pb2
from envoy.config.listener.v3 import (
    listener_components_pb2,
    listener_pb2,
    quic_config_pb2,
    udp_listener_config_pb2,
)
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

from ambit.core import hostnames
from ambit.envoy import defaults, matchers, names, sockets, streams, tcp_proxy, tls, waypoint_services
from ambit.envoy.http import manager as request_manager
from ambit.envoy.http.manager import Certificates
from ambit.envoy.http.telling import NOTHING, Told
from ambit.envoy.l7.admission import ANYBODY, Admission
from ambit.envoy.logs import request_log, stream_log
from ambit.envoy.words import ANY_V4, ANY_V6, boolean, pack, seconds, socket_address, udp_address, uint32
from ambit.model.proxy import TlsTerms
from ambit.model.streams import Stream

_NOBODY = "nobody"
"""Filter chain of connections for a name that nobody has."""
_MOST_NAMED = 64
"""Rules that deny have chains of their own, which name them in records; beyond, they share one."""


class Edge(msgspec.Struct, frozen=True):
    """What all listeners of a gateway have in common: `subject` is whom policies are for (`names.tokens`)."""

    subject: str
    families: tuple[int, ...]
    told: Told = NOTHING
    trusted_proxies: int = 0
    """Before it, whose word about a request's way counts."""
    places: int = 1
    """For others who authorize requests (`filters.chain`)."""


def http(port: int, *, edge: Edge) -> Any:
    """Requests in plain text, answered by the table of the port's name as the policies permit."""
    name = names.gateway_port(port)
    manager = _requests(name, port, edge)
    chain = listener_components_pb2.FilterChain(name=name, filters=[manager])
    return _listener(port, edge.families, filter_chains=[chain])


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
    terms: TlsTerms = TlsTerms()
    streams: tuple[Stream, ...] | None = None


def secured(port: int, own: Iterable[Secured], *, edge: Edge, admission: Admission = ANYBODY) -> Any:
    """What comes by TLS. The name in the client's hello chooses the listener; a name that none has ends the
    connection. A change of one listener, or of the `admission` to bytes, drains no other's connections."""
    found = [(each, chain) for each in own for chain in _chains(each, port, edge)]
    inspector = listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.tls_inspector", typed_config=pack(tls_inspector_pb2.TlsInspector())
    )
    made = _listener(
        port, edge.families, filter_chains=[chain for _, chain in found], listener_filters=[inspector]
    )
    if not admission.is_open and any(each.streams is not None for each, _ in found):
        judged = {chain.name for each, chain in found if each.streams is not None}
        _judge(made, admission, judged)
    return made


def tcp(port: int, given: Iterable[Stream], *, edge: Edge, admission: Admission = ANYBODY) -> Any:
    """Bytes of whoever connects and may."""
    chains = streams.filter_chains(names.gateway_port(port), given, names.judged(edge.subject, port))
    made = _listener(port, edge.families, filter_chains=chains)
    if not admission.is_open:
        _judge(made, admission, {each.name for each in chains})
    return made


def quic(port: int, own: Iterable[Secured], *, edge: Edge) -> Any:
    """What comes by QUIC: requests of HTTP/3, for those listeners of the port's that take them."""
    return _listener(
        port,
        edge.families,
        name=names.gateway_quic_port(port),
        is_udp=True,
        filter_chains=[_quic_chain(each, port, edge) for each in own],
        udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(
            downstream_socket_config=udp_socket_config_pb2.UdpSocketConfig(prefer_gro=boolean(True)),
            quic_options=quic_config_pb2.QuicProtocolOptions(
                quic_protocol_options=request_manager.quic_options(),
                crypto_handshake_timeout=seconds(defaults.HEADERS_TIMEOUT),
            ),
        ),
    )


def _quic_chain(given: Secured, port: int, edge: Edge) -> Any:
    manager = _requests(given.name, port, edge, by_quic=True)
    chain = listener_components_pb2.FilterChain(name=given.name, filters=[manager])
    if given.hostname:
        chain.filter_chain_match.server_names.append(given.hostname)
    chain.transport_socket.CopyFrom(tls.public_quic_socket(given.secrets))
    return chain


def _judge(listener: Any, admission: Admission, judged: Collection[str]) -> None:
    """Has a matcher choose the chains, as the names in them would, and in front of the `judged` who may."""
    denied = dict.fromkeys(admission.denying, stream_log.DENIED)
    denied |= {rule: f"{stream_log.DENIED}|{rule}" for rule in list(denied)[:_MOST_NAMED] if rule}
    by_name = [(name, chain) for chain in listener.filter_chains for name in _server_names(chain)]
    rows = []
    for name, chain in sorted(by_name, key=lambda each: hostnames.by_precision(each[0] or hostnames.ANY)):
        taken = matchers.filter_chain(chain.name)
        if chain.name in judged:
            taken = matchers.nested(
                admission.matcher(taken, lambda rule: matchers.filter_chain(denied[rule]))
            )
        rows.append((matchers.server_name(_pattern(name)) if name else True, taken))
    for name in dict.fromkeys(denied.values()):
        refused = tcp_proxy.fixed(names.REFUSED, stream_log.every())
        listener.filter_chains.add(name=name, filters=[refused])
    listener.filter_chains.add(name=_NOBODY, filters=[tcp_proxy.fixed(names.REFUSED)])
    listener.filter_chain_matcher.CopyFrom(matchers.first_match(rows, matchers.filter_chain(_NOBODY)))


def _server_names(chain: Any) -> Sequence[str]:
    return list(chain.filter_chain_match.server_names) or [""]


def _pattern(name: str) -> str:
    """Names are compared as Envoy compares those of chains: `*.` stands for any number of labels."""
    if name.startswith("*."):
        return rf"(?i)\C+{re.escape(name[1:])}"
    return f"(?i){re.escape(name)}"


def _chains(given: Secured, port: int, edge: Edge) -> Iterator[Any]:
    if given.streams is not None:
        judged = names.judged(edge.subject, port)
        for chain in streams.filter_chains(given.name, given.streams, judged):
            if given.secrets:
                _end_tls(chain, tls.public_server_socket(given.secrets, terms=given.terms))
            yield chain
        return
    manager = _requests(given.name, port, edge, _certificates(given))
    chain = listener_components_pb2.FilterChain(name=given.name, filters=[manager])
    if given.hostname:
        chain.filter_chain_match.server_names.append(given.hostname)
    socket = tls.public_server_socket(given.secrets, _REQUESTS, given.terms)
    if given.client_roots:
        socket = tls.asking_server_socket(
            given.secrets, _REQUESTS, given.client_roots, must=given.must_verify, terms=given.terms
        )
    _end_tls(chain, socket)
    yield chain


def _certificates(given: Secured) -> Certificates:
    if not given.client_roots:
        return Certificates.NONE
    return Certificates.VERIFIED if given.must_verify else Certificates.UNVERIFIED


def _requests(
    table: str,
    port: int,
    edge: Edge,
    certificates: Certificates = Certificates.NONE,
    *,
    by_quic: bool = False,
) -> Any:
    return request_manager.at_the_edge(
        stat=waypoint_services.REQUESTS,
        table=table,
        subject=edge.subject,
        port=port,
        told=edge.told,
        trusted_proxies=edge.trusted_proxies,
        places=edge.places,
        certificates=certificates,
        by_quic=by_quic,
    )


def _end_tls(chain: Any, socket: Any) -> None:
    chain.transport_socket.CopyFrom(socket)
    chain.transport_socket_connect_timeout.CopyFrom(seconds(defaults.HEADERS_TIMEOUT))


def _listener(
    port: int, families: Iterable[int], *, name: str = "", is_udp: bool = False, **more: Any
) -> Any:
    metadata = base_pb2.Metadata()
    metadata.filter_metadata[names.METADATA].update({request_log.PORT: str(port)})
    hosts = [host for version, host in ((4, ANY_V4), (6, ANY_V6)) if version in set(families)]
    places = [udp_address(host, port) if is_udp else socket_address(host, port) for host in hosts]
    return listener_pb2.Listener(
        name=name or names.gateway_port(port),
        address=places[0],
        additional_addresses=[listener_pb2.AdditionalAddress(address=each) for each in places[1:]],
        metadata=metadata,
        traffic_direction="OUTBOUND",
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        socket_options=() if is_udp else sockets.keepalive(),
        **more,
    )
