"""Requests by TLS at a gateway: which certificate, which listener, and what is for another one."""

import http.client
import ssl

import pytest

from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import to, to_edge
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.plan.gateway.conftest import Edge
from tests.plan.waypoint.echo import Answer

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

ONE, TWO = {"backendRefs": [to("one")]}, {"backendRefs": [to("two")]}
AUTHORITY = Authority()


def client_context(authority: Authority = AUTHORITY) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.root)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def connect(edge: Edge, name: str, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    """A connection by TLS that asks for this name, verified."""
    plain = edge.client.connect(edge.host.four, 443)
    connection = http.client.HTTPConnection(name, timeout=60)
    connection.sock = (context or client_context()).wrap_socket(plain, server_hostname=name)
    return connection


def ask(connection: http.client.HTTPConnection, host: str = "", path: str = "/") -> Answer:
    connection.request("GET", path, headers={"host": host} if host else {})
    response = connection.getresponse()
    return Answer(response.status, response.getheaders(), response.read())


def serial(connection: http.client.HTTPConnection) -> str:
    assert isinstance(connection.sock, ssl.SSLSocket)
    shown = connection.sock.getpeercert()
    assert shown is not None
    return str(shown["serialNumber"])


def test_a_listener_ends_tls_and_backends_learn_of_it(edge: Edge) -> None:
    edge.apply(
        secret("a", AUTHORITY.pair("shop.example.com")),
        gateway(https("https", "a", hostname="shop.example.com")),
        to_edge(ONE),
    )
    answer = ask(connect(edge, "shop.example.com"))
    assert (answer.server, answer.echo["headers"]["x-forwarded-proto"]) == ("one", ["https"])


def test_the_name_chooses_the_listener_and_requests_for_another_one_are_misdirected(edge: Edge) -> None:
    """HTTPRouteHTTPSListenerDetectMisdirectedRequests of the conformance suite, in small."""
    hosts = {"exact": "a.example.com", "wide": "*.example.com", "any": ""}
    edge.apply(
        secret("all", AUTHORITY.pair("a.example.com", "*.example.com", "other.org")),
        gateway(
            *(https(name, "all", **({"hostname": each} if each else {})) for name, each in hosts.items())
        ),
        *(to_edge(ONE, name=name, parents=({"sectionName": name},)) for name in ("exact", "wide")),
        to_edge(TWO, name="any", parents=({"sectionName": "any"},), hostnames=["other.org"]),
    )

    def answers(name: str) -> dict[str, str]:
        asked = ("a.example.com", "b.example.com", "other.org", "unknown.org")
        return {host: ask(connect(edge, name), host).server for host in asked}

    assert answers("a.example.com") == {
        "a.example.com": "one",
        "b.example.com": "421",
        "other.org": "421",
        "unknown.org": "421",
    }
    assert answers("b.example.com") == {
        "a.example.com": "421",
        "b.example.com": "one",
        "other.org": "421",
        "unknown.org": "421",
    }
    assert answers("other.org") == {
        "a.example.com": "421",
        "b.example.com": "421",
        "other.org": "two",
        "unknown.org": "404",
    }


def test_a_name_that_no_listener_has_ends_the_connection(edge: Edge) -> None:
    edge.apply(
        secret("a", AUTHORITY.pair("shop.example.com")),
        gateway(https("https", "a", hostname="shop.example.com")),
        to_edge(ONE),
    )
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(edge, "other.example.com")


def test_a_new_certificate_is_shown_to_new_clients_and_cuts_nobody(edge: Edge) -> None:
    shop = gateway(https("https", "a", hostname="shop.example.com"))
    edge.apply(secret("a", AUTHORITY.pair("shop.example.com")), shop, to_edge(ONE))
    edge.settle()
    old = connect(edge, "shop.example.com")
    assert ask(old).server == "one"
    edge.apply(secret("a", AUTHORITY.pair("shop.example.com")), shop, to_edge(ONE))
    new = connect(edge, "shop.example.com")
    assert serial(new) != serial(old)
    assert ask(old).server == ask(new).server == "one"


def test_another_listener_comes_and_goes_without_a_cut(edge: Edge) -> None:
    pair = secret("a", AUTHORITY.pair("a.example.com", "b.example.com"))
    first, second = (https(each, "a", hostname=f"{each}.example.com") for each in ("a", "b"))
    edge.apply(pair, gateway(first), to_edge(ONE))
    edge.settle()
    kept = connect(edge, "a.example.com")
    assert ask(kept).server == "one"
    edge.apply(pair, gateway(first, second), to_edge(ONE))
    assert ask(connect(edge, "b.example.com")).server == "one"
    edge.apply(pair, gateway(first), to_edge(ONE))
    assert ask(kept).server == "one"


def test_several_certificates_of_one_listener(edge: Edge) -> None:
    edge.apply(
        secret("a", AUTHORITY.pair("a.example.com")),
        secret("b", AUTHORITY.pair("b.example.com")),
        gateway(https("https", "a", "b")),
        to_edge(ONE),
    )
    assert ask(connect(edge, "a.example.com")).server == ask(connect(edge, "b.example.com")).server == "one"


def test_a_listener_without_a_certificate_takes_no_connection(edge: Edge) -> None:
    """And no other one is the worse for it."""
    edge.apply(
        secret("a", AUTHORITY.pair("a.example.com")),
        gateway(https("good", "a", hostname="a.example.com"), https("bad", "gone", hostname="b.example.com")),
        to_edge(ONE),
    )
    assert ask(connect(edge, "a.example.com")).server == "one"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(edge, "b.example.com")


def agreed(edge: Edge, **limits: ssl.TLSVersion) -> tuple[str, str]:
    """Version and suite of a client with these limits, or why there is none."""
    context = client_context()
    for name, version in limits.items():
        setattr(context, name, version)
    try:
        connection = connect(edge, "shop.example.com", context)
    except (ssl.SSLError, ConnectionError):
        return "refused", ""
    assert isinstance(connection.sock, ssl.SSLSocket)
    cipher = connection.sock.cipher()
    assert cipher is not None
    return connection.sock.version() or "", cipher[0]


@pytest.mark.feature("N17")
def test_options_say_which_suites_and_versions_are_taken(edge: Edge) -> None:
    given = https("https", "a", hostname="shop.example.com")

    def with_option(name: str, value: str) -> None:
        listener = {**given, "tls": {**given["tls"], "options": {name: value}}}
        edge.apply(secret("a", AUTHORITY.pair("shop.example.com")), gateway(listener), to_edge(ONE))

    older = {"maximum_version": ssl.TLSVersion.TLSv1_2}
    for suite in ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"):
        with_option("gateway.istio.io/tls-cipher-suites", suite)
        assert agreed(edge, **older) == ("TLSv1.2", suite)
        assert agreed(edge)[0] == "TLSv1.3"
    with_option("ambit.io/tls-min-version", "1.3")
    assert agreed(edge, **older)[0] == "refused" and agreed(edge)[0] == "TLSv1.3"
