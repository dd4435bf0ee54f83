"""Certificates of clients at a gateway: by port, and what happens to those who have none."""

import hashlib
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.ingest.build import Given
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import roots, to, to_edge
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.plan.gateway.conftest import Edge
from tests.plan.gateway.test_https import AUTHORITY, ask, client_context, connect
from tests.plan.waypoint.echo import Answer

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

NAME = "shop.example.com"
FRIENDS, STRANGERS = Authority("friends"), Authority("strangers")


def objects(*more: Given, **frontend: Any) -> list[Given]:
    return [
        roots("friends", FRIENDS.root),
        roots("strangers", STRANGERS.root),
        secret("a", AUTHORITY.pair(NAME)),
        gateway(https("https", "a", hostname=NAME), tls={"frontend": frontend}),
        to_edge({"backendRefs": [to("one")]}),
        *more,
    ]


def believing(*names: str, mode: str = "AllowValidOnly") -> dict[str, Any]:
    references = [{"group": "", "kind": "ConfigMap", "name": each} for each in names]
    return {"validation": {"caCertificateRefs": references, "mode": mode}}


def showing(directory: Path, authority: Authority | None) -> ssl.SSLContext:
    context = client_context()
    if authority is not None:
        pair = authority.pair("client")
        (directory / "client.pem").write_text(pair.chain + pair.key)
        context.load_cert_chain(directory / "client.pem")
    return context


def answer(
    edge: Edge, directory: Path, authority: Authority | None, *, name: str = NAME, host: str = ""
) -> str:
    """The server that answers a client with a certificate of this authority, or that nobody does."""
    try:
        return ask(connect(edge, name, showing(directory, authority)), host).server
    except (OSError, ssl.SSLError):
        return "refused"


def test_only_clients_of_the_roots_come_in(edge: Edge, tmp_path: Path) -> None:
    edge.apply(*objects(default=believing("friends")))
    assert answer(edge, tmp_path, FRIENDS) == "one"
    assert answer(edge, tmp_path, STRANGERS) == "refused"
    assert answer(edge, tmp_path, None) == "refused"


def test_a_port_can_have_roots_of_its_own(edge: Edge, tmp_path: Path) -> None:
    own = [{"port": 443, "tls": believing("strangers")}, {"port": 8443, "tls": believing("friends")}]
    edge.apply(*objects(default=believing("friends"), perPort=own))
    assert [answer(edge, tmp_path, each) for each in (STRANGERS, FRIENDS)] == ["one", "refused"]


def test_a_port_can_ask_for_nothing(edge: Edge, tmp_path: Path) -> None:
    edge.apply(*objects(default=believing("friends"), perPort=[{"port": 443, "tls": {}}]))
    assert answer(edge, tmp_path, None) == "one"


def test_the_fallback_lets_everybody_in(edge: Edge, tmp_path: Path) -> None:
    edge.apply(*objects(default=believing("friends", mode="AllowInsecureFallback")))
    assert [answer(edge, tmp_path, each) for each in (FRIENDS, STRANGERS, None)] == ["one"] * 3


def told(edge: Edge, directory: Path, authority: Authority | None) -> list[str]:
    """What a backend is told of the client's certificate, whatever he says of it himself."""
    connection = connect(edge, NAME, showing(directory, authority))
    connection.request(
        "GET", "/", headers={"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/a/sa/b"}
    )
    response = connection.getresponse()
    headers = Answer(response.status, response.getheaders(), response.read()).echo["headers"]
    found: list[str] = headers.get("x-forwarded-client-cert", [])
    return found


@pytest.mark.parametrize("mode", ["AllowValidOnly", "AllowInsecureFallback"])
def test_backends_are_told_of_the_certificate_and_of_names_only_when_verified(
    edge: Edge, tmp_path: Path, mode: str
) -> None:
    edge.apply(*objects(default=believing("friends", mode=mode)))
    verified = mode == "AllowValidOnly"
    for authority in [FRIENDS] if verified else [FRIENDS, STRANGERS]:
        (text,) = told(edge, tmp_path, authority)
        parts = dict(each.split("=", 1) for each in text.split(";"))
        shown = (tmp_path / "client.pem").read_text()
        own = ssl.PEM_cert_to_DER_cert(shown[: shown.index("-----BEGIN PRIVATE")])
        assert parts.pop("Hash") == hashlib.sha256(own).hexdigest()
        assert ssl.PEM_cert_to_DER_cert(unquote(parts.pop("Cert").strip('"'))) == own
        assert parts == ({"Subject": '"CN=client"', "URI": "", "DNS": "client"} if verified else {})
    if not verified:
        assert told(edge, tmp_path, None) == []


def test_who_was_asked_for_no_certificate_tells_of_none(edge: Edge, tmp_path: Path) -> None:
    edge.apply(*objects(default=believing("friends"), perPort=[{"port": 443, "tls": {}}]))
    assert told(edge, tmp_path, FRIENDS) == []


def test_roots_that_change_are_followed(edge: Edge, tmp_path: Path) -> None:
    edge.apply(*objects(default=believing("friends")))
    edge.settle()
    kept = connect(edge, NAME, showing(tmp_path, FRIENDS))
    assert ask(kept).server == "one"
    edge.apply(*objects(roots("friends", STRANGERS.root), default=believing("friends")))
    assert [answer(edge, tmp_path, each) for each in (STRANGERS, FRIENDS)] == ["one", "refused"]
    assert ask(kept).server == "one", "a connection that is open goes on"


def test_without_any_root_nobody_comes_in(edge: Edge, tmp_path: Path) -> None:
    edge.apply(*objects(default=believing("gone")))
    assert [answer(edge, tmp_path, each) for each in (FRIENDS, None)] == ["refused"] * 2


def test_each_listener_of_a_port_can_ask_for_what_is_beside_its_own_certificate(
    edge: Edge, tmp_path: Path
) -> None:
    """By the option of Istio; who has come in by the name of another listener is not let past it."""
    other, free = "other.example.com", "open.example.com"
    mutual = {"options": {"gateway.istio.io/tls-terminate-mode": "MUTUAL"}}
    listeners = [https(name, name, hostname=host) for name, host in (("a", NAME), ("b", other), ("c", free))]
    for each in listeners[:2]:
        each["tls"] |= mutual
    edge.apply(
        secret("a", AUTHORITY.pair(NAME), **{"ca.crt": FRIENDS.root}),
        secret("b", AUTHORITY.pair(other), **{"ca.crt": STRANGERS.root}),
        secret("c", AUTHORITY.pair(free), **{"ca.crt": FRIENDS.root}),
        gateway(*listeners),
        to_edge({"backendRefs": [to("one")]}),
    )
    whoever = (FRIENDS, STRANGERS, None)
    assert [answer(edge, tmp_path, each) for each in whoever] == ["one", "refused", "refused"]
    assert [answer(edge, tmp_path, each, name=other) for each in whoever] == ["refused", "one", "refused"]
    assert [answer(edge, tmp_path, each, name=free) for each in whoever] == ["one", "one", "one"]
    assert [answer(edge, tmp_path, each, name=free, host=NAME) for each in whoever] == ["421"] * 3
