"""Tunnels of another implementation's client to our nodes, as a ztunnel's would be."""

import contextlib
import secrets
import socket
import ssl
from collections.abc import Iterator

import pytest

from ambit.core.address import host_port
from ambit.envoy.names import trace_prefix
from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Rule, Scope
from ambit.node.flows.entry import About
from tests.plan.dataplane.conftest import Authority, Mesh, Pod
from tests.plan.dataplane.network import Host
from tests.plan.dataplane.served import until
from tests.wire.hbone import PORT, Client, Headers, context

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
CLIENT = "spiffe://cluster.local/ns/default/sa/client"
SERVED = 8600
"""Where `far` listens in this file, and says how much it heard."""
TRACE = "0af7651916cd43dd8448eb211c80319c"
BAGGAGE = "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.pod.name=outside"


def said(source: Host, trace: str = TRACE) -> Headers:
    """The headers of a ztunnel."""
    return [
        ("baggage", BAGGAGE),
        ("forwarded", f'for="{source.four}:40000";host=web.default.svc.cluster.local'),
        ("traceparent", f"00-{trace}-b7ad6b7169203331-00"),
    ]


@pytest.fixture
def far(mesh: Mesh) -> Iterator[Pod]:
    pod = mesh.pods["far"]
    with pod.listen(SERVED):
        yield pod


@pytest.fixture
def client(mesh: Mesh, outside: Host, far: Pod) -> Iterator[Client]:
    with dialled(outside, far, context(mesh.authority, CLIENT, server=False)) as client:
        yield client


@contextlib.contextmanager
def dialled(outside: Host, server: Pod, made: ssl.SSLContext) -> Iterator[Client]:
    client = Client(outside.connect(server.four, PORT), made)
    try:
        yield client
    finally:
        client.close()


def test_bytes_and_ends_go_both_ways(client: Client, far: Pod, outside: Host, mesh: Mesh) -> None:
    """The application sees the client's address; END_STREAM is the end of one side only."""
    trace = secrets.token_hex(16)
    stream = client.request(f"{far.four}:{SERVED}", said(outside, trace))
    assert client.answered(stream).status == "200"
    client.send(stream, b"x" * 10_000)
    client.send(stream, b"y" * 10_000, end=True)
    answer = client.finished(stream)
    assert answer.body == f"{outside.four} 20000".encode()
    assert answer.reset is None
    until(lambda: trace in traces(far), "a line of this trace")
    entry = traces(far)[trace]
    assert (entry.identity, entry.called, entry.baggage) == (CLIENT, "web.default.svc.cluster.local", BAGGAGE)


def test_streams_of_a_connection_are_independent(client: Client, far: Pod, outside: Host) -> None:
    """One is refused and one given up; the others go on."""
    first = client.request(f"{far.four}:{SERVED}", said(outside))
    refused = client.request("10.0.0.1:80", said(outside))
    given_up = client.request(f"{far.four}:{SERVED}", said(outside))
    last = client.request(f"{far.four}:{SERVED}", said(outside))
    assert client.answered(refused).status == "400"
    client.http.reset_stream(given_up, error_code=8)
    client.flush()
    for stream in (first, last):
        client.send(stream, b"abc", end=True)
        assert client.finished(stream).body.endswith(b" 3")


@pytest.mark.parametrize(
    ("authority", "method", "status"),
    [
        ("10.0.0.1:80", "CONNECT", "400"),
        ("nonsense", "CONNECT", "400"),
        ("{far}", "CONNECT", "400"),
        ("{far}:15001", "CONNECT", "503"),
        ("{far}:15006", "CONNECT", "503"),
        ("{far}:15008", "CONNECT", "503"),
        ("{far}:1", "CONNECT", "503"),
    ],
)
def test_refusals_have_ztunnels_numbers(
    client: Client, far: Pod, outside: Host, authority: str, method: str, status: str
) -> None:
    """503 at port 1: nobody listens there."""
    stream = client.request(authority.format(far=far.four), said(outside), method=method)
    assert client.answered(stream).status == status


def test_a_policy_refuses_with_401_and_the_next_stream_may_pass(
    mesh: Mesh, client: Client, far: Pod, outside: Host
) -> None:
    deny = Authorization(
        "no-clients",
        "default",
        Scope.NAMESPACE,
        Action.DENY,
        (Rule((Clause((Match(principals=(Exact(CLIENT.removeprefix("spiffe://")),)),)),)),),
    )
    mesh.policies = [deny]
    mesh.update()
    stream = client.request(f"{far.four}:{SERVED}", said(outside))
    assert client.finished(stream).status == "401"
    mesh.policies = []
    mesh.update()
    stream = client.request(f"{far.four}:{SERVED}", said(outside))
    assert client.answered(stream).status == "200"


def test_both_families_are_served(mesh: Mesh, outside: Host, far: Pod) -> None:
    made = context(mesh.authority, CLIENT, server=False)
    for address in far.addresses:
        client = Client(outside.connect(address, PORT), made)
        stream = client.request(host_port(address, SERVED), said(outside))
        assert client.answered(stream).status == "200"
        client.close()


def test_the_server_pings_and_the_connection_stays(client: Client, far: Pod, outside: Host) -> None:
    """Our pings are answered, a ping of the peer is; so an idle connection is not given up by either."""
    client.http.ping(b"12345678")
    stream = client.request(f"{far.four}:{SERVED}", said(outside))
    assert client.answered(stream).status == "200"
    assert client.acknowledged == 1


@pytest.mark.parametrize("name", ["baggage", "forwarded", "x-unknown"])
@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "written out"])
def test_oversized_headers_end_no_more_than_their_connection(
    mesh: Mesh, client: Client, far: Pod, outside: Host, name: str, is_packed: bool
) -> None:
    """200 KB of headers reach no application, also when compression makes 4 KB of them; others do not notice."""
    headers = [(name, ("x" if is_packed else f"{number}") * 2000) for number in range(100)]
    made = context(mesh.authority, CLIENT, server=False)
    with dialled(outside, far, made) as other:
        open_before = other.request(f"{far.four}:{SERVED}", said(outside))
        assert other.answered(open_before).status == "200"
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            stream = client.request(f"{far.four}:{SERVED}", headers)
            assert client.finished(stream).status != "200"
        other.send(open_before, b"still here", end=True)
        assert other.finished(open_before).body.endswith(b" 10")


@pytest.mark.parametrize("traceparent", ["0" * 55, "-" * 55, "\t" * 55, "00-x-y-00", ""])
def test_a_nonsensical_trace_is_no_reason_to_refuse(
    client: Client, far: Pod, outside: Host, traceparent: str
) -> None:
    stream = client.request(f"{far.four}:{SERVED}", [("traceparent", f"a{traceparent}a")])
    assert client.answered(stream).status == "200"


def test_who_speaks_no_http2_is_not_served(mesh: Mesh, outside: Host, far: Pod) -> None:
    made = context(mesh.authority, CLIENT, server=False)
    made.set_alpn_protocols(["http/1.1"])
    with contextlib.suppress(ssl.SSLError, ConnectionError), socket.socket():
        secured = made.wrap_socket(outside.connect(far.four, PORT))
        secured.sendall(f"CONNECT {far.four}:{SERVED} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert not secured.recv(100).startswith(b"HTTP/1.1 200")


def test_tls_1_2_and_strangers_are_refused(mesh: Mesh, outside: Host, far: Pod) -> None:
    """A version, an authority and a trust domain that are not the mesh's."""
    old = context(mesh.authority, CLIENT, server=False)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    stranger = context(Authority(), CLIENT, server=False)
    stranger.verify_mode = ssl.CERT_NONE
    foreign = context(mesh.authority, "spiffe://elsewhere/ns/default/sa/client", server=False)
    for made in (old, stranger, foreign):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client = Client(outside.connect(far.four, PORT), made)
            stream = client.request(f"{far.four}:{SERVED}", said(outside))
            assert client.answered(stream).status == "", "served"
            raise ConnectionError


def test_both_sides_of_a_tunnel_record_one_trace(mesh: Mesh, far: Pod, way: str) -> None:
    """Whichever way it took into its tunnel."""
    source, port = mesh.pods["a"], SERVED + 1 + (way == "hop")
    with far.listen(port):
        assert source.ask(far.four, port) == f"{source.four} 2"

    def sent() -> set[str]:
        prefix = trace_prefix(source.local.key)
        lines = [line for about, line in source.agent.log if about.destination == f"{far.four}:{port}"]
        return {f"{prefix}{started:019d}" for started, *_ in lines}

    until(lambda: bool(sent() & traces(far).keys()), "lines of both sides")


def traces(server: Pod) -> dict[str, About]:
    """What a server's node has logged about tunnels, by their trace."""
    return {line[5].hex(): about for about, line in server.agent.log if about.kind == "inbound"}
