"""The gRPC server of the control plane: TLS for nodes, plaintext on loopback.

Options: pings every 10 s are allowed without data, for a stock ztunnel pings an idle stream every 30 s and grpc would
otherwise end its connection for "too many pings" every two minutes.
"""

import asyncio
import datetime as dt
import ipaddress
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.ca.authority import Authority
from ambit.control.discovery import Discovery
from ambit.control.identity import certificates
from ambit.control.identity.certificates import CertificateService
from ambit.control.turns import FairSemaphore, Overloaded
from ambit.core.errors import EnvironmentProblem
from ambit.xds import wire

LARGEST_MESSAGE = 12 << 20
"""Bytes of a request."""
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # gRPC has one limit for all methods, which it applies before it allocates: a node's first request lists the version
    # of every resource that the node has kept, about 80 bytes each.
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", -1),
    # A compressed message would be larger in memory than on the wire; no agent sends one.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # What a stream may send before a handler reads it. gRPC would raise it to megabytes for fast senders.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 16 * 1024),
    ("grpc.max_concurrent_streams", 128),
    # Who opens connections and says nothing must not keep them for two minutes, the default.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A node has two connections. Strangers are seen to by ambit.control.identity.guard; these bound what it cannot
    # see in time.
    ("grpc.max_allowed_incoming_connections", 3_000),
    ("grpc.max_connection_idle_ms", 600_000),
    # Two servers on one port would silently share its clients.
    ("grpc.so_reuseport", 0),
)


STARTING = 256
"""Calls of one address that wait until the control plane has started."""


class ServerCertificate:
    """The server's own certificate, issued by who signs now and renewed at half of its life."""

    def __init__(
        self, authority: Callable[[], Authority], names: Sequence[str], wall: Callable[[], dt.datetime]
    ) -> None:
        self._authority = authority
        self._names = [x509.DNSName(name) for name in names]
        self._addresses = [
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
        self._wall = wall
        self._issued = self._renew_at = wall()
        self._signer = ""

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(self._issue(), self._renewed)

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by grpc, on its own threads, for each handshake; None keeps what is in use.

        A clock that was set back makes the certificate one of the future: that is renewed, too.
        """
        now = self._wall()
        current = self._issued <= now < self._renew_at and self._signer == self._authority().signer
        return None if current else self._issue()

    def _issue(self) -> grpc.ServerCertificateConfiguration:
        now, authority = self._wall(), self._authority()
        key = ec.generate_private_key(ec.SECP256R1())
        *chain, _ = authority.issue_server([*self._names, *self._addresses], key.public_key(), now)
        end = x509.load_pem_x509_certificate(chain[0].encode()).not_valid_after_utc
        self._issued, self._renew_at, self._signer = now, now + (end - now) / 2, authority.signer
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return grpc.ssl_server_certificate_configuration([(pem, "".join(chain).encode())])


def make_server(
    discovery: Discovery, signing: CertificateService, complete: asyncio.Event
) -> grpc.aio.Server:
    """A server with both services and no port yet. Calls wait until `complete` is set: then all is known.

    Both methods are served as streams of requests, also the unary one: gRPC would read its message before it calls the
    handler, which authenticates the caller first.
    """
    server = grpc.aio.server(options=OPTIONS)
    starting = FairSemaphore(STARTING, STARTING, 0)

    async def begin(context: Any) -> None:
        if complete.is_set():
            return
        try:
            async with starting.hold(context.peer().rpartition(":")[0]):
                await complete.wait()
        except Overloaded:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the control plane starts, and many calls wait")

    async def serve(requests: AsyncIterator[bytes], context: Any) -> None:
        await begin(context)
        await discovery.serve(requests, context)

    async def create(_: AsyncIterator[bytes], context: Any) -> bytes:
        await begin(context)
        return await signing.create(context)

    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                wire.SERVICE, {wire.METHOD_NAME: grpc.stream_stream_rpc_method_handler(serve)}
            ),
            grpc.method_handlers_generic_handler(
                certificates.SERVICE,
                {certificates.METHOD: grpc.stream_unary_rpc_method_handler(create)},
            ),
        )
    )
    return server


def listen_tls(server: grpc.aio.Server, address: str, port: int, credentials: grpc.ServerCredentials) -> int:
    """Bind the TLS port and return it; a host without IPv6 gets IPv4 only. Raises EnvironmentProblem."""
    problem: Exception | None = None
    for host in dict.fromkeys((address, "0.0.0.0" if address == "[::]" else address)):  # noqa: S104 - nodes call it
        try:
            return int(server.add_secure_port(f"{host}:{port}", credentials))
        except RuntimeError as error:
            problem = error
    raise EnvironmentProblem(
        f"port {port} cannot be bound: {problem}", "another control plane may be running here"
    )


def listen_plain(server: grpc.aio.Server, port: int) -> int:
    """Bind the plaintext port on loopback and return it. Raises EnvironmentProblem."""
    try:
        return int(server.add_insecure_port(f"127.0.0.1:{port}"))
    except RuntimeError as error:
        raise EnvironmentProblem(
            f"port {port} cannot be bound on loopback: {error}", "another control plane may be running here"
        ) from None
