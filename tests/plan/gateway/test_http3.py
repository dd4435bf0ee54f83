"""Requests by HTTP/3 at a gateway."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.ingest.build import Given, authorization_policy
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import to, to_edge
from tests.ingest.gateway.pairs import https, secret
from tests.plan.dataplane.served import until
from tests.plan.gateway.conftest import Edge
from tests.plan.gateway.http3 import Http3Client
from tests.plan.gateway.test_https import AUTHORITY, connect
from tests.plan.gateway.test_https import ask as ask_by_tcp

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

NAME = "a.example.com"
ONE, TWO = {"backendRefs": [to("one")]}, {"backendRefs": [to("two")]}


@pytest.fixture
def client(edge: Edge, tmp_path: Path) -> Iterator[Http3Client]:
    """Without any connection yet."""
    with Http3Client(tmp_path, edge.client, edge.host, AUTHORITY.root, NAME) as made:
        yield made


def http3(name: str, *secrets: str, **more: Any) -> dict[str, Any]:
    given = https(name, *secrets, **more)
    return {**given, "tls": {**given["tls"], "options": {"ambit.io/http3": "true"}}}


def objects(*more: Given) -> list[Given]:
    pair = secret("a", AUTHORITY.pair(NAME))
    return [pair, gateway(http3("https", "a", hostname=NAME)), to_edge(ONE), *more]


def test_requests_come_by_http3_and_clients_are_told_that_they_can(edge: Edge, client: Http3Client) -> None:
    edge.apply(*objects())
    by_tcp = ask_by_tcp(connect(edge, NAME))
    assert (by_tcp.server, by_tcp.header("alt-svc")) == ("one", 'h3=":443"; ma=86400')
    answer = client.get(NAME)
    assert (answer.status, answer.server) == (200, "one")
    assert answer.echo["headers"]["x-forwarded-proto"] == ["https"]
    assert answer.echo["headers"]["x-forwarded-for"] == [str(edge.client.four)]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("rsa-2048", rsa.generate_private_key(65537, 2048)),
        ("rsa-4096", rsa.generate_private_key(65537, 4096)),
        ("p-384", ec.generate_private_key(ec.SECP384R1())),
    ],
)
def test_other_keys_than_of_p_256_can_be_shown(edge: Edge, client: Http3Client, name: str, key: Any) -> None:
    """Clients of BoringSSL, browsers among them, take no P-521, by TCP neither."""
    host = f"{name}.example.com"
    pair = secret("a", AUTHORITY.pair(host, key=key))
    edge.apply(pair, gateway(http3("https", "a", hostname=host)), to_edge(ONE))
    assert client.get(host).server == "one"


def test_the_name_chooses_the_listener_and_others_requests_are_misdirected(
    edge: Edge, client: Http3Client
) -> None:
    """A listener of the port without HTTP/3 keeps its requests by TCP."""
    names = (NAME, "b.example.com", "c.example.com")
    edge.apply(
        secret("a", AUTHORITY.pair(*names)),
        gateway(
            http3("exact", "a", hostname=NAME),
            https("other", "a", hostname="b.example.com"),
            http3("wide", "a", hostname="*.example.com"),
        ),
        to_edge(ONE, parents=({"sectionName": "exact"}, {"sectionName": "other"})),
        to_edge(TWO, name="wide", parents=({"sectionName": "wide"},)),
    )
    assert [client.get(each).server for each in names] == ["one", "421", "two"]
    assert [client.get(each, by_name=True).server for each in names] == ["one", "421", "421"]
    assert client.get("other.org").status == 503, "nobody there is called so"
    assert ask_by_tcp(connect(edge, "b.example.com")).header("alt-svc") is None


def test_another_listener_comes_without_a_cut(edge: Edge, client: Http3Client) -> None:
    names = ("first.example.com", "second.example.com")
    pair = secret("a", AUTHORITY.pair(*names))
    listeners = [http3(each.partition(".")[0], "a", hostname=each) for each in names]
    edge.apply(pair, gateway(listeners[0]), to_edge(ONE))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.get, names[0], "/slow", delay=1)
        until(lambda: "/slow" in edge.echoes["one"].seen, "a request under way")
        edge.apply(pair, gateway(*listeners), to_edge(ONE))
        assert client.get(names[1]).server == "one"
        assert waiting.result().server == "one"


def test_policies_hold_as_by_tcp(edge: Edge, client: Http3Client) -> None:
    def status(action: str, **rule: Any) -> int:
        policy = authorization_policy("p", action=action, rules=[rule])
        edge.apply(*objects(policy))
        return client.get(NAME).status

    def by_address(address: object) -> dict[str, Any]:
        return {"from": [{"source": {"ipBlocks": [str(address)]}}]}

    def by_name(name: str) -> dict[str, Any]:
        return {"when": [{"key": "connection.sni", "values": [name]}]}

    assert status("DENY", **by_address(edge.client.four)) == 403
    assert status("DENY", **by_address("203.0.113.9")) == 200
    assert status("ALLOW", **by_address(edge.client.four)) == 200
    assert status("ALLOW", **by_address("203.0.113.9")) == 403
    assert status("DENY", **by_name(NAME)) == 403
    assert status("ALLOW", **by_name(NAME)) == 200
    assert status("ALLOW", **by_name("b.example.com")) == 403


def test_without_the_option_nobody_is_there(edge: Edge, client: Http3Client) -> None:
    edge.apply(*objects())
    assert client.get(NAME).status == 200
    edge.apply(secret("a", AUTHORITY.pair(NAME)), gateway(https("https", "a", hostname=NAME)), to_edge(ONE))
    by_tcp = ask_by_tcp(connect(edge, NAME))
    assert (by_tcp.server, by_tcp.header("alt-svc")) == ("one", None)
    until(lambda: client.get(NAME).status == 503, "a gateway without HTTP/3")
