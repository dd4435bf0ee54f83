"""Clients made by hand, with and without a right certificate, against the HBONE port of a pod."""

import contextlib
import itertools
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.core.address import host_port
from ambit.core.names import RESERVED_PORTS
from tests.plan.dataplane.conftest import Authority, Mesh
from tests.plan.dataplane.connect_client import ConnectClient
from tests.plan.dataplane.network import Host

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
PORTS = itertools.count(8300)
"""One per test: a listener's accept keeps its port for a while."""
CLIENT = "spiffe://cluster.local/ns/default/sa/client"


class Reached:
    """Notes which application was reached; nobody should be."""

    def __init__(self, mesh: Mesh) -> None:
        self.names: list[str] = []
        self.port = next(PORTS)
        self._mesh = mesh

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name in ("far", "far2", "near"):
                stack.enter_context(
                    self._mesh.pods[name].listen(
                        self.port, lambda _, client, name=name: self.names.append(name)
                    )
                )
            yield


def context(directory: Path, authority: Authority, uri: str) -> ssl.SSLContext:
    """A client that believes any server; no certificate without `uri`."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(["h2"])
    if uri:
        chain, key = authority.certificate(uri)
        (directory / "client.pem").write_text(key + chain)
        made.load_cert_chain(directory / "client.pem")
    return made


def dial(mesh: Mesh, outside: Host, made: ssl.SSLContext) -> ConnectClient:
    """From outside of the mesh: the attacker has its own tools."""
    return ConnectClient(outside.connect(mesh.pods["far"].four, 15008), made)


def went_through(client: ConnectClient, authority: str) -> bool:
    try:
        return client.is_allowed(authority)
    except AssertionError:
        # What is no name at all may end the whole connection.
        return False


def test_a_tunnel_leads_to_its_own_pod_and_nowhere_else(mesh: Mesh, outside: Host, tmp_path: Path) -> None:
    reached = Reached(mesh)
    port = reached.port
    far, far2, near = mesh.pods["far"], mesh.pods["far2"], mesh.pods["near"]
    made = context(tmp_path, mesh.authority, CLIENT)
    foreign = [
        *(host_port(address, port) for address in (*far2.addresses, *near.addresses)),
        *(f"{host}:{port}" for host in ("127.0.0.1", "[::1]", "0.0.0.0", "[::]", "localhost")),
        *(f"{host}:{port}" for host in ("far", f"[::ffff:{far.four}]", str(far.six), f"a@{far.four}")),
        *(f"[{far.six}]".upper() + f":{port}", f"{far.four}:0{port}", f"{far.four}:{port + 65536}"),
        *(f"{far.four}", f"{far.four}:", f"{far.four}:0", f"{far.four}:{port}/", f" {far.four}:{port}", ""),
        *(host_port(address, each) for address in far.addresses for each in sorted(RESERVED_PORTS)),
    ]
    with reached.listening():
        for authority in foreign:
            with contextlib.closing(dial(mesh, outside, made)) as client:
                assert not went_through(client, authority), authority
        assert reached.names == []
        with contextlib.closing(dial(mesh, outside, made)) as client:
            assert client.is_allowed(host_port(far.four, port))


@pytest.mark.parametrize(
    ("uri", "stranger"),
    [
        ("", False),
        (CLIENT, True),
        ("spiffe://elsewhere.example/ns/default/sa/client", False),
        ("https://cluster.local/ns/default/sa/client", False),
    ],
    ids=["no certificate", "another authority", "another trust domain", "no SPIFFE name"],
)
def test_who_has_no_right_certificate_is_refused(
    mesh: Mesh, outside: Host, tmp_path: Path, uri: str, stranger: bool
) -> None:
    authority = Authority() if stranger else mesh.authority
    reached = Reached(mesh)
    with reached.listening(), pytest.raises((ssl.SSLError, ConnectionResetError)):
        dial(mesh, outside, context(tmp_path, authority, uri)).is_allowed(
            host_port(mesh.pods["far"].four, reached.port)
        )
    assert reached.names == []


def test_without_tls_or_connect_there_is_no_answer_of_an_application(
    mesh: Mesh, outside: Host, tmp_path: Path
) -> None:
    far = mesh.pods["far"]
    reached = Reached(mesh)
    request = f"GET / HTTP/1.1\r\nHost: {far.four}:{reached.port}\r\n\r\n".encode()
    with reached.listening():
        with outside.connect(far.four, 15008) as plain:
            plain.sendall(request)
            assert _rest(plain) == b""
        made = context(tmp_path, mesh.authority, CLIENT)
        made.set_alpn_protocols(["http/1.1"])
        with (
            contextlib.suppress(ssl.SSLError),
            made.wrap_socket(outside.connect(far.four, 15008)) as old,
        ):
            old.sendall(request)
            assert b" 200 " not in _rest(old)
    assert reached.names == []


def _rest(connection: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1000)
    return b""
