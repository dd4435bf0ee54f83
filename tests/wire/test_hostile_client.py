"""Random requests and random bytes from a peer with a certificate of the mesh: they reach no pod, port or address that
they may not, and end no more than their own connection."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
from h2.exceptions import H2Error
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.address import host_port
from ambit.core.names import RESERVED_PORTS
from ambit.model.policy import Action, Authorization, Clause, Match, Rule, Scope
from tests.plan.dataplane.conftest import Mesh, Pod
from tests.plan.dataplane.network import Host
from tests.soak import fuzz
from tests.wire.hbone import PORT, Client, Headers, context

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
CLIENT = "spiffe://cluster.local/ns/default/sa/client"
OPEN, CLOSED = 8650, 8651
"""Ports of `far`: nobody may talk to the second. Of all others who listen on the first, nobody is asked for."""
PATIENCE = 60.0


class Reached:
    """Which applications were reached, by name and port."""

    def __init__(self) -> None:
        self._found: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def listen(self, name: str, host: Host, port: int) -> socket.socket:
        return host.listen(port, lambda connection, _: self._note(name, port, connection))

    def _note(self, name: str, port: int, connection: socket.socket) -> None:
        with self._lock:
            self._found.append((name, port))
        connection.sendall(b"reached")

    def take(self) -> set[tuple[str, int]]:
        with self._lock:
            found, self._found = self._found, []
        return set(found)


@pytest.fixture
def reached(mesh: Mesh, outside: Host) -> Iterator[Reached]:
    reached = Reached()
    closed = Match(destination_ports=(CLOSED,))
    rule = Rule((Clause((closed,)),))
    mesh.policies = [Authorization("closed", "default", Scope.NAMESPACE, Action.DENY, (rule,))]
    mesh.update()
    with contextlib.ExitStack() as stack:
        for name, host in (("near", mesh.pods["near"]), ("far2", mesh.pods["far2"]), ("outside", outside)):
            stack.enter_context(reached.listen(name, host, OPEN))
        for port in (OPEN, CLOSED):
            stack.enter_context(reached.listen("far", mesh.pods["far"], port))
        yield reached


NAMES = st.sampled_from(
    [
        *(
            ":path",
            ":scheme",
            ":protocol",
            ":method",
            ":authority",
            ":status",
            "host",
            "te",
            "content-length",
        ),
        *("transfer-encoding", "connection", "upgrade", "x-envoy-original-dst-host", "x-forwarded-for"),
        *("x-envoy-original-path", "x-forwarded-client-cert", "baggage", "forwarded", "traceparent", "x"),
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        ["", "/", "h2c", "websocket", "chunked", "0", "-1", "99999999999999999999", "\0", "a\r\nb: c"]
    ),
    st.text(max_size=20),
    st.integers(1, 100_000).map(lambda size: "x" * size),
)
NOISE = st.binary(max_size=300)


@st.composite
def targets(draw: st.DrawFn, right: list[str], addresses: list[str]) -> str:
    """What is right, then in its spelling what is not: addresses and ports that exist and others."""
    if draw(st.integers(0, 2)) == 0:
        return draw(st.sampled_from(right))
    host = draw(
        st.one_of(
            st.sampled_from(
                [*addresses, "127.0.0.1", "::1", "0.0.0.0", "localhost", "far", "169.254.7.127", ""]
            ),
            st.text(max_size=8),
        )
    )
    port = draw(st.one_of(st.sampled_from([OPEN, CLOSED, PORT, *RESERVED_PORTS, 0]), st.integers(-1, 70_000)))
    shape = draw(st.sampled_from(["plain", "plain", "brackets", "mapped", "user", "two", "bare", "space"]))
    match shape:
        case "plain":
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case "brackets":
            return f"[{host}]:{port}"
        case "mapped":
            return f"[::ffff:{host}]:{port}"
        case "user":
            return f"a@{host}:{port}"
        case "two":
            return f"{host}:{port},{host}:{OPEN}"
        case "bare":
            return host
        case _:
            return f" {host}:{port}"


def own(far: Pod, port: int) -> set[str]:
    return {host_port(address, port) for address in far.addresses}


def asked(client: Client, method: str, authority: str, headers: Headers, body: bytes) -> str:
    """The status that a request gets; nothing when it, or the connection, ends without one."""
    try:
        stream = client.request(authority, headers, method=method)
        client.send(stream, body, end=True)
        return client.finished(stream).status
    except (ssl.SSLError, ConnectionError, H2Error, ValueError):
        return ""


def dialled(mesh: Mesh, outside: Host) -> Client:
    connection = outside.connect(mesh.pods["far"].four, PORT, timeout=PATIENCE)
    return Client(connection, context(mesh.authority, CLIENT, server=False))


def still_serves(mesh: Mesh, outside: Host, reached: Reached) -> None:
    """Honest requests are served, by the same Envoy."""
    far = mesh.pods["far"]
    client = dialled(mesh, outside)
    assert asked(client, "CONNECT", host_port(far.four, OPEN), [], b"") == "200"
    assert asked(client, "CONNECT", host_port(far.four, CLOSED), [], b"") == "401"
    client.close()
    assert far.agent.generations == [True]
    assert reached.take() == {("far", OPEN)}


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_request_gets_where_it_may_and_nowhere_else(mesh: Mesh, outside: Host, reached: Reached) -> None:
    far = mesh.pods["far"]
    hosts = (far, mesh.pods["near"], mesh.pods["far2"], outside)
    addresses = [str(address) for host in hosts for address in host.addresses]
    served: set[str] = set()

    @fuzz(60)
    @given(
        st.sampled_from([*["CONNECT"] * 6, "GET", "POST", "connect", "", "CONNECT\0"]),
        targets(sorted(own(far, OPEN) | own(far, CLOSED)), addresses),
        st.lists(st.tuples(NAMES, VALUES), max_size=3),
        NOISE,
    )
    def attempt(method: str, authority: str, headers: Headers, body: bytes) -> None:
        client = dialled(mesh, outside)
        status = asked(client, method, authority, headers, body)
        client.close()
        assert reached.take() <= {("far", OPEN)}
        if status == "200":
            assert method == "CONNECT"
            served.add(authority)

    attempt()
    assert served
    assert served <= own(far, OPEN)
    still_serves(mesh, outside, reached)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_bytes_that_are_no_http2_reach_nobody(mesh: Mesh, outside: Host, reached: Reached) -> None:
    """Before or after the preface, and frames of every type with random content."""
    made = context(mesh.authority, CLIENT, server=False)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body

    frames = st.builds(frame, st.integers(0, 12), st.integers(0, 255), st.sampled_from([0, 1, 2, 3]), NOISE)
    pieces = st.lists(st.one_of(st.just(preface + frame(4, 0, 0, b"")), frames, NOISE), max_size=5)

    @fuzz(40)
    @given(pieces)
    def attempt(sent: list[bytes]) -> None:
        connection = outside.connect(mesh.pods["far"].four, PORT, timeout=PATIENCE)
        with contextlib.suppress(ssl.SSLError, ConnectionError), made.wrap_socket(connection) as secured:
            secured.sendall(b"".join(sent))
        connection.close()
        assert reached.take() == set()

    attempt()
    still_serves(mesh, outside, reached)
