"""A waypoint without pods: requests are routed by the node proxy that they come from."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.placements import INLINE
from tests.mesh.scrape import scrape, total
from tests.mesh.shop import Shop, make_shop, no_admin, to, waypoint
from tests.mesh.unbroken import no_request_fails

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

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


class _Kept:
    """One connection of the client to a server's own address."""

    def __init__(self, shop: Shop, address: str) -> None:
        words = ("exec", "-i", "-n", shop.namespace, "client", "--", "python3", "-uc", _KEEPS, address)
        self._process = shop.mesh.popen(*words, stdin=subprocess.PIPE)

    def ask(self, path: str) -> str:
        """The status, or `ended`; empty when it had ended before."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{path}\n")
            self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def shop(mesh: Mesh) -> Iterator[Shop]:
    with make_shop(mesh, INLINE, "service") as made:
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


@pytest.mark.feature("F40")
def test_pods_enforce_policies_whichever_way_a_request_comes(shop: Shop) -> None:
    """And end what was open before anybody read it."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.route(to(("web", 1)))
    shop.comes_to("the route", "v1")
    denied = no_admin("web")
    found = mesh.kubectl("get", "pods", "-n", namespace, "-l", "app=web", "-o", "json").stdout
    addresses = [each["status"]["podIP"] for each in json.loads(found)["items"]]
    kept = [_Kept(shop, each) for each in addresses]

    def status(host: str, path: str) -> str:
        words = ("curl", "-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}", f"http://{host}{path}")
        return mesh.exec(namespace, "client", *words, check=False).stdout.strip()

    assert {each.ask("/admin") for each in kept} == {"200"}
    shop.apply(denied)
    try:
        for host in ("web", *(f"{each}:8080" for each in addresses)):
            mesh.wait(f"the policy at {host}", lambda host=host: status(host, "/admin") == "403")  # type: ignore[misc]
            assert status(host, "/") == "200"
        acknowledged = ("wait", "--for=condition=ambit.io/Acknowledged", "authorizationpolicy/no-admin")
        mesh.kubectl(*acknowledged, "-n", namespace, "--timeout=110s")
        assert {each.ask("/admin") for each in kept} == {"ended"}
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
        for each in kept:
            each.end()
    mesh.wait("no policy", lambda: status("web", "/admin") == "200")


def test_a_policy_says_when_nodes_enforce_it(shop: Shop) -> None:
    """Those of the service's pods."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.apply(no_admin("web"))
    words = ("authorizationpolicy/no-admin", "-n", namespace)
    try:
        mesh.kubectl("wait", "--for=condition=ambit.io/Acknowledged", *words, "--timeout=110s")
        path = "jsonpath={.status.conditions[?(@.type=='ambit.io/Acknowledged')].message}"
        assert mesh.kubectl("get", *words, "-o", path).stdout == "acknowledged by all 2 nodes"
        assert shop.ask("/admin").startswith("403")
    finally:
        mesh.kubectl("delete", *words)
    mesh.wait("no policy", lambda: shop.ask("/admin").startswith("200"))


def test_a_service_that_a_route_closes_is_named(shop: Shop) -> None:
    """Its route asks somebody (a filter of the API's experimental channel), which nobody could do for every caller."""
    asked = {"protocol": "HTTP", "backendRef": {"name": "web-v2", "port": 80}, "http": {}}
    shop.route(to(("web-v1", 1), filters=[{"type": "ExternalAuth", "externalAuth": asked}]))
    name = f"Service {shop.namespace}/web "

    def said() -> str:
        lines = shop.mesh.ambit("check", "-o", "short", check=False).stdout.splitlines()
        return next((line for line in lines if "AMB0411" in line and name in line), "")

    try:
        shop.mesh.wait("the finding", lambda: "ExternalAuth" in said())
        shop.mesh.wait("nobody", lambda: not shop.ask().startswith(("2", "4", "5")))
    finally:
        shop.route(to(("web", 1)))
    shop.mesh.wait("everybody", lambda: shop.ask().startswith("200"))
    shop.mesh.wait("no finding", lambda: not said())


@contextlib.contextmanager
def _another(shop: Shop) -> Iterator[Callable[[str], None]]:
    """A waypoint with pods, `pods`, beside the one without, `way`, and a policy for the service; binds it to one."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.route(to(("web", 1)))
    other = waypoint("ambit-waypoint", "service")
    other["metadata"]["name"] = "pods"
    shop.apply(other, no_admin("web"))
    mesh.kubectl("wait", "-n", namespace, "--for=condition=Programmed", "gateway/pods", "--timeout=110s")
    words = ("label", "service", "-n", namespace, "web")

    def bind(name: str) -> None:
        mesh.kubectl(*words, f"istio.io/use-waypoint={name}", "--overwrite")
        mesh.wait(f"the way by {name}", lambda: _is_at(shop, name))

    try:
        yield bind
    finally:
        mesh.kubectl("delete", "-n", namespace, "authorizationpolicy/no-admin", "gateway/pods")
        mesh.kubectl(*words, "istio.io/use-waypoint-")
    shop.comes_to("the way again", "v1")


def test_who_came_to_pods_asks_no_more_there_when_a_waypoint_is_between(shop: Shop) -> None:
    """On a connection that was let in when the pods' nodes read requests."""
    mesh, namespace = shop.mesh, shop.namespace
    found = mesh.kubectl("get", "pods", "-n", namespace, "-l", "app=web", "-o", "json").stdout
    addresses = [each["status"]["podIP"] for each in json.loads(found)["items"]]
    with _another(shop) as bind:
        mesh.wait("the policy", lambda: shop.ask("/admin").startswith("403"))
        acknowledged = ("wait", "--for=condition=ambit.io/Acknowledged", "authorizationpolicy/no-admin")
        mesh.kubectl(*acknowledged, "-n", namespace, "--timeout=110s")
        kept = [_Kept(shop, each) for each in addresses]
        try:
            assert {each.ask("/admin") for each in kept} == {"403"}
            bind("pods")
            for each in kept:
                answers = {each.ask("/admin") for _ in range(50)}
                assert answers <= {"403", "ended", ""}, answers
        finally:
            for each in kept:
                each.end()


def test_nobody_comes_in_unread_while_a_waypoint_becomes_inline(shop: Shop) -> None:
    """From one in pods, where a policy protects the service, with the policy in force all the time."""
    mesh = shop.mesh
    asking: subprocess.Popen[str] | None = None
    with _another(shop) as bind:
        try:
            bind("pods")
            mesh.wait("the policy", lambda: shop.ask("/admin").startswith("403"))
            words = ("exec", "-i", "-n", shop.namespace, "client", "--", "python3", "-uc", _ADMIN)
            asking = mesh.popen(*words, stdin=subprocess.PIPE)
            assert asking.stdout is not None and asking.stdout.readline() == "403\n"
            for name in ("way", "pods", "way"):
                bind(name)
            said, _ = asking.communicate("end")
            asking = None
            assert not said.strip(), said
        finally:
            if asking is not None:
                asking.communicate("end")


def _is_at(shop: Shop, name: str) -> bool:
    """Whether requests are let in by this waypoint, which servers are told of."""
    said = shop.ask()
    return said.startswith("200") and ("/sa/pods;" in said) is (name == "pods")


def test_requests_that_pods_deny_are_counted_at_both_ends(shop: Shop) -> None:
    """By the caller's node, and by that of the pod that reads them."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    labels = {"destination_service": f"web.{namespace}.svc.cluster.local", "response_code": "403"}

    def is_counted() -> bool:
        assert shop.ask("/admin").startswith("403")
        samples = scrape(mesh)
        reporters = ("source", "destination")
        return all(total(samples, "istio_requests_total", reporter=each, **labels) > 0 for each in reporters)

    shop.apply(no_admin("web"))
    try:
        mesh.wait("the policy", lambda: shop.ask("/admin").startswith("403"))
        mesh.wait("the count", is_counted)
    finally:
        mesh.kubectl("delete", "-n", namespace, "authorizationpolicy/no-admin")


@pytest.mark.parametrize("event", ["the agent is killed", "Envoy is replaced"])
def test_no_request_fails_while(shop: Shop, event: str) -> None:
    """Neither on a connection that is kept nor on a new one. More: test_waypoint.py."""
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    with no_request_fails(shop.mesh, shop.namespace):
        _EVENTS[event](shop)
        shop.follows("the route afterwards", "v1")


def _node(shop: Shop) -> str:
    """The client's."""
    path = "jsonpath={.spec.nodeName}"
    return shop.mesh.kubectl("get", "pod", "-n", shop.namespace, "client", "-o", path).stdout


def _kill_the_agent(shop: Shop) -> None:
    shop.mesh.kill("node agent", _node(shop))


def _replace_envoy(shop: Shop) -> None:
    shop.mesh.ambit("node", "restart", _node(shop), "--force")


_EVENTS: dict[str, Callable[[Shop], None]] = {
    "the agent is killed": _kill_the_agent,
    "Envoy is replaced": _replace_envoy,
}


def test_a_policy_that_pods_cannot_enforce_closes_the_service(shop: Shop) -> None:
    """It looks at what a route changes before pods see it: so nobody comes in, and the policy says why."""
    named = {"set": [{"name": "x-user", "value": "ann"}]}
    shop.route(to(("web-v1", 1), filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": named}]))
    shop.follows("the route", "v1")
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "names"},
        "spec": {
            "targetRefs": [{"kind": "Service", "group": "", "name": "web"}],
            "action": "DENY",
            "rules": [{"when": [{"key": "request.headers[x-user]", "values": ["eve"]}]}],
        },
    }
    shop.apply(policy)
    try:
        shop.mesh.wait("the refusal", lambda: not shop.ask().startswith("200"))
        path = "jsonpath={.status.conditions[?(@.type=='WaypointAccepted')].reason}"
        get = ("get", "-n", shop.namespace, "authorizationpolicy", "names", "-o", path)
        shop.mesh.wait("the reason", lambda: shop.mesh.kubectl(*get).stdout == "NotEnforced")
    finally:
        shop.mesh.kubectl("delete", "-n", shop.namespace, "authorizationpolicy", "names")
    shop.follows("the way again", "v1")
