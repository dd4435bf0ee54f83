"""Tokens at a waypoint, or where pods are: an issuer of the mesh serves keys, requests come with and without tokens."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.placements import at_both
from tests.mesh.pods import apply_in, make_namespace
from tests.tokens import Issuer

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

# Says what headers came; serves what was put to /keys last.
_SERVER = """
import http.server, json, socket
keys = []
class Handler(http.server.BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    def do_PUT(self):
        keys[:] = [self.rfile.read(int(self.headers["content-length"]))]
        self.answer(b"")
    def do_GET(self):
        if self.path == "/keys":
            self.answer(keys[0] if keys else b"", 200 if keys else 503)
        else:
            self.answer(json.dumps({key.lower(): value for key, value in self.headers.items()}).encode())
    def answer(self, said, status=200):
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", 8080), Handler).serve_forever()
"""
ISSUER = Issuer("https://issuer.example")


def _service(name: str) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"istio.io/use-waypoint": "way" if name == "web" else "none"}},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


def _pod(name: str, *command: str, **more: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "python:3", "command": list(command), **more}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


_LISTENS = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
APPLICATION = [
    *(_service(name) for name in ("web", "issuer")),
    *(_pod(name, "python3", "-uc", _SERVER, **_LISTENS) for name in ("web", "issuer")),
    _pod("client", "sleep", "3600"),
]


def _gateway(of_class: str) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "way"},
        "spec": {
            "gatewayClassName": of_class,
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }


class Shop:
    def __init__(self, mesh: Mesh, namespace: str) -> None:
        self.mesh = mesh
        self.namespace = namespace

    def ask(self, token: str = "", *words: str, service: str = "web/") -> tuple[int, dict[str, str]]:
        """Status (0 without an answer), and the headers that the server saw."""
        sent = ("-H", f"Authorization: Bearer {token}") if token else ()
        command = ["curl", "-sS", "-m", "30", "-w", "\n%{http_code}", *sent, *words, f"http://{service}"]
        done = self.mesh.exec(self.namespace, "client", *command, check=False)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body) if body.startswith("{") else {}

    def rules(self, **more: Any) -> None:
        """Tokens of ISSUER count for requests to `web`."""
        given = {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": "tokens"},
            "spec": {
                "targetRefs": [{"kind": "Service", "group": "", "name": "web"}],
                "jwtRules": [{"issuer": ISSUER.name, "audiences": ["shop"], **more}],
            },
        }
        self.mesh.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=yaml.safe_dump(given))

    def policy(self, key: str, *values: str) -> None:
        """Only such requests to `web` are allowed; without values all are."""
        rules = [{"when": [{"key": key, "values": list(values)}]}] if values else [{}]
        given = {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "tokens"},
            "spec": {"targetRefs": [{"kind": "Service", "group": "", "name": "web"}], "rules": rules},
        }
        self.mesh.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=yaml.safe_dump(given))

    def condition(self, kind: str, status: str) -> None:
        """Waits until the object says so."""
        where = ("-n", self.namespace, f"--for=condition={kind}={status}", "--timeout=110s")
        self.mesh.kubectl("wait", *where, "requestauthentication/tokens")


@contextmanager
def _shop(mesh: Mesh, of_class: str) -> Iterator[Shop]:
    with make_namespace(mesh) as namespace:
        apply_in(mesh, namespace, [*APPLICATION, _gateway(of_class)])
        mesh.kubectl("wait", "-n", namespace, "--for=condition=Programmed", "gateway/way", "--timeout=110s")
        made = Shop(mesh, namespace)
        mesh.wait("an answer", lambda: made.ask()[0] == 200)
        yield made


shops, shop = at_both(_shop)


@pytest.mark.feature("F87")
def test_valid_tokens_pass_and_others_are_refused(shop: Shop) -> None:
    """By keys that are fetched from a Service of the mesh: until they are there no token is valid, and that is said."""
    place = f"http://issuer.{shop.namespace}.svc.cluster.local/keys"
    shop.rules(jwksUri=place, outputClaimToHeaders=[{"header": "x-user", "claim": "sub"}])
    shop.condition("WaypointAccepted", "True")
    shop.condition("ambit.io/KeysFetched", "False")
    good = ISSUER.token(aud="shop")
    shop.mesh.wait("the rules", lambda: shop.ask(good)[0] == 401)
    assert shop.ask()[0] == 200
    told = f"{place} answers with 503"
    shop.mesh.wait("the reason", lambda: told in shop.mesh.ambit("check", check=False).stdout)
    assert shop.ask("", "-X", "PUT", "-d", ISSUER.jwks, service="issuer/keys")[0] == 200
    shop.mesh.wait("the keys", lambda: shop.ask(good)[0] == 200)
    shop.condition("ambit.io/KeysFetched", "True")
    status, seen = shop.ask(good, "-H", "x-user: somebody")
    assert (status, seen["x-user"], "authorization" in seen) == (200, "anna", False)
    others = {
        "expired": ISSUER.token(aud="shop", lifetime=-120),
        "of somebody else": Issuer(ISSUER.name).token(aud="shop"),
        "of another issuer": Issuer("https://other.example").token(aud="shop"),
        "no token": "abc",
    }
    assert {name: shop.ask(token)[0] for name, token in others.items()} == dict.fromkeys(others, 401)
    assert shop.ask(ISSUER.token(aud="bank"))[0] in (401, 403)
    assert "x-user" not in shop.ask("", "-H", "x-user: somebody")[1]


@pytest.mark.feature("F87")
def test_a_policy_asks_for_a_token(shop: Shop) -> None:
    shop.rules(jwks=ISSUER.jwks)
    good = ISSUER.token(aud="shop")
    shop.policy("request.auth.principal", f"{ISSUER.name}/anna")
    shop.mesh.wait("the policy", lambda: shop.ask()[0] == 403)
    shop.mesh.wait("the rules", lambda: shop.ask(good)[0] == 200)
    assert shop.ask(ISSUER.token(aud="shop", sub="bob"))[0] == 403
    assert shop.ask("abc")[0] == 401
    shop.policy("everything")
    shop.mesh.wait("no policy", lambda: shop.ask()[0] == 200)


@pytest.mark.feature("F88")
def test_claims_that_are_lists_separated_by_spaces(shop: Shop) -> None:
    """`scope` always, others when the rule says so."""
    shop.rules(jwks=ISSUER.jwks)
    roles, scope = ISSUER.token(aud="shop", roles="a b"), ISSUER.token(aud="shop", scope="a b")

    def answers() -> tuple[int, int]:
        return shop.ask(scope)[0], shop.ask(roles)[0]

    for key, token in (("scope", scope), ("roles", roles)):
        shop.policy(f"request.auth.claims[{key}]", "a")
        shop.mesh.wait(
            "the policy", lambda token=token, key=key: shop.ask(token)[0] == (200 if key == "scope" else 403)
        )
    shop.rules(jwks=ISSUER.jwks, spaceDelimitedClaims=["roles"])
    shop.mesh.wait("the claim is a list", lambda: answers() == (403, 200))
    shop.policy("everything")
    shop.mesh.wait("no policy", lambda: shop.ask()[0] == 200)


@pytest.mark.feature("N11")
def test_keys_are_not_fetched_from_where_nobody_may_ask(shop: Shop) -> None:
    """Neither from the API server, nor from the cloud's metadata: it is said, and nothing is asked."""
    for place in ("https://kubernetes.default.svc/openid/v1/jwks", "http://169.254.169.254/latest/meta-data"):
        shop.rules(jwksUri=place)

        def is_said(place: str = place) -> bool:
            where = ("-n", shop.namespace, "requestauthentication/tokens", "-o", "json")
            conditions = json.loads(shop.mesh.kubectl("get", *where).stdout)["status"]["conditions"]
            return any(
                each["type"] == "ambit.io/KeysFetched"
                and each["status"] == "False"
                and "never asked" in each["message"]
                and place.split("/")[2] in each["message"]
                for each in conditions
            )

        shop.mesh.wait("the refusal", is_said)
    shop.mesh.wait("the new rules", lambda: shop.ask(ISSUER.token(aud="shop"))[0] == 401)
    shop.rules(jwks=ISSUER.jwks)
    shop.mesh.wait("keys that are written down", lambda: shop.ask(ISSUER.token(aud="shop"))[0] == 200)
