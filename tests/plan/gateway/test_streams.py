"""Connections at a gateway that nobody reads requests in: TLS passed through or ended, and TCP."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.build import Given, authorization_policy, service
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import listener, route, to, to_edge
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.plan.dataplane.network import REFUSED, read_all
from tests.plan.gateway.conftest import Edge
from tests.plan.gateway.test_https import AUTHORITY, ask, client_context, connect

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

PLAIN, SECURE = 9000, 9443
SERVERS = Authority("servers")


@pytest.fixture(scope="module", autouse=True)
def servers(edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each server says its name, in plain text and by TLS with a certificate of its own."""
    listening = []
    for name, host in edge.servers.items():
        directory = tmp_path_factory.mktemp(name)
        context = _server_context(directory)

        def say(connection: socket.socket, _: str, name: str = name) -> None:
            connection.sendall(name.encode() + b":" + connection.recv(100))

        def say_by_tls(
            connection: socket.socket, _: str, name: str = name, context: ssl.SSLContext = context
        ) -> None:
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.sendall(name.encode() + b":" + secure.recv(100))

        listening += [host.listen(PLAIN, say), host.listen(SECURE, say_by_tls)]
    yield
    for each in listening:
        each.close()


def _server_context(directory: Path) -> ssl.SSLContext:
    pair = SERVERS.pair("a.example.com", "b.example.com")
    (directory / "pair.pem").write_text(pair.chain + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "pair.pem")
    return context


def services() -> list[Given]:
    return [
        service(f"{name}-{kind}", {"app": name}, ip=f"10.96.7.{number}{port % 10}", port=port, target=port)
        for number, name in enumerate(("one", "two"), 1)
        for kind, port in (("tcp", PLAIN), ("tls", SECURE))
    ]


def tls_route(
    backend: str, *hostnames: str, name: str = "tls", port: int = SECURE, section: str = ""
) -> Given:
    rule = {"backendRefs": [to(backend, port)]}
    parents = ({"name": "edge", **({"sectionName": section} if section else {})},)
    return route(rule, name=name, parents=parents, kind="tlsroutes", hostnames=list(hostnames))


def tcp_route(*backends: str, created: str = "2026-01-01T00:00:00Z", name: str = "tcp") -> Given:
    rule = {"backendRefs": [to(each, PLAIN) for each in backends]}
    return route(rule, name=name, parents=({"name": "edge"},), kind="tcproutes", created=created)


def passthrough(name: str = "pass", **more: str) -> dict[str, object]:
    return listener(name, 443, "TLS", tls={"mode": "Passthrough"}, **more)


def say(edge: Edge, name: str | None, authority: Authority) -> str:
    """What the server says that this name leads to, by TLS of this authority; or that nobody does. Without a name its
    certificate's is not looked at."""
    context = client_context(authority)
    context.check_hostname = name is not None
    try:
        plain = edge.client.connect(edge.host.four, 443)
        with context.wrap_socket(plain, server_hostname=name) as connection:
            connection.sendall(b"hi")
            return connection.recv(100).decode()
    except (ssl.SSLCertVerificationError, ssl.SSLEOFError, ConnectionError) as problem:
        return "another" if isinstance(problem, ssl.SSLCertVerificationError) else REFUSED


def test_tls_is_passed_through_by_the_name_in_the_hello(edge: Edge) -> None:
    edge.apply(
        *services(),
        gateway(passthrough(hostname="*.example.com")),
        tls_route("one-tls", "a.example.com"),
        tls_route("two-tls", "b.example.com", "c.other.org", name="second"),
    )
    assert say(edge, "a.example.com", SERVERS) == "one:hi"
    assert say(edge, "b.example.com", SERVERS) == "two:hi"
    assert say(edge, "c.example.com", SERVERS) == REFUSED
    assert say(edge, "c.other.org", SERVERS) == REFUSED


def test_tls_is_ended_and_bytes_go_on_plainly(edge: Edge) -> None:
    ending = {**https("end", "a", hostname="a.example.com"), "protocol": "TLS"}
    edge.apply(
        *services(),
        secret("a", AUTHORITY.pair("a.example.com")),
        gateway(ending),
        tls_route("one-tcp", "a.example.com", port=PLAIN),
    )
    assert say(edge, "a.example.com", AUTHORITY) == "one:hi"


@pytest.mark.feature("N28")
def test_a_tcp_route_has_the_names_of_a_tls_listener_that_no_tls_route_has(edge: Edge) -> None:
    hosts = ("a.example.com", "b.example.com")
    ending = {**https("end", "a", hostname="*.example.com"), "protocol": "TLS"}
    edge.apply(
        *services(),
        secret("a", AUTHORITY.pair(*hosts)),
        gateway(ending),
        tcp_route("one-tcp", name="oldest"),
        tcp_route("gone", created="2026-02-01T00:00:00Z", name="next"),
        route(
            {"backendRefs": [to("two-tcp", PLAIN)]},
            name="newest",
            parents=({"name": "edge"},),
            kind="tlsroutes",
            hostnames=["b.example.com"],
            created="2026-03-01T00:00:00Z",
        ),
    )
    assert [say(edge, each, AUTHORITY) for each in hosts] == ["one:hi", "two:hi"]
    assert say(edge, "other.org", AUTHORITY) == REFUSED


def test_a_tls_listener_for_any_name_takes_all_connections_to_a_tcp_route(edge: Edge) -> None:
    edge.apply(
        *services(),
        secret("a", AUTHORITY.pair("a.example.com")),
        gateway({**https("end", "a"), "protocol": "TLS"}),
        tcp_route("one-tcp"),
    )
    assert say(edge, "a.example.com", AUTHORITY) == say(edge, None, AUTHORITY) == "one:hi"


@pytest.mark.feature("N28")
def test_requests_and_streams_share_a_port_by_name(edge: Edge) -> None:
    """A more specific listener keeps its names, whatever routes of others say."""
    ending = {**https("end", "a", hostname="a.example.com"), "protocol": "TLS"}
    edge.apply(
        *services(),
        secret("a", AUTHORITY.pair("a.example.com", "b.example.com")),
        gateway(ending, https("https", "a", hostname="b.example.com"), passthrough(hostname="*.example.com")),
        tls_route("one-tcp", "a.example.com", port=PLAIN, section="end"),
        tls_route("two-tls", "a.example.com", "b.example.com", "*.example.com", name="p", section="pass"),
        to_edge({"backendRefs": [to("one")]}),
    )
    assert say(edge, "a.example.com", AUTHORITY) == "one:hi"
    assert say(edge, "b.example.com", SERVERS) == "another"
    assert say(edge, "c.example.com", SERVERS) == "another", "the server has no such name: it was reached"


def test_a_backend_that_does_not_exist_refuses(edge: Edge) -> None:
    edge.apply(*services(), gateway(passthrough()), tls_route("gone", "a.example.com"))
    assert say(edge, "a.example.com", SERVERS) == REFUSED


def test_tcp_goes_where_the_oldest_route_says(edge: Edge) -> None:
    edge.apply(
        *services(),
        gateway(listener("tcp", PLAIN, "TCP")),
        tcp_route("one-tcp", name="z"),
        tcp_route("two-tcp", created="2026-02-01T00:00:00Z", name="a"),
    )
    assert {edge.client.ask(edge.host.four, PLAIN) for _ in range(5)} == {"one:hi"}


def said(edge: Edge, port: int) -> str:
    """What a server says that speaks first; nothing when nobody may hear it."""
    try:
        with edge.client.connect(edge.host.four, port) as client:
            return client.recv(100).decode()
    except OSError:
        return ""


def test_who_may_not_connect_hears_nothing(edge: Edge) -> None:
    """Not even of a server that speaks first; which rule it is that denies counts, and open connections go on."""
    first = 9100
    listening = edge.servers["one"].listen(first, lambda connection, _: connection.sendall(b"hello"))
    objects = [
        service("first", {"app": "one"}, ip="10.96.7.99", port=first, target=first),
        *services(),
        gateway(listener("first", first, "TCP"), listener("tcp", PLAIN, "TCP")),
        route(
            {"backendRefs": [to("first", first)]},
            parents=({"name": "edge", "sectionName": "first"},),
            kind="tcproutes",
        ),
        tcp_route("one-tcp"),
    ]
    mine, others = [f"{edge.client.four}/32"], ["203.0.113.0/24"]

    def rule(**source: Any) -> dict[str, Any]:
        return {"from": [{"source": source}]}

    def reached(action: str, *rules: dict[str, Any], **more: Any) -> tuple[str, str]:
        edge.apply(*objects, authorization_policy("p", action=action, rules=list(rules), **more))
        return said(edge, first), edge.client.ask(edge.host.four, PLAIN)

    free, shut = ("hello", "one:hi"), ("", REFUSED)
    edge.apply(*objects)
    edge.settle()
    with edge.client.connect(edge.host.four, PLAIN) as kept:
        assert reached("ALLOW") == shut
        assert reached("ALLOW", selector={"app": "one"}) == free
        assert reached("ALLOW", rule(ipBlocks=mine)) == free
        assert reached("ALLOW", rule(ipBlocks=others)) == shut
        assert reached("DENY", rule(ipBlocks=mine)) == shut
        assert reached("DENY", rule(ipBlocks=others)) == free
        assert reached("DENY", rule(notIpBlocks=mine)) == free
        assert reached("DENY", {"to": [{"operation": {"ports": [str(first)]}}]}) == ("", "one:hi")
        assert reached("DENY", {"when": [{"key": "destination.ip", "values": [f"{edge.host.four}"]}]}) == shut
        # What nobody sees of bytes counts as it is stricter.
        assert reached("ALLOW", {"to": [{"operation": {"paths": ["/a"]}}]}) == shut
        assert reached("DENY", {"to": [{"operation": {"paths": ["/a"]}}]}) == shut
        assert reached("DENY", {"to": [{"operation": {"ports": [str(first)], "methods": ["GET"]}}]}) == (
            "",
            "one:hi",
        )
        assert reached("ALLOW", rule(namespaces=["default"])) == shut
        assert reached("DENY", rule(notPrincipals=["a/ns/b/sa/c"])) == shut
        assert reached("DENY", {}, annotations={"istio.io/dry-run": "true"}) == free
        kept.sendall(b"old")
        kept.shutdown(socket.SHUT_WR)
        assert read_all(kept) == b"one:old"
    listening.close()


def test_names_in_the_hello_are_judged_and_chosen_as_without_policies(edge: Edge) -> None:
    ending = {**https("end", "a", hostname="*.b.example.com"), "protocol": "TLS"}
    objects = [
        *services(),
        secret("a", AUTHORITY.pair("x.b.example.com", "web.example.com")),
        gateway(
            passthrough(hostname="*.example.com"), ending, https("https", "a", hostname="web.example.com")
        ),
        tls_route("two-tls", "*.example.com", name="p", section="pass"),
        tls_route("one-tcp", "*.b.example.com", port=PLAIN, section="end"),
        to_edge({"backendRefs": [to("one")]}),
    ]

    def reached(*policies: Given) -> list[str]:
        edge.apply(*objects, *policies)
        with contextlib.closing(connect(edge, "web.example.com")) as connection:
            status = str(ask(connection, "web.example.com").status)
        return [say(edge, "a.example.com", SERVERS), say(edge, "x.b.example.com", AUTHORITY), status]

    def hello(action: str, *names: str) -> Given:
        rules = [{"when": [{"key": "connection.sni", "values": list(names)}]}]
        return authorization_policy("p", action=action, rules=rules)

    assert reached() == ["two:hi", "one:hi", "200"]
    assert reached(hello("ALLOW", "*")) == ["two:hi", "one:hi", "200"]
    assert reached(hello("DENY", "*.b.example.com")) == ["two:hi", REFUSED, "200"]
    assert reached(hello("DENY", "A.example.com", "web*")) == [REFUSED, "one:hi", "403"]
    assert reached(hello("ALLOW", "a.example.com")) == ["two:hi", REFUSED, "403"]


def test_shares_change_without_a_cut(edge: Edge) -> None:
    tcp = gateway(listener("tcp", PLAIN, "TCP"))
    edge.apply(*services(), tcp, tcp_route("one-tcp"))
    edge.settle()
    with edge.client.connect(edge.host.four, PLAIN) as kept:
        edge.apply(*services(), tcp, tcp_route("two-tcp"))
        assert edge.client.ask(edge.host.four, PLAIN) == "two:hi"
        kept.sendall(b"old")
        kept.shutdown(socket.SHUT_WR)
        assert read_all(kept) == b"one:old"


def test_a_tcp_listener_without_a_route_refuses(edge: Edge) -> None:
    edge.apply(gateway(listener("tcp", PLAIN, "TCP")))
    assert edge.client.ask(edge.host.four, PLAIN) == REFUSED
