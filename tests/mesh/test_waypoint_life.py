"""Waypoints come and go with their Gateways, and take the traffic of what is bound to them and nothing else.

What is not tried with an inline one, of the fixture `of_class`, is about pods, or about what only they take."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.placements import IN_PODS, INLINE, PLACEMENTS
from tests.mesh.pods import apply_in, make_namespace, pod

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

SERVER = """
import http.server, sys
class Tell(http.server.BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    def do_GET(self):
        body = self.client_address[0].removeprefix("::ffff:").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8080), Tell).serve_forever()
"""
# Says whom the server sees, and whether a route was met.
ASK = """
import http.client, sys, urllib.request
try:
    answer = urllib.request.urlopen(f"http://{sys.argv[1]}", timeout=30)
    print(answer.read().decode(), answer.headers.get("x-routed", ""))
except (OSError, http.client.HTTPException):
    print("refused")
"""
OBJECTS = ("deployment", "service", "serviceaccount")


@pytest.fixture
def shop(mesh: Mesh) -> Iterator[str]:
    """An enrolled namespace with a server behind two services, each with a route, and a client."""
    with make_namespace(mesh) as name:
        services = [make(each) for each in ("one", "two") for make in (service, route)]
        apply_in(mesh, name, [*services, *pods()])
        yield name


@pytest.fixture(params=PLACEMENTS)
def of_class(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def service(name: str) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "server"}, "ports": ports},
    }


def route(name: str) -> dict[str, Any]:
    """To the service, whose answers say that it was met."""
    header = {"set": [{"name": "x-routed", "value": "routed"}]}
    rule = {
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": header}],
        "backendRefs": [{"name": name, "port": 80}],
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": name}], "rules": [rule]},
    }


def pods() -> Iterator[dict[str, Any]]:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    for name, command, more in (
        ("server", ["python3", "-uc", SERVER], {"readinessProbe": probe}),
        ("client", ["sleep", "3600"], {}),
    ):
        container = {"name": "main", "image": "python:3", "command": command, **more}
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
        }


def waypoint(takes: str = "service", of_class: str = IN_PODS) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "waypoint", "labels": {"istio.io/waypoint-for": takes}},
        "spec": {
            "gatewayClassName": of_class,
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }


def make_waypoint(mesh: Mesh, namespace: str, of_class: str = IN_PODS) -> None:
    """Until it is programmed."""
    mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(waypoint(of_class=of_class)))
    wait = ("wait", "-n", namespace, "gateway/waypoint", "--for=condition=Programmed", "--timeout=110s")
    mesh.kubectl(*wait)


def pass_by(mesh: Mesh, namespace: str, expected: dict[str, str]) -> None:
    """Until requests to these places are `refused`, or the server sees them come from `client`, `waypoint`, or from the
    client by way of a route (`inline`)."""

    def seen() -> dict[str, str]:
        listed = json.loads(mesh.kubectl("get", "pods", "-n", namespace, "-o", "json").stdout)["items"]
        names = {
            each["status"].get("podIP"): each["metadata"]["labels"].get("app", "waypoint") for each in listed
        }
        found = {}
        for place in expected:
            said = mesh.exec(namespace, "client", "python3", "-c", ASK, place).stdout.strip()
            answer, _, routed = said.partition(" ")
            name = names.get(answer, answer)
            found[place] = INLINE if (name, routed) == ("client", "routed") else name
        return found

    mesh.wait(f"requests are seen from {expected}", lambda: seen() == expected)


def bind(mesh: Mesh, namespace: str, *what: str, to: str = "istio.io/use-waypoint=waypoint") -> None:
    mesh.kubectl("label", "-n", namespace, "--overwrite", *what, to)


@pytest.mark.feature("F27")
def test_a_gateway_brings_a_waypoint_and_takes_it_away(mesh: Mesh, shop: str) -> None:
    make_waypoint(mesh, shop)
    for kind in OBJECTS:
        mesh.kubectl("get", "-n", shop, kind, "waypoint")
    gateway = json.loads(mesh.kubectl("get", "-n", shop, "gateway", "waypoint", "-o", "json").stdout)
    found = json.loads(mesh.kubectl("get", "-n", shop, "service", "waypoint", "-o", "json").stdout)
    assert [each["value"] for each in gateway["status"]["addresses"]] == found["spec"]["clusterIPs"]
    mesh.kubectl("delete", "-n", shop, "gateway", "waypoint")

    def left() -> str:
        return "".join(
            mesh.kubectl("get", "-n", shop, kind, "waypoint", "--ignore-not-found", "-o", "name").stdout
            for kind in OBJECTS
        )

    mesh.wait("nothing of it is left", lambda: left() == "")


def way(of_class: str) -> str:
    """What `pass_by` says of requests through a waypoint of this class."""
    return INLINE if of_class == INLINE else "waypoint"


@pytest.mark.feature("F28")
def test_what_is_bound_passes_through_it_and_nothing_else(mesh: Mesh, shop: str, of_class: str) -> None:
    make_waypoint(mesh, shop, of_class)
    through = way(of_class)
    pass_by(mesh, shop, {"one": "client", "two": "client"})
    bind(mesh, shop, "service", "one")
    pass_by(mesh, shop, {"one": through, "two": "client"})
    mesh.kubectl("label", "namespace", shop, "istio.io/use-waypoint=waypoint")
    pass_by(mesh, shop, {"one": through, "two": through})
    bind(mesh, shop, "service", "one", to="istio.io/use-waypoint=none")
    pass_by(mesh, shop, {"one": "client", "two": through})
    # Nobody is sent past a waypoint that is not there.
    mesh.kubectl("delete", "-n", shop, "gateway", "waypoint")
    pass_by(mesh, shop, {"one": "client", "two": "refused"})


@pytest.mark.feature("F29")
def test_a_waypoint_takes_what_it_is_for(mesh: Mesh, shop: str) -> None:
    make_waypoint(mesh, shop)
    mesh.kubectl("label", "namespace", shop, "istio.io/use-waypoint=waypoint")
    address = f"{mesh.pod_addresses(shop, 'server')[0]}:8080"
    for takes, service_from, pod_from in (
        ("service", "waypoint", "client"),
        ("workload", "client", "waypoint"),
        ("all", "waypoint", "waypoint"),
        ("none", "client", "client"),
    ):
        mesh.kubectl(
            "label", "-n", shop, "--overwrite", "gateway", "waypoint", f"istio.io/waypoint-for={takes}"
        )
        pass_by(mesh, shop, {"one": service_from, address: pod_from})


@pytest.mark.feature("F22")
def test_another_namespaces_waypoint_takes_whom_it_lets_in(mesh: Mesh, shop: str, of_class: str) -> None:
    """Who may not, and asks all the same, reaches nobody: he is not sent past it."""

    def said() -> str:
        path = "jsonpath={.status.conditions[?(@.type=='istio.io/WaypointBound')].reason}"
        return mesh.kubectl("get", "-n", shop, "service", "one", "-o", path).stdout

    with make_namespace(mesh) as others:
        make_waypoint(mesh, others, of_class)
        bind(mesh, shop, "service", "one", to=f"istio.io/use-waypoint-namespace={others}")
        bind(mesh, shop, "service", "one")
        mesh.wait("it is said", lambda: said() == "AttachmentDenied")
        pass_by(mesh, shop, {"one": "refused", "two": "client"})
        listener = waypoint()["spec"]["listeners"][0] | {"allowedRoutes": {"namespaces": {"from": "All"}}}
        patch = json.dumps({"spec": {"listeners": [listener]}})
        mesh.kubectl("patch", "-n", others, "gateway", "waypoint", "--type=merge", "-p", patch)
        mesh.wait("it is said", lambda: said() == "WaypointAccepted")
        through = INLINE
        if of_class == IN_PODS:
            path = "jsonpath={.items[0].status.podIP}"
            selector = "gateway.networking.k8s.io/gateway-name=waypoint"
            through = mesh.kubectl("get", "pods", "-n", others, "-l", selector, "-o", path).stdout
        pass_by(mesh, shop, {"one": through, "two": "client"})


@pytest.mark.feature("F161")
def test_a_namespace_goes_through_a_waypoint_with_one_command(mesh: Mesh, shop: str) -> None:
    assert mesh.ambit("waypoint", "list", "-n", shop).stdout == ""
    mesh.ambit("waypoint", "apply", "-n", shop, "--enroll-namespace", timeout=120)
    pass_by(mesh, shop, {"one": "waypoint"})
    listed = [line.split() for line in mesh.ambit("waypoint", "list", "-A").stdout.splitlines()]
    assert [shop, "waypoint", "default", "service", "True"] in listed
    told = mesh.ambit("waypoint", "delete", "waypoint", "-n", shop).stderr
    assert f"`kubectl label namespace {shop} istio.io/use-waypoint-`" in told
    pass_by(mesh, shop, {"one": "refused"})
    mesh.kubectl("label", "namespace", shop, "istio.io/use-waypoint-")
    pass_by(mesh, shop, {"one": "client"})


@pytest.mark.feature("F161")
def test_one_without_pods_is_made_listed_and_used_with_the_same_command(mesh: Mesh, shop: str) -> None:
    words = ("-n", shop, "--name", "light")
    mesh.ambit("waypoint", "apply", *words, "--inline", "--wait", timeout=120)
    rows = [mesh.ambit("waypoint", each, "-n", shop).stdout for each in ("list", "status")]
    assert [each.splitlines()[1].split()[:5] for each in rows] == [
        ["light", "default", "service", "(inline)", "True"],
        ["light", "True", "Programmed", "Programmed", "inline"],
    ]
    assert mesh.kubectl("get", "deployments", "-n", shop, "light", check=False).returncode != 0
    bind(mesh, shop, "service", "one", to="istio.io/use-waypoint=light")
    pass_by(mesh, shop, {"one": INLINE})
    told = mesh.ambit("waypoint", "apply", *words).stderr
    assert "until one is ready nobody gets through" in told and "--name ANOTHER --wait" in told
    mesh.ambit("waypoint", "delete", "light", "-n", shop)
    pass_by(mesh, shop, {"one": "refused"})
    bind(mesh, shop, "service", "one", to="istio.io/use-waypoint-")
    pass_by(mesh, shop, {"one": "client"})


@pytest.mark.feature("F14")
def test_who_looks_on_sees_the_requests_of_waypoints_that_come_later(mesh: Mesh, shop: str) -> None:
    """Also of the pods that take over from the first ones."""

    def is_seen(path: str) -> None:
        assert mesh.exec(shop, "client", "python3", "-c", ASK, f"one{path}").stdout.strip() != "refused"
        assert looking.stdout is not None
        found = (json.loads(line) for line in looking.stdout)
        reads = (each for each in found if each["reporter"] == "waypoint")
        assert any(each["request"]["path"] == path for each in reads)

    pass_by(mesh, shop, {"one": "client"})
    with mesh.start_ambit("flows", "-f", "-n", shop, "-o", "json") as looking:
        assert looking.stdout is not None
        assert json.loads(looking.stdout.readline())["reporter"] in ("source", "destination")
        make_waypoint(mesh, shop)
        bind(mesh, shop, "service", "one")
        pass_by(mesh, shop, {"one": "waypoint"})
        is_seen("/first")
        mesh.kubectl("rollout", "restart", "-n", shop, "deployment", "waypoint")
        mesh.kubectl("rollout", "status", "-n", shop, "deployment", "waypoint", timeout=120)
        is_seen("/second")
        looking.terminate()


@pytest.mark.feature("F21")
def test_a_waypoint_that_becomes_a_gateway_and_back_keeps_nothing_of_before(mesh: Mesh, shop: str) -> None:
    def becomes(of_class: str, listener: dict[str, Any], name: str) -> None:
        spec = {"gatewayClassName": of_class, "listeners": [listener]}
        mesh.kubectl(
            "patch", "gateway", "waypoint", "-n", shop, "--type=merge", "-p", json.dumps({"spec": spec})
        )
        selector = ("-l", "gateway.networking.k8s.io/gateway-name=waypoint", "-o", "json")
        wanted = {(kind, name) for kind in ("Deployment", "Service", "ServiceAccount")}

        def made() -> set[tuple[str, str]]:
            found = mesh.kubectl("get", "deployments,services,serviceaccounts", "-n", shop, *selector).stdout
            return {(each["kind"], each["metadata"]["name"]) for each in json.loads(found)["items"]}

        mesh.wait(f"all is {name}'s, and nothing else's", lambda: made() == wanted)
        mesh.kubectl("rollout", "status", "-n", shop, "deployment", name, "--timeout=110s")

    make_waypoint(mesh, shop)
    bind(mesh, shop, "service", "one", to="istio.io/use-waypoint=waypoint")
    pass_by(mesh, shop, {"one": "waypoint"})
    becomes("ambit", {"name": "http", "port": 80, "protocol": "HTTP"}, "waypoint-ambit")
    pass_by(mesh, shop, {"one": "refused"})
    becomes(IN_PODS, {"name": "mesh", "port": 15008, "protocol": "HBONE"}, "waypoint")
    pass_by(mesh, shop, {"one": "waypoint"})
    bind(mesh, shop, "service", "one", to="istio.io/use-waypoint-")


PROTECTED = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "protected"},
    "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "one"}], "rules": [{}]},
}


RULE = "waypoint_8080[0]: only its waypoint may call it"


@pytest.mark.feature("F51")
def test_what_a_policy_protects_at_its_waypoint_is_reached_in_no_other_way(mesh: Mesh, shop: str) -> None:
    """By the pod's own address, in the mesh and in plain text from outside, also with fail-open's label and without."""
    address = f"{mesh.pod_addresses(shop, 'server')[0]}:8080"

    def reached() -> list[bool]:
        places = (shop, "client"), (outside, "stranger")
        return [
            mesh.exec(*place, "python3", "-c", ASK, address).stdout.strip() != "refused" for place in places
        ]

    with make_namespace(mesh, enrolled=False) as outside:
        apply_in(mesh, outside, [pod("stranger", mesh.nodes[0], ["sleep", "3600"])])
        bind(mesh, shop, "service", "one")
        assert reached() == [True, True], "nobody has said that it is protected"
        mesh.kubectl("apply", "-n", shop, "-f", "-", stdin=json.dumps(PROTECTED))
        mesh.wait("nobody comes past the waypoint", lambda: reached() == [False, False])
        words = ("flows", "--denied", "--to", f"{shop}/server")
        callers = f"{shop}/client", f"{outside}/stranger"
        mesh.wait(
            "the records name the rule",
            lambda: all(RULE in mesh.ambit(*words, "--from", each).stdout for each in callers),
        )
        bind(mesh, shop, "service", "one", to="ambit.io/fail-open=true")
        mesh.wait("the written exception lets everybody in", lambda: reached() == [True, True])
        mesh.kubectl("label", "-n", shop, "service", "one", "ambit.io/fail-open-")
        mesh.wait("it is closed again", lambda: reached() == [False, False])
        mesh.kubectl("delete", "-n", shop, "authorizationpolicy", "protected")
        mesh.wait("it opens with the policy's end", lambda: reached() == [True, True])


@pytest.mark.feature("F28")
def test_past_a_waypoint_that_is_not_ready_goes_only_what_is_labelled_so(
    mesh: Mesh, shop: str, of_class: str
) -> None:
    """One that does not exist, or has no pods. An inline one is where callers are."""
    for name in ("one", "two"):
        bind(mesh, shop, "service", name)
    bind(mesh, shop, "service", "two", to="ambit.io/fail-open=true")
    pass_by(mesh, shop, {"one": "refused", "two": "client"})
    mesh.wait(
        "the record names the waypoint",
        lambda: f"waypoint {shop}/waypoint.{shop}" in mesh.ambit("flows", "--to", shop, "-n", shop).stdout,
    )
    make_waypoint(mesh, shop, of_class)
    pass_by(mesh, shop, {"one": way(of_class), "two": way(of_class)})
    if of_class == INLINE:
        return
    mesh.kubectl("scale", "-n", shop, "deployment", "waypoint", "--replicas=0")
    pass_by(mesh, shop, {"one": "refused", "two": "client"})
