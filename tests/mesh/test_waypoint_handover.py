"""Waypoints that come, go, grow and shrink under traffic: no request fails, on kept connections and on new ones."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace
from tests.mesh.traffic import LOAD, POD, Attempt, attempts
from tests.soak import long

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

SERVER = """
import http.server
class Tell(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = self.client_address[0].removeprefix("::ffff:").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
import threading
threading.Thread(target=http.server.ThreadingHTTPServer(("", 8081), Tell).serve_forever).start()
http.server.ThreadingHTTPServer(("", 8080), Tell).serve_forever()
"""
LONG = """
import socket, sys, time
connection = socket.create_connection(("raw", 81), timeout=10)
end = time.time() + float(sys.argv[1])
while time.time() < end:
    connection.sendall(b"GET / HTTP/1.1\\r\\nhost: raw\\r\\n\\r\\n")
    answer = connection.recv(4096)
    while not answer.partition(b"\\r\\n\\r\\n")[2]:
        more = connection.recv(4096)
        assert more, "the connection has ended"
        answer += more
    print(answer.rpartition(b"\\n")[2].decode(), flush=True)
    time.sleep(0.2)
"""
# New connections to a port of bytes, requests, and requests that a policy denies, until the input ends: what each met.
PROBE = """
import collections, http.client, json, sys, threading, time
ended, met = threading.Event(), collections.Counter()
def attempt(port, path):
    connection = http.client.HTTPConnection("web", port, timeout=10)
    try:
        connection.request("GET", path)
        met[f"{port}{path} {connection.getresponse().status}"] += 1
    except (OSError, http.client.HTTPException) as problem:
        met[f"{port}{path} {type(problem).__name__}"] += 1
    connection.close()
def go():
    while not ended.is_set():
        attempt(90, "/")
        attempt(80, "/")
        attempt(80, "/closed")
thread = threading.Thread(target=go)
thread.start()
sys.stdin.read()
ended.set()
thread.join()
print(json.dumps(met))
"""
OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: raw}
spec: {selector: {app: web}, ports: [{name: tcp, port: 81, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90, targetPort: 8081}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-routed, value: "yes"}]}}]
    backendRefs: [{name: web, port: 80}]
---
"""
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec: {{gatewayClassName: {kind}, listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}
---
"""
FRONT = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, annotations: {networking.istio.io/service-type: ClusterIP}}
spec: {gatewayClassName: ambit, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: front}
spec:
  parentRefs: [{name: front}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
"""
DENIED = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: closed}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: {gateway}}}]
  action: DENY
  rules: [{{to: [{{operation: {{paths: ["/closed"]}}}}]}}]
"""
BOTH = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: both}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: ["/closed"], ports: ["80"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  rules: [{from: [{source: {serviceAccounts: [default]}}]}]
"""
AFTER = 12.0
"""Seconds in which what is closed is cut: listeners end 5 s after they are gone."""


class Busy:
    """`client` asks `web` all the time; waypoints `one`, `two` and `inline` are there."""

    def __init__(self, mesh: Mesh, namespace: str) -> None:
        self.mesh = mesh
        self.namespace = namespace

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.mesh.kubectl("-n", self.namespace, *words, stdin=stdin).stdout

    def bind(self, waypoint: str) -> None:
        """`web` to this waypoint; to none when that is empty."""
        wanted = f"istio.io/use-waypoint={waypoint}" if waypoint else "istio.io/use-waypoint-"
        self.kubectl("label", "--overwrite", "service", "web", wanted)

    def asked(self, path: str = "/", host: str = "web") -> tuple[str, bool, str]:
        """The pod that the server sees (without what makes its name its own), whether a route was met, and the
        status: 000 without an answer. Whether that may be is for the traffic beside to say."""
        words = ("curl", "-sS", "-m", "30", "-w", "\n%header{x-routed} %{http_code}", f"http://{host}{path}")
        said = self.mesh.exec(self.namespace, "client", *words, check=False).stdout
        address, _, end = said.rpartition("\n")
        routed, _, status = end.rpartition(" ")
        return self._named(address), routed == "yes", status

    def _named(self, address: str) -> str:
        listed = json.loads(self.kubectl("get", "pods", "-o", "json"))["items"]
        names = {each["status"].get("podIP"): each["metadata"]["name"].partition("-")[0] for each in listed}
        return names.get(address, address)

    def parts(self, count: int, host: str) -> dict[str, int]:
        """How many of so many requests to a host came by which pod."""
        command = ["curl", "-sS", "-m", "30", "-w", "\n", *[f"http://{host}/"] * count]
        seen = Counter(self.mesh.exec(self.namespace, "client", *command).stdout.split())
        return {self._named(address): number for address, number in seen.items()}

    def passes(self, server_sees: str, *, routed: bool) -> None:
        self.mesh.wait(
            f"requests come by {server_sees}", lambda: self.asked() == (server_sees, routed, "200")
        )

    def failed(self, since: float, *kinds: str) -> list[Attempt]:
        """What went wrong since then, up to AFTER from now on, for clients of these kinds."""
        end = time.time() + AFTER
        self.mesh.wait("traffic afterwards", lambda: attempts(self.mesh, self.namespace)[-1].at > end)
        found = attempts(self.mesh, self.namespace, since=since)
        assert {each.kind for each in found if each.result == 200} == {"fresh", "kept"}
        return [each for each in found if each.result != 200 and each.kind in (kinds or ("fresh", "kept"))]

    def lost_none_but_kept(self, since: float, changes: int) -> None:
        """A connection that is kept may end under a request, once for each change (docs/limits.md)."""
        failed = self.failed(since)
        assert [each for each in failed if each.kind == "fresh"] == []
        assert len(failed) <= changes


@pytest.fixture(scope="module")
def busy(mesh: Mesh) -> Iterator[Busy]:
    near, far = mesh.nodes[:2]
    text = OBJECTS
    for name, kind in (("one", "ambit-waypoint"), ("two", "ambit-waypoint"), ("inline", "ambit-inline")):
        text += GATEWAY.format(name=name, kind=kind)
    probe = "readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}"
    for name, node, script, ready in (("web", far, SERVER, probe), ("client", near, LOAD, "")):
        text += POD.format(name=name, node=node, account="default", script=json.dumps(script), probe=ready)
    with make_namespace(mesh) as namespace:
        made = Busy(mesh, namespace)
        made.kubectl("apply", "-f", "-", stdin=text)
        made.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        made.kubectl("wait", "--for=condition=Programmed", "gateway", "--all", "--timeout=110s")
        made.passes("client", routed=False)
        yield made


@pytest.mark.feature("F21")
def test_a_service_goes_from_waypoint_to_waypoint(busy: Busy) -> None:
    """To one with pods, to another, to one without pods, and to none. A connection that is kept may be ended with the
    listener that it came by, on a machine that is so busy that nothing was said on it in time."""
    since = time.time()
    changes = (
        ("one", "one"),
        ("two", "two"),
        ("", "client"),
        ("inline", "client"),
        ("two", "two"),
        ("inline", "client"),
        ("", "client"),
    )
    for waypoint, seen in changes:
        busy.bind(waypoint)
        busy.passes(seen, routed=waypoint != "")
    busy.lost_none_but_kept(since, len(changes))


@pytest.mark.feature("F21")
def test_what_is_open_through_a_waypoint_goes_on_when_its_service_has_left(busy: Busy) -> None:
    """A TCP connection, and one for HTTP on which a client sends request after request."""
    busy.bind("one")
    busy.kubectl("label", "service", "raw", "istio.io/use-waypoint=one")
    busy.passes("one", routed=True)
    busy.mesh.wait("bytes pass the waypoint", lambda: busy.asked(host="raw:81")[0] == "one")
    since = time.time()
    length = AFTER + 13
    words = ("exec", "-n", busy.namespace, "client", "--", "python3", "-c", LONG, str(length))
    with busy.mesh.popen(*words) as going:
        assert going.stdout is not None
        first = busy._named(going.stdout.readline().strip())
        for waypoint, seen in (("two", "two"), ("", "client")):
            busy.bind(waypoint)
            busy.kubectl(
                "label", "--overwrite", "service", "raw", f"istio.io/use-waypoint={waypoint or 'none'}"
            )
            busy.passes(seen, routed=waypoint != "")
        assert time.time() < since + 10, "it is open long enough after the last change"
        said, _ = going.communicate(timeout=60)
    assert going.returncode == 0
    assert (first, {busy._named(each) for each in said.split()}) == ("one", {"one"})
    assert busy.failed(since) == []


@pytest.mark.feature("F21")
@pytest.mark.parametrize(("waypoint", "seen"), [("one", "one"), ("inline", "client")])
def test_a_policy_of_a_waypoint_holds_while_a_service_is_bound_to_it(
    busy: Busy, waypoint: str, seen: str
) -> None:
    """Also for connections that went past it before: they are cut. New ones find their way all the time, but for the
    milliseconds in which pods' Envoys begin to read requests, for an inline one."""
    since = time.time()
    busy.kubectl("apply", "-f", "-", stdin=DENIED.format(gateway=waypoint))
    busy.kubectl("wait", "--for=condition=WaypointAccepted", "authorizationpolicy/closed", "--timeout=110s")
    assert busy.asked("/closed")[2] == "200"
    busy.bind(waypoint)
    busy.passes(seen, routed=True)
    if waypoint == "inline":
        # The caller's node routes, the server's enforces: each hears of it by itself.
        busy.mesh.wait("the policy", lambda: busy.asked("/closed")[2] == "403")
    assert busy.asked("/closed")[2] == "403"
    busy.bind("")
    busy.passes("client", routed=False)
    busy.mesh.wait("no policy", lambda: busy.asked("/closed")[2] == "200")
    assert waypoint == "inline" or busy.failed(since, "fresh") == []
    busy.kubectl("delete", "authorizationpolicy", "closed")


@pytest.mark.soak
@pytest.mark.feature("F21")
def test_no_request_fails_when_pods_enforce_policies_in_place_of_a_waypoint(busy: Busy) -> None:
    """And back. What a policy denies at either is denied all the time; one request may be under way on the waypoint's
    connection to a pod when that comes to be read (docs/limits.md)."""
    rounds = long(1, 10)
    busy.bind("one")
    busy.kubectl("apply", "-f", "-", stdin=BOTH)
    policies = ("authorizationpolicy/both", "authorizationpolicy/callers")
    busy.kubectl("wait", "--for=condition=WaypointAccepted", *policies, "--timeout=110s")
    busy.mesh.wait("the policy", lambda: busy.asked("/closed")[2] == "403")
    busy.passes("one", routed=True)
    since = time.time()
    words = ("exec", "-i", "-n", busy.namespace, "client", "--", "python3", "-c", PROBE)
    with busy.mesh.popen(*words, stdin=subprocess.PIPE) as probe:
        for _ in range(rounds):
            for waypoint, seen in (("inline", "client"), ("one", "one")):
                busy.bind(waypoint)
                busy.passes(seen, routed=True)
                end = time.time() + AFTER
                busy.mesh.wait(
                    "more traffic", lambda end=end: attempts(busy.mesh, busy.namespace)[-1].at > end
                )
        said, _ = probe.communicate(timeout=60)
    met = json.loads(said)
    under_way = [each.result for each in busy.failed(since, "fresh")] + [503] * met.pop("80/ 503", 0)
    assert set(met) == {"80/ 200", "80/closed 403", "90/ 200"}, met
    assert set(under_way) <= {503} and len(under_way) <= rounds
    busy.kubectl("delete", *policies)
    busy.bind("")
    busy.passes("client", routed=False)


@pytest.mark.feature("N46")
def test_a_second_waypoint_takes_its_part(busy: Busy) -> None:
    busy.bind("one")
    busy.passes("one", routed=True)
    since = time.time()
    weight, label = "istio.io/use-waypoint-canary-weight", "istio.io/use-waypoint-canary"
    busy.kubectl("annotate", "--overwrite", "service", "web", f"{weight}=50")
    busy.kubectl("label", "service", "web", f"{label}=two")
    busy.mesh.wait("both are seen", lambda: {busy.asked()[0] for _ in range(8)} == {"one", "two"})
    busy.kubectl("annotate", "--overwrite", "service", "web", f"{weight}=100")
    busy.mesh.wait("only the second is seen", lambda: {busy.asked()[0] for _ in range(4)} == {"two"})
    busy.kubectl("annotate", "--overwrite", "service", "web", f"{weight}=much")
    said = "jsonpath={.status.conditions[?(@.type=='istio.io/WaypointBound')].reason}"
    told = ("get", "service", "web", "-o", said)
    busy.mesh.wait("it is said", lambda: busy.kubectl(*told) == "CanaryInvalidWeight")
    busy.mesh.wait("only the first is seen", lambda: {busy.asked()[0] for _ in range(4)} == {"one"})
    busy.kubectl("label", "service", "web", f"{label}-")
    busy.bind("")
    busy.lost_none_but_kept(since, 6)


@pytest.mark.feature("N46")
def test_a_second_waypoint_takes_its_part_of_what_comes_by_a_gateway(busy: Busy) -> None:
    """Request by request; a policy for the first one's Gateway is asked about the others only."""
    weight, label, edge = "istio.io/use-waypoint-canary-weight", "istio.io/use-waypoint-canary", "front-ambit"
    busy.kubectl("apply", "-f", "-", stdin=FRONT + "---" + DENIED.format(gateway="one"))
    busy.kubectl("label", "service", "web", "istio.io/use-waypoint=one", "istio.io/ingress-use-waypoint=true")
    busy.kubectl("wait", "--for=condition=Programmed", "gateway/front", "--timeout=110s")
    busy.mesh.wait("the first is seen", lambda: busy.asked(host=edge) == ("one", True, "200"))
    busy.kubectl("annotate", "--overwrite", "service", "web", f"{weight}=100")
    busy.kubectl("label", "service", "web", f"{label}=two")
    busy.mesh.wait("the second is seen", lambda: busy.asked(host=edge) == ("two", True, "200"))
    assert busy.asked("/closed", edge)[2] == "200"
    busy.kubectl("annotate", "--overwrite", "service", "web", f"{weight}=25")
    busy.mesh.wait("both are seen", lambda: set(busy.parts(8, edge)) == {"one", "two"})
    found = busy.parts(200, edge)
    # Fewer or more once in a hundred million times.
    assert set(found) == {"one", "two"} and 16 <= found["two"] <= 88, found
    busy.kubectl("label", "service", "web", f"{label}-")
    busy.mesh.wait("only the first is left", lambda: set(busy.parts(60, edge)) == {"one"})
    assert busy.asked("/closed", edge)[2] == "403"
    made = ("gateway/front", "httproute/front", "authorizationpolicy/closed")
    busy.kubectl("delete", *made)
    busy.kubectl("label", "service", "web", "istio.io/ingress-use-waypoint-", "istio.io/use-waypoint-")
    busy.kubectl("annotate", "service", "web", f"{weight}-")


@pytest.mark.feature("F30")
def test_a_waypoint_grows_and_shrinks(busy: Busy) -> None:
    """Also pod by pod: each is replaced before the last one is gone."""
    busy.bind("two")
    busy.passes("two", routed=True)
    since = time.time()

    def scale(replicas: int) -> None:
        busy.kubectl("scale", "deployment", "two", f"--replicas={replicas}")
        busy.kubectl("rollout", "status", "deployment", "two", "--timeout=110s")

    scale(3)
    selector = ("-l", "gateway.networking.k8s.io/gateway-name=two")
    for name in busy.kubectl("get", "pods", *selector, "-o", "name").split():
        busy.kubectl("delete", name, "--wait=false")
        busy.kubectl("rollout", "status", "deployment", "two", "--timeout=110s")
    scale(1)
    assert busy.failed(since) == []
    busy.bind("")


def waypoints_of(busy: Busy, services: int) -> Callable[[], object]:
    """How many of these services answer, and the waypoint's pods that the server has seen."""

    def count() -> object:
        urls = [f"http://web{number}" for number in range(services)] * 3
        command = ["curl", "-sS", "-m", "30", "--no-keepalive", "-w", "\n", *urls]
        said = busy.mesh.exec(busy.namespace, "client", *command, check=False).stdout.split()
        return len(said), len(set(said))

    return count


@pytest.mark.feature("F30")
def test_many_services_share_one_waypoint_with_several_pods(busy: Busy) -> None:
    """Bound all at once by a label of the namespace, under traffic to one of them."""
    many = 20
    specification = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    services = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"web{number}"}, "spec": specification}
        for number in range(many)
    ]
    busy.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(services))
    busy.kubectl("scale", "deployment", "two", "--replicas=3")
    busy.kubectl("rollout", "status", "deployment", "two", "--timeout=110s")
    since = time.time()
    busy.kubectl("label", "namespace", busy.namespace, "istio.io/use-waypoint=two")
    busy.passes("two", routed=True)
    count = waypoints_of(busy, many)
    busy.mesh.wait("all are served, by all pods", lambda: count() == (3 * many, 3))
    busy.kubectl("label", "namespace", busy.namespace, "istio.io/use-waypoint-")
    busy.passes("client", routed=False)
    assert busy.failed(since) == []


@pytest.mark.feature("F21")
def test_a_waypoint_with_pods_becomes_one_without_and_back(busy: Busy) -> None:
    """Its pods go when nobody goes to them any more, with all that made them run."""
    busy.bind("one")
    busy.passes("one", routed=True)
    since = time.time()

    def becomes(of_class: str) -> None:
        changed = {"spec": {"gatewayClassName": of_class}}
        busy.kubectl("patch", "gateway", "one", "--type=merge", "-p", json.dumps(changed))

    def left() -> str:
        selector = ("-l", "gateway.networking.k8s.io/gateway-name=one", "-o", "name")
        return busy.kubectl("get", "deployments,services,serviceaccounts,pods", *selector)

    becomes("ambit-inline")
    busy.passes("client", routed=True)
    busy.mesh.wait("nothing is left of its pods", lambda: left() == "")
    busy.lost_none_but_kept(since, 1)
    becomes("ambit-waypoint")
    busy.mesh.wait("a pod again", lambda: "pod/" in left())
    busy.kubectl("rollout", "status", "deployment", "one", "--timeout=110s")
    once = ("curl", "-s", "-m", "30", "-w", "%header{x-routed}", "http://web/")

    def answers() -> bool:
        return busy.mesh.exec(busy.namespace, "client", *once, check=False).stdout.endswith("yes")

    busy.mesh.wait("requests are answered", answers)
    busy.passes("one", routed=True)
    made = {each.partition("/")[0] for each in left().split()}
    assert made == {"deployment.apps", "service", "serviceaccount", "pod"}
    busy.bind("")
    busy.passes("client", routed=False)
