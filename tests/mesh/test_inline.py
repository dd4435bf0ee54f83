"""A waypoint without pods: requests are routed by the node proxy that they come from."""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.ingest.gateway.pairs import Authority
from tests.mesh.pods import apply_in, pod
from tests.mesh.scrape import scrape, total
from tests.mesh.secured import SECURED, roots, tls_policy
from tests.mesh.shop import REQUESTS, Shop, make_shop, to, waypoint

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

# Says its first word before it has heard any.
_GREETS = """
import socket
server = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, _ = server.accept()
    connection.sendall(b"welcome")
    connection.close()
"""
_LISTENS = "import socket; print(socket.create_connection(('web', 7000), 10).recv(9).decode())"


# Keeps one connection to an address; for each line asks for what it says, and tells the status, or that it has ended.
_KEEPS = """
import http.client, sys
kept = http.client.HTTPConnection(sys.argv[1], 8080, timeout=30)
for line in sys.stdin:
    try:
        kept.request("GET", line.strip())
        answer = kept.getresponse()
        answer.read()
        print(answer.status, flush=True)
    except (OSError, http.client.HTTPException):
        print("ended", flush=True)
        break
"""


# Asks for /admin all the time, on new connections; tells what is let in.
_ADMIN = """
import http.client, select, sys
first = True
while not select.select([sys.stdin], [], [], 0.005)[0]:
    client = http.client.HTTPConnection("web", timeout=30)
    try:
        client.request("GET", "/admin")
        status = client.getresponse().status
    except (OSError, http.client.HTTPException):
        status = 0
    if first or status == 200:
        print(status, flush=True)
    first = False
    client.close()
"""
_FILTER = "request.url_path.startsWith('/printed')"


@pytest.fixture(scope="module")
def shop(mesh: Mesh) -> Iterator[Shop]:
    with make_shop(mesh, "ambit-inline", "service") as made:
        yield made


def _flows(shop: Shop, reporter: str) -> list[dict[str, Any]]:
    words = ("flows", "--last", "500", "--to", shop.namespace, "-o", "json")
    found = map(json.loads, shop.mesh.ambit(*words).stdout.splitlines())
    return [each for each in found if each["reporter"] == reporter]


def test_there_is_no_waypoint_between(shop: Shop) -> None:
    """Its Gateway has no pods, and servers know their callers by their own identities."""
    selector = ("-n", shop.namespace, "-l", "gateway.networking.k8s.io/gateway-name=way")
    assert shop.mesh.kubectl("get", "pods,services", *selector, "-o", "name").stdout == ""
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    shop.ask("/once")
    # The connection to the server is kept as long as requests may go there, and told of at its end.
    shop.route(to(("web-v2", 1)))
    shop.follows("the other route", "v2")
    own = f"spiffe://cluster.local/ns/{shop.namespace}/sa/default"
    shop.mesh.wait(
        "the record",
        lambda: any(
            (each["source"].get("identity"), each["destination"].get("workload")) == (own, "v1")
            for each in _flows(shop, "destination")
        ),
    )


@pytest.mark.parametrize("place", [0, 1])
def test_requests_are_routed_on_the_way_to_this_node_and_to_others(shop: Shop, place: int) -> None:
    """With the server's policy in force: who may not call it is refused there."""
    node = shop.mesh.nodes[place]
    name = f"caller-{place}"
    shop.route(to(("web-v1", 1), matches=[{"path": {"value": "/one"}}]), to(("web-v2", 1)))
    apply_in(shop.mesh, shop.namespace, [pod(name, node, ["sleep", "3600"])])

    def asked(path: str) -> str:
        words = ("curl", "-sS", "-m", "10", f"http://web{path}")
        return shop.mesh.exec(shop.namespace, name, *words, check=False).stdout.partition(" ")[0]

    shop.mesh.wait("both versions", lambda: (asked("/one"), asked("/two")) == ("v1", "v2"))
    denied = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "closed"},
        "spec": {"selector": {"matchLabels": {"version": "v2"}}, "action": "DENY", "rules": [{}]},
    }
    shop.apply(denied)
    try:
        shop.mesh.wait("the refusal", lambda: asked("/two") not in {"v2", ""})
        assert asked("/one") == "v1"
    finally:
        shop.mesh.kubectl("delete", "-n", shop.namespace, "authorizationpolicy", "closed")
    shop.mesh.wait("the way again", lambda: asked("/two") == "v2")


def test_ports_that_are_no_http_go_on_as_bytes(shop: Shop) -> None:
    """Also of the same service: a server that speaks first is heard."""
    ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "tcp", "port": 7000}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    shop.apply({**service, "spec": {"selector": {"app": "web"}, "ports": ports}})
    greeting = pod("greets", shop.mesh.nodes[1], ["python3", "-uc", _GREETS], labels={"app": "web"})
    apply_in(shop.mesh, shop.namespace, [greeting])
    try:

        def heard() -> str:
            words = ("python3", "-c", _LISTENS)
            return shop.mesh.exec(shop.namespace, "client", *words, check=False).stdout.strip()

        shop.mesh.wait("the greeting", lambda: heard() == "welcome")
    finally:
        shop.mesh.kubectl("delete", "pod", "-n", shop.namespace, "greets")
        shop.apply({**service, "spec": {"selector": {"app": "web"}, "ports": ports[:1]}})


@pytest.mark.feature("F63")
def test_servers_are_spoken_to_with_tls(shop: Shop) -> None:
    """By the caller's node, on its own node and on another; nobody comes in where pods would have to read requests."""
    mesh, namespace, authority = shop.mesh, shop.namespace, Authority()
    pair = authority.pair("secured.example.com")
    names = [f"secured-{place}" for place in range(2)]
    of_server = {
        "env": [{"name": "PAIR", "value": pair.chain + pair.key}],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
    }
    ports = [{"name": "http", "port": 80, "targetPort": 8443}]
    given: list[dict[str, Any]] = [roots(authority.root), _tls_policy("secured.example.com", names)]
    for name, node in zip(names, mesh.nodes, strict=True):
        spec = {"selector": {"app": name}, "ports": ports}
        given.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
        given.append(pod(name, node, ["python3", "-uc", SECURED], labels={"app": name}, **of_server))
    apply_in(mesh, namespace, given)
    well = "200 secured secured.example.com"
    for name in names:
        mesh.wait(f"TLS to {name}", lambda name=name: shop.ask(service=name) == well)  # type: ignore[misc]
    shop.apply(_tls_policy("other.example.com", names))
    for name in names:
        mesh.wait(f"a wrong {name}", lambda name=name: shop.ask(service=name).startswith("503"))  # type: ignore[misc]
    shop.apply(_tls_policy("secured.example.com", names), _no_admin(names[0]))
    mesh.wait("the other one", lambda: shop.ask(service=names[1]).startswith("200"))
    mesh.wait("the closed one", lambda: not shop.ask(service=names[0])[:3].isdecimal())
    path = "jsonpath={.status.conditions[?(@.type=='WaypointAccepted')].reason}"
    get = ("get", "-n", namespace, "authorizationpolicy", "no-admin", "-o", path)
    mesh.wait("the reason", lambda: mesh.kubectl(*get).stdout == "NotEnforced")
    mesh.kubectl(
        "delete", "-n", namespace, "authorizationpolicy/no-admin", *(f"pod/{each}" for each in names)
    )


def _tls_policy(hostname: str, services: list[str]) -> dict[str, Any]:
    return tls_policy(hostname, *({"group": "", "kind": "Service", "name": each} for each in services))


def _no_admin(service: str) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "no-admin"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": service}],
            "action": "DENY",
            "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}],
        },
    }


@pytest.mark.feature("F40")
def test_pods_enforce_policies_whichever_way_a_request_comes(shop: Shop) -> None:
    """And end what was open before anybody read it."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.route(to(("web", 1)))
    shop.follows("the route", "v1")
    denied = _no_admin("web")
    found = mesh.kubectl("get", "pods", "-n", namespace, "-l", "app=web", "-o", "json").stdout
    addresses = [each["status"]["podIP"] for each in json.loads(found)["items"]]
    kept = {
        address: mesh.popen(
            *("exec", "-i", "-n", namespace, "client", "--", "python3", "-uc", _KEEPS, address),
            stdin=subprocess.PIPE,
        )
        for address in addresses
    }

    def on_kept(address: str, path: str) -> str:
        process = kept[address]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def status(host: str, path: str) -> str:
        words = ("curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", f"http://{host}{path}")
        return mesh.exec(namespace, "client", *words, check=False).stdout.strip()

    assert {on_kept(each, "/admin") for each in addresses} == {"200"}
    shop.apply(denied)
    try:
        for host in ("web", *(f"{each}:8080" for each in addresses)):
            mesh.wait(f"the policy at {host}", lambda host=host: status(host, "/admin") == "403")  # type: ignore[misc]
            assert status(host, "/") == "200"
        assert {on_kept(each, "/admin") for each in addresses} == {"ended"}
        why = mesh.ambit("why", f"{namespace}/client", "GET", f"http://web.{namespace}/admin", check=False)
        assert "DENIED" in why.stdout and "no-admin[0]" in why.stdout
        told = ("flows", "--requests", "--last", "500", "--to", namespace, "--path", "/admin", "-o", "json")
        own = f"spiffe://cluster.local/ns/{namespace}/sa/default"

        def is_told() -> bool:
            found = map(json.loads, mesh.ambit(*told, check=False).stdout.splitlines())
            return any(
                (each["reporter"], each.get("policy"), each["source"].get("identity"))
                == ("destination", f"{namespace}/no-admin[0]", own)
                for each in found
            )

        mesh.wait("the record", is_told)
    finally:
        mesh.kubectl("delete", "-n", namespace, "authorizationpolicy", "no-admin")
        for each in kept.values():
            each.communicate()
    mesh.wait("no policy", lambda: status("web", "/admin") == "200")


def test_a_policy_says_when_nodes_enforce_it(shop: Shop) -> None:
    """Those of the service's pods."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.apply(_no_admin("web"))
    words = ("authorizationpolicy/no-admin", "-n", namespace)
    try:
        mesh.kubectl("wait", "--for=condition=ambit.io/Acknowledged", *words, "--timeout=60s")
        path = "jsonpath={.status.conditions[?(@.type=='ambit.io/Acknowledged')].message}"
        assert mesh.kubectl("get", *words, "-o", path).stdout == "acknowledged by all 2 nodes"
        assert shop.ask("/admin").startswith("403")
    finally:
        mesh.kubectl("delete", *words)
    mesh.wait("no policy", lambda: shop.ask("/admin").startswith("200"))


def test_nobody_comes_in_unread_while_a_waypoint_becomes_inline(shop: Shop) -> None:
    """From one in pods, where a policy protects the service, with the policy in force all the time."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.route(to(("web", 1)))
    other = waypoint("ambit-waypoint", "service")
    other["metadata"]["name"] = "pods"
    shop.apply(other, _no_admin("web"))
    mesh.kubectl("wait", "-n", namespace, "--for=condition=Programmed", "gateway/pods", "--timeout=60s")
    asking: subprocess.Popen[str] | None = None
    bind = ("label", "service", "-n", namespace, "web", "--overwrite")
    try:
        mesh.kubectl(*bind, "istio.io/use-waypoint=pods")
        mesh.wait("the waypoint", lambda: _is_at(shop, "pods") and shop.ask("/admin").startswith("403"))
        words = ("exec", "-i", "-n", namespace, "client", "--", "python3", "-uc", _ADMIN)
        asking = mesh.popen(*words, stdin=subprocess.PIPE)
        assert asking.stdout is not None and asking.stdout.readline() == "403\n"
        for name in ("way", "pods", "way"):
            mesh.kubectl(*bind, f"istio.io/use-waypoint={name}")
            mesh.wait(f"the way by {name}", lambda name=name: _is_at(shop, name))  # type: ignore[misc]
        said, _ = asking.communicate("end")
        asking = None
        assert not said.strip(), said
    finally:
        if asking is not None:
            asking.communicate("end")
        mesh.kubectl("delete", "-n", namespace, "authorizationpolicy/no-admin", "gateway/pods")
        mesh.kubectl("label", "service", "-n", namespace, "web", "istio.io/use-waypoint-")
    shop.follows("the way again", "v1")


def _is_at(shop: Shop, name: str) -> bool:
    """Whether requests are let in by this waypoint, which servers are told of."""
    said = shop.ask()
    return said.startswith("200") and ("/sa/pods;" in said) is (name == "pods")


def test_requests_are_counted_and_printed_by_nodes(shop: Shop) -> None:
    """As a Telemetry says: the caller's prints; it counts, and so does that of the pod that reads them."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    told = {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "told"},
        "spec": {"accessLogging": [{"providers": [{"name": "envoy"}], "filter": {"expression": _FILTER}}]},
    }
    shop.apply(told, _no_admin("web"))

    def is_printed() -> bool:
        shop.ask("/printed?a=b")
        lines = mesh.kubectl("logs", "-n", "ambit-system", "-l", "app=ztunnel", "--tail=500").stdout
        return '"GET /printed?a=b HTTP/1.1" 200 ' in lines

    def is_counted() -> bool:
        assert shop.ask("/admin").startswith("403")
        samples, service = scrape(mesh), f"web.{namespace}.svc.cluster.local"
        labels = {"destination_service": service, "response_code": "403"}
        reporters = ("source", "destination")
        return all(total(samples, "istio_requests_total", reporter=each, **labels) > 0 for each in reporters)

    try:
        mesh.wait("the line", is_printed)
        mesh.wait("the policy", lambda: shop.ask("/admin").startswith("403"))
        mesh.wait("the count", is_counted)
    finally:
        mesh.kubectl("delete", "-n", namespace, "telemetry/told", "authorizationpolicy/no-admin")


@pytest.mark.parametrize(
    "event", ["the agent is killed", "Envoy is replaced", "the route changes", "endpoints change"]
)
def test_no_request_fails_while(shop: Shop, event: str) -> None:
    """Neither on a connection that is kept nor on a new one."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    words = ("exec", "-i", "-n", namespace, "client", "--", "python3", "-uc", REQUESTS)
    asking = mesh.popen(*words, stdin=subprocess.PIPE)
    assert asking.stdout is not None
    assert asking.stdout.readline() == "open\n"
    _EVENTS[event](shop)
    shop.follows("the route afterwards", "v1")
    said, _ = asking.communicate("end")
    assert said.startswith("well"), said


def _node(shop: Shop) -> str:
    """The client's."""
    path = "jsonpath={.spec.nodeName}"
    return shop.mesh.kubectl("get", "pod", "-n", shop.namespace, "client", "-o", path).stdout


def _kill_the_agent(shop: Shop) -> None:
    shop.mesh.kill("node agent", _node(shop))


def _replace_envoy(shop: Shop) -> None:
    shop.mesh.ambit("node", "restart", _node(shop), "--force")


def _change_the_route(shop: Shop) -> None:
    for version in ("v2", "v1", "v2", "v1"):
        shop.route(to((f"web-{version}", 1)))
        shop.follows("the change", version)


def _change_endpoints(shop: Shop) -> None:
    more = pod("more", shop.mesh.nodes[0], ["sleep", "3600"], labels={"app": "web", "version": "v2"})
    apply_in(shop.mesh, shop.namespace, [more])
    shop.mesh.kubectl("delete", "pod", "-n", shop.namespace, "more")


_EVENTS: dict[str, Callable[[Shop], None]] = {
    "the agent is killed": _kill_the_agent,
    "Envoy is replaced": _replace_envoy,
    "the route changes": _change_the_route,
    "endpoints change": _change_endpoints,
}


def test_a_policy_that_pods_cannot_enforce_closes_the_service(shop: Shop) -> None:
    """Nobody there asks a provider: so nobody comes in, and the policy says why."""
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "asks"},
        "spec": {
            "targetRefs": [{"kind": "Service", "group": "", "name": "web"}],
            "action": "CUSTOM",
            "provider": {"name": "somebody"},
            "rules": [{"to": [{"operation": {"methods": ["POST"]}}]}],
        },
    }
    shop.apply(policy)
    try:
        shop.mesh.wait("the refusal", lambda: not shop.ask().startswith("200"))
        path = "jsonpath={.status.conditions[?(@.type=='WaypointAccepted')].reason}"
        get = ("get", "-n", shop.namespace, "authorizationpolicy", "asks", "-o", path)
        shop.mesh.wait("the reason", lambda: shop.mesh.kubectl(*get).stdout == "ProviderNotFound")
    finally:
        shop.mesh.kubectl("delete", "-n", shop.namespace, "authorizationpolicy", "asks")
    shop.follows("the way again", "v1")
