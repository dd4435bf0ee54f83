"""What waypoints let through, wherever they are: policy about requests, by who calls, as its owners and the mesh's
write it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.placements import INLINE, at_both
from tests.mesh.pods import apply_in, make_namespace

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

_SERVER = """
import http.server, socket, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    do_POST = do_GET
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
servers = [Server(("::", port), Handler) for port in (8081, 8082, 8080)]
for each in servers:
    threading.Thread(target=each.serve_forever).start()
"""
GATEWAY, ROOT = "gateway.networking.k8s.io", "istio-system"


def _gateway(name: str, of_class: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{GATEWAY}/v1",
        "kind": "Gateway",
        "metadata": {"name": name},
        "spec": {
            "gatewayClassName": of_class,
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }


def _service(name: str, waypoint: str, pod: str, port: int = 8080) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"istio.io/use-waypoint": waypoint}},
        "spec": {
            "selector": {"app": pod},
            "ports": [
                {"name": "http", "port": 80, "targetPort": port},
                {"name": "tcp", "port": 81, "targetPort": 8081},
            ],
        },
    }


def _pod(name: str, *command: str, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "python:3", "command": list(command), **more}],
        },
    }


_LISTENS = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
PODS = ("web", "lone", "friend", "stranger")
APPLICATION = [
    *({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}} for name in PODS),
    _service("web", "way", "web"),
    _service("second", "way", "web", 8082),
    _service("third", "other-way", "lone"),
    _service("bare", "none", "lone", 8082),
    *(_pod(name, "python3", "-uc", _SERVER, **_LISTENS) for name in ("web", "lone")),
    *(_pod(name, "sleep", "3600") for name in ("friend", "stranger")),
]


class Shop:
    """Services `web` and `second` behind one waypoint, `third` behind another, `bare` behind none."""

    def __init__(self, mesh: Mesh, namespace: str, of_class: str) -> None:
        self.mesh = mesh
        self.of_class = of_class
        self.namespace = namespace

    @contextmanager
    def policy(
        self,
        action: str,
        *rules: Any,
        namespace: str = "",
        target: tuple[str, str, str] = ("", "Service", "web"),
    ) -> Iterator[str]:
        """While it is there; its name."""
        namespace, (group, kind, name) = namespace or self.namespace, target
        given: dict[str, Any] = {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": f"{action.lower()}-{kind.lower()}"},
            "spec": {
                "action": action,
                "targetRefs": [{"group": group, "kind": kind, "name": name}],
                "rules": list(rules),
            },
        }
        self.mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(given))
        named = f"authorizationpolicy/{given['metadata']['name']}"
        try:
            yield named
        finally:
            self.mesh.kubectl("delete", "-n", namespace, named)

    def asks(self, who: str, url: str, method: str = "GET", *words: str) -> str:
        """The status; `refused` when there is no answer."""
        command = [
            "curl",
            "-sS",
            "-m",
            "30",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--path-as-is",
            "-X",
            method,
        ]
        done = self.mesh.exec(self.namespace, who, *command, *words, f"http://{url}", check=False)
        return done.stdout.strip() if done.returncode == 0 else "refused"

    def answers(self, wanted: str, *asked: str) -> None:
        """Waits for this answer."""
        self.mesh.wait(f"{wanted} for {asked}", lambda: self.asks(*asked) == wanted)

    def condition(self, policy: str, namespace: str = "") -> tuple[str, str]:
        """Status and reason of WaypointAccepted."""
        text = self.mesh.kubectl("get", "-n", namespace or self.namespace, policy, "-o", "json").stdout
        for each in json.loads(text).get("status", {}).get("conditions", ()):
            if each["type"] == "WaypointAccepted":
                return each["status"], each["reason"]
        return "", ""

    def is_said(self, policy: str, status: str, reason: str, namespace: str = "") -> None:
        self.mesh.wait(f"{reason} of {policy}", lambda: self.condition(policy, namespace) == (status, reason))


@contextmanager
def _shop(mesh: Mesh, of_class: str) -> Iterator[Shop]:
    with make_namespace(mesh) as namespace:
        gateways = [_gateway(name, of_class) for name in ("way", "other-way")]
        apply_in(mesh, namespace, [*gateways, *APPLICATION])
        for name in ("way", "other-way"):
            mesh.kubectl(
                "wait", "-n", namespace, "--for=condition=Programmed", f"gateway/{name}", "--timeout=110s"
            )
        shop = Shop(mesh, namespace, of_class)
        for service in ("web", "second", "third", "bare"):
            shop.answers("200", "friend", service)
        yield shop


shops, shop = at_both(_shop, ("istio-waypoint", INLINE))


@pytest.mark.feature("F40")
def test_one_caller_may_read_and_nobody_else_anything(shop: Shop) -> None:
    friend = f"cluster.local/ns/{shop.namespace}/sa/friend"
    rule = {"from": [{"source": {"principals": [friend]}}], "to": [{"operation": {"methods": ["GET"]}}]}
    with shop.policy("ALLOW", rule) as policy:
        shop.answers("403", "stranger", "web/")
        assert shop.asks("friend", "web/") == "200"
        assert shop.asks("friend", "web/", "POST") == "403"
        said = f"x-forwarded-client-cert: By=x;URI=spiffe://{friend}"
        assert shop.asks("stranger", "web/", "GET", "-H", said) == "403"
        # Nobody knows what bytes ask for.
        shop.answers("refused", "friend", "web:81/")
        assert shop.asks("stranger", "second/") == "200"
        shop.is_said(policy, "True", "Accepted")
    shop.answers("200", "stranger", "web/")


@pytest.mark.feature("F40")
def test_no_spelling_of_a_path_passes(shop: Shop) -> None:
    with shop.policy("DENY", {"to": [{"operation": {"paths": ["/admin"]}}]}):
        shop.answers("403", "friend", "web/admin")
        assert shop.asks("friend", "web/") == "200"
        for path in (
            "//admin",
            "/%61dmin",
            "/%2Fadmin",
            "/x/../admin",
            "/x/..;/admin",
            "/admin;x",
            "/admin?q",
        ):
            assert shop.asks("friend", f"web{path}") == "403", path


@pytest.mark.feature("F169")
def test_what_audit_policies_match_is_told_and_who_is_denied(shop: Shop) -> None:
    """With the rule, and who asked; whether or not there is another policy."""
    audited = {"to": [{"operation": {"paths": ["/audited/*"]}}]}
    closed = {"to": [{"operation": {"paths": ["/audited/closed", "/closed"]}}]}
    identity = f"spiffe://cluster.local/ns/{shop.namespace}/sa"
    audit, deny = (f"{shop.namespace}/{action}-service[0]" for action in ("audit", "deny"))
    rules = [audit]

    def told(who: str, path: str) -> tuple[Any, ...]:
        """Asks, and says what has been told of such a request last, where policies are enforced."""
        shop.asks(who, f"web{path}")
        words = ("flows", "--requests", "-n", shop.namespace, "--path", path, "--last", "9", "-o", "json")
        records = map(json.loads, shop.mesh.ambit(*words).stdout.splitlines())
        record = ([{"source": {}}] + [each for each in records if each["reporter"] != "source"])[-1]
        policies = (record.get("decision"), record.get("policy"), record.get("audited"))
        return (*policies, record["source"].get("identity"))

    def are_told(*given: tuple[str, str, tuple[Any, ...]]) -> None:
        for who, path, wanted in given:
            everything = (*wanted, f"{identity}/{who}")
            shop.mesh.wait(f"{wanted} of {path}", lambda each=(who, path): told(*each) == everything)  # noqa: B023

    with shop.policy("AUDIT", audited):
        are_told(
            ("friend", "/audited/alone", (None, None, rules)), ("friend", "/unseen/alone", (None, None, None))
        )
        with shop.policy("DENY", closed):
            are_told(
                ("stranger", "/audited/closed", ("deny", deny, rules)),
                ("friend", "/audited/open", (None, None, rules)),
                ("friend", "/closed", ("deny", deny, None)),
                ("stranger", "/unseen", (None, None, None)),
            )


@pytest.mark.feature("F40")
def test_why_says_which_rule_came_nearest_to_letting_a_request_in(shop: Shop) -> None:
    """And which condition of it failed."""
    friend = f"cluster.local/ns/{shop.namespace}/sa/friend"
    rules = [
        {"from": [{"source": {"principals": [friend]}}], "to": [{"operation": {"methods": ["PUT", "HEAD"]}}]},
        {"from": [{"source": {"principals": [friend]}}], "to": [{"operation": {"methods": ["GET"]}}]},
    ]

    def nearest(who: str, method: str) -> tuple[str, list[dict[str, Any]]]:
        words = ("why", f"{shop.namespace}/{who}", method, "http://web/", "-o", "json")
        answer = json.loads(shop.mesh.ambit(*words, check=False).stdout)
        rulings = [answer["policy"]] if "policy" in answer else answer["shares"][0]["rulings"]
        assert {each["verdict"] for each in rulings} == {"denied"}
        assert shop.asks(who, "web/", method) == "403"
        (found,) = {json.dumps(each["nearest"]) for each in rulings}
        return json.loads(found)["rule"], json.loads(found)["misses"]

    with shop.policy("ALLOW", *rules) as policy:
        shop.answers("403", "stranger", "web/")
        assert shop.asks("friend", "web/") == "200"
        name = f"{shop.namespace}/{policy.partition('/')[2]}"
        post = {"field": "methods", "wanted": ["PUT", "HEAD"], "actual": "POST"}
        assert nearest("friend", "POST") == (f"{name}[0]", [post])
        other = friend.replace("friend", "stranger")
        assert nearest("stranger", "GET") == (
            f"{name}[1]",
            [{"field": "principals", "wanted": [friend], "actual": other}],
        )


@pytest.mark.feature("F14")
def test_who_asks_is_who_opened_the_connection_whatever_a_header_says(shop: Shop) -> None:
    """In the records of all who tell of it, and in lines about it."""
    own = shop.mesh.kubectl(
        "get", "pod", "friend", "-n", shop.namespace, "-o", "jsonpath={.status.podIP}"
    ).stdout
    words = ("flows", "--requests", "-n", shop.namespace, "--path", "/forged", "-o", "json")

    def told() -> set[str]:
        records = map(json.loads, shop.mesh.ambit(*words).stdout.splitlines())
        return {each["source"]["address"].rpartition(":")[0] for each in records}

    # Whoever reads requests at the pod does so for the sake of a policy.
    with shop.policy("DENY", {"to": [{"operation": {"paths": ["/closed"]}}]}):
        shop.answers("403", "friend", "web/closed")
        assert shop.asks("friend", "web/forged", "GET", "-H", "x-forwarded-for: 192.0.2.7") == "200"
        shop.mesh.wait("records", told)
        assert told() == {own}


# Status of a call of gRPC without a message, as its trailer or header says; by HTTP/2 without TLS.
_GRPC = ("-D", "-", "--http2-prior-knowledge", "-H", "content-type: application/grpc", "-H", "te: trailers")


@pytest.mark.feature("F35")
def test_methods_of_grpc_are_let_in_one_by_one(shop: Shop) -> None:
    """What is let in meets a server that knows no gRPC."""

    def status(method: str) -> str:
        words = (
            "curl",
            "-sS",
            "-m",
            "30",
            "-o",
            "/dev/null",
            *_GRPC,
            "-X",
            "POST",
            f"http://web/shop.Cart/{method}",
        )
        lines = shop.mesh.exec(shop.namespace, "friend", *words, check=False).stdout.splitlines()
        found = [each.partition(":")[2].strip() for each in lines if each.lower().startswith("grpc-status:")]
        return found[0] if found else "none"

    with shop.policy("ALLOW", {"to": [{"operation": {"paths": ["/shop.Cart/Add"]}}]}):
        shop.mesh.wait("PERMISSION_DENIED", lambda: status("Drop") == "7")
        assert status("Add") != "7"


@pytest.mark.feature("F49")
def test_a_policy_for_the_class_is_everybodys_default(shop: Shop) -> None:
    with shop.policy("ALLOW", namespace=ROOT, target=(GATEWAY, "GatewayClass", shop.of_class)) as policy:
        for service in ("web", "second", "third"):
            shop.answers("403", "friend", service)
        with shop.policy("ALLOW", {"to": [{"operation": {"ports": ["80"]}}]}):
            shop.answers("200", "friend", "web/")
            assert shop.asks("friend", "second/") == "403"
        shop.is_said(policy, "True", "Accepted", ROOT)
    for service in ("web", "second", "third"):
        shop.answers("200", "friend", service)


@pytest.mark.feature("F50")
def test_a_policy_for_a_gateway_is_for_all_that_passes_it(shop: Shop) -> None:
    with shop.policy(
        "DENY", {"to": [{"operation": {"methods": ["POST"]}}]}, target=(GATEWAY, "Gateway", "way")
    ):
        for service in ("web", "second"):
            shop.answers("403", "friend", service, "POST")
            assert shop.asks("friend", service) == "200"
        assert shop.asks("friend", "third", "POST") == "200"


@pytest.mark.feature("F40")
def test_what_nobody_would_protect_is_closed_and_said(shop: Shop) -> None:
    with shop.policy(
        "DENY", {"to": [{"operation": {"methods": ["POST"]}}]}, target=("", "Service", "bare")
    ) as policy:
        shop.answers("refused", "friend", "bare")
        shop.is_said(policy, "False", "AncestorNotBound")
        services = ("services", "-n", shop.namespace)
        closed = "None (closed by a policy)"
        shop.mesh.wait("nodes say so", lambda: closed in shop.mesh.ambit(*services).stdout)
        assert ".invalid" not in shop.mesh.ambit(*services).stdout
        (told,) = [
            each["waypoint"]
            for each in json.loads(shop.mesh.ambit("services", "-n", shop.namespace, "-o", "json").stdout)
            if each["name"] == "bare"
        ]
        assert told == {"refused": "closed by a policy"}

        def recorded() -> list[str]:
            words = ("flows", "--last", "500", "--to", f"{shop.namespace}/bare")
            lines = shop.mesh.ambit(*words).stdout.splitlines()
            return [each for each in lines if "FAILED" in each]

        (last, *_) = reversed(shop.mesh.wait("the record", recorded))
        assert "FAILED closed by a policy that no waypoint enforces" in last and ".invalid" not in last
    shop.answers("200", "friend", "bare")
    with shop.policy("DENY", {}, target=("", "Service", "nothing")) as policy:
        shop.is_said(policy, "False", "TargetNotFound")
