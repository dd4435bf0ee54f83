"""A waypoint in front of a service: what passes through it, what its routes do, and that nobody goes past it.

All is tried with both kinds of waypoints, in pods of its own (`dedicated`), and inline in the callers' node proxies;
what is tried with the first only says why."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.authorizer import PROGRAM
from tests.mesh.placements import IN_PODS, at_both
from tests.mesh.pods import apply_in, pod
from tests.mesh.scrape import NODE_AGENTS, Sample, scrape, scrape_gateway, total
from tests.mesh.shop import Shop, make_shop, service, to
from tests.mesh.unbroken import no_request_fails

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]


def _shop(mesh: Mesh, of_class: str) -> AbstractContextManager[Shop]:
    return make_shop(mesh, of_class, "all" if of_class == IN_PODS else "service")


shops, shop = at_both(_shop)


@pytest.fixture(scope="module")
def dedicated(shops: dict[str, Shop]) -> Shop:
    return shops[IN_PODS]


@pytest.mark.feature("F31")
def test_requests_go_through_the_waypoint(dedicated: Shop) -> None:
    """Without a route to the service's own pods, which see the waypoint and are told who called. Inline there is no
    proxy between: test_inline.py."""
    own = f"spiffe://cluster.local/ns/{dedicated.namespace}/sa"
    through = f"By={own}/way;URI={own}/default"
    # Before its node knows the service, a pod's connections to it are none of the mesh's (docs/limits.md).
    dedicated.mesh.wait("an answer", lambda: through in dedicated.ask())
    said = dedicated.ask("/once")  # Records come when connections end.
    assert "/once" in said and through in said

    def records() -> list[tuple[str, str, str]]:
        """Of the pods' node: who called, who answered, and how."""
        words = ("flows", "--last", "500", "--to", dedicated.namespace, "-o", "json")
        flows = map(json.loads, dedicated.mesh.ambit(*words).stdout.splitlines())
        return [
            (each["source"].get("identity", ""), each["destination"].get("workload", ""), each["hop"])
            for each in flows
            if each["reporter"] == "destination"
        ]

    wanted = [(f"{own}/way", server, "tunnel") for server in ("v1", "v2")]
    dedicated.mesh.wait("the record", lambda: set(wanted) & set(records()))


@pytest.mark.feature("F43")
def test_every_request_is_told_of(shop: Shop) -> None:
    """By a record with both ends: of the waypoint, or of the caller's node."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    assert shop.server("/seen?x=y") == "v1"
    words = ("flows", "--requests", "--path", "/seen", "--from", f"{namespace}/client")
    record = mesh.wait("the record", lambda: mesh.ambit(*words, "-o", "json").stdout.splitlines())
    (told,) = map(json.loads, record)
    request = told["request"]
    by = (f"{namespace}/way", "waypoint") if shop.is_dedicated else (None, "source")
    assert (told.get("proxy"), told["reporter"], told["hop"]) == (*by, "tunnel")
    own = f"spiffe://cluster.local/ns/{namespace}/sa/default"
    assert told["source"]["identity"] == told["destination"]["identity"] == own
    assert told["destination"]["workload"] == "v1"
    assert told["destination"]["service"] == f"{namespace}/web.{namespace}.svc.cluster.local"
    assert (request["method"], request["host"], request["path"]) == ("GET", "web", "/seen")
    assert (request["code"], request["route"], request["attempts"]) == (200, f"{namespace}/web/0", 1)
    assert " GET web/seen 200 " in mesh.ambit(*words, "--code", "2xx").stdout


@pytest.mark.feature("F43")
def test_every_request_is_counted(shop: Shop) -> None:
    """In the metrics that Prometheus takes from the waypoint's pod, or from the caller's node."""
    mesh = shop.mesh
    shop.route(to(("web", 1)))
    mesh.wait("an answer", lambda: shop.server() in {"v1", "v2"})
    wanted = {
        "reporter": "waypoint" if shop.is_dedicated else "source",
        "source_workload": "client",
        "source_principal": f"spiffe://cluster.local/ns/{shop.namespace}/sa/default",
        "destination_service_name": "web",
        "destination_service_namespace": shop.namespace,
        "response_code": "200",
    }

    def counted() -> float:
        samples = scrape_gateway(mesh, shop.namespace, "way") if shop.is_dedicated else scrape(mesh)
        return total(samples, "istio_requests_total", **wanted)

    before = mesh.wait("the number", counted)
    assert shop.servers(10).total() == 10
    mesh.wait("ten more", lambda: counted() >= before + 10)


@pytest.mark.feature("F43")
def test_what_clients_say_is_a_label_where_a_telemetry_wants_it(shop: Shop) -> None:
    """Of too many values those that came first stay; all requests are counted nevertheless, with their other labels."""
    mesh, namespace = shop.mesh, shop.namespace
    labels = {
        "team": {"value": "request.headers['x-team']"},
        "at": {"value": "string(destination.port)"},
        "response_flags": {"operation": "REMOVE"},
    }
    overrides = [{"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": labels}]
    telemetry = {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "labelled"},
        "spec": {"metrics": [{"providers": [{"name": "prometheus"}], "overrides": overrides}]},
    }
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")

    def counted() -> Counter[str]:
        """Requests of callers by team."""
        found: Counter[str] = Counter()
        ours = {"destination_service_namespace": namespace, "at": "80"}
        for name, told, value in _samples(shop):
            if (
                name == "istio_requests_total"
                and ours.items() <= told.items()
                and told["reporter"] != "destination"
            ):
                assert "response_flags" not in told
                found[told["team"]] += int(value)
        return found

    asked = 0

    def is_labelled() -> bool:
        """Some of these are counted before there is the label, others later than they are looked for."""
        nonlocal asked
        asked += shop.servers(1, x_team="red").total()
        return counted()["red"] > 0

    shop.apply(telemetry)
    try:
        mesh.wait("the first label", is_labelled)
        before = counted()["red"]
        shop.servers(5, x_team="red")
        mesh.wait("five more", lambda: counted()["red"] >= before + 5)
        words = ("exec", "-i", "-n", namespace, "client", "--", "python3", "-c", _TEAMS)
        mesh.kubectl(*words)
        mesh.wait("those that are too many", lambda: counted()["other"] >= 200)
        found = counted()
        assert len(found) <= 102
        assert before + 5 <= found["red"] <= asked + 5
    finally:
        mesh.kubectl("delete", "-n", namespace, "telemetry/labelled")


_TEAMS = """
import http.client
client = http.client.HTTPConnection("web", timeout=30)
for i in range(300):
    client.request("GET", "/", headers={"x-team": f"team-{i}"})
    client.getresponse().read()
"""


def _samples(shop: Shop) -> list[Sample]:
    """Of the waypoint's pod, or of all nodes where there is none."""
    return scrape_gateway(shop.mesh, shop.namespace, "way") if shop.is_dedicated else scrape(shop.mesh)


@pytest.mark.feature("F43")
def test_metrics_of_connections_follow_a_telemetry_at_a_waypoint(dedicated: Shop) -> None:
    """Nodes count all, whatever it says."""
    overrides = [
        {"match": {"metric": "TCP_OPENED_CONNECTIONS"}, "tagOverrides": {"team": {"value": "'red'"}}},
        {"match": {"metric": "TCP_SENT_BYTES"}, "disabled": True},
    ]
    telemetry = {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "connections"},
        "spec": {"metrics": [{"overrides": overrides}]},
    }

    def labels(name: str) -> list[dict[str, str]]:
        return [each.labels for each in _samples(dedicated) if each.name == name]

    opened, sent = "istio_tcp_connections_opened_total", "istio_tcp_sent_bytes_total"
    dedicated.mesh.wait(
        "a number", lambda: dedicated.ask(service="web:81") and labels(opened) and labels(sent)
    )
    assert not any("team" in each for each in labels(opened))
    dedicated.apply(telemetry)
    try:

        def labelled() -> bool:
            dedicated.ask(service="web:81")
            found = labels(opened)
            return bool(found) and all(each.get("team") == "red" for each in found)

        dedicated.mesh.wait("the label", labelled)
        dedicated.mesh.wait("no other number", lambda: not labels(sent))
    finally:
        dedicated.mesh.kubectl("delete", "-n", dedicated.namespace, "telemetry/connections")


def test_requests_are_printed_where_a_telemetry_says_so(shop: Shop) -> None:
    """And those only that its filter is true of: by the waypoint, or the caller's node."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    telemetry = {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "printed"},
        "spec": {
            "targetRefs": [{"kind": "Service", "group": "", "name": "web"}],
            "accessLogging": [
                {"providers": [{"name": "envoy"}], "filter": {"expression": "request.path.contains('print')"}}
            ],
        },
    }
    apply_in(mesh, namespace, [telemetry])
    printer = ("-n", namespace, "deployment/way")
    if not shop.is_dedicated:
        printer = (*NODE_AGENTS, "--tail=-1")
    printed, silent = f"/printed/{namespace}", f"/silent/{namespace}"

    def lines(path: str) -> list[str]:
        shop.ask(path)
        said = mesh.kubectl("logs", *printer).stdout.splitlines()
        return [line for line in said if path in line]

    found = mesh.wait("a line", lambda: lines(printed))
    assert f'"GET {printed} HTTP/1.1" 200' in found[0]
    assert lines(silent) == []
    mesh.kubectl("delete", "telemetry", "-n", namespace, "printed")


def test_proxies_of_waypoints_are_listed(dedicated: Shop) -> None:
    """An inline one has none."""

    def proxies() -> list[tuple[str, str]]:
        return [
            (each["type"], each["sync"])
            for each in dedicated.mesh.dump("ps")
            if each["gateway"] == f"{dedicated.namespace}/way"
        ]

    dedicated.mesh.wait("the proxy has what it was sent", lambda: proxies() == [("waypoint", "SYNCED")])


@pytest.mark.feature("F32", "F118", "F122", "F141")
def test_a_header_leads_to_another_version(shop: Shop) -> None:
    second = to(("web-v2", 1), matches=[{"headers": [{"name": "x-version", "value": "2"}]}])
    shop.route(second, to(("web-v1", 1)))
    shop.comes_to("the route", "v2", "x-version: 2")
    shop.follows("the rest", "v1")
    assert shop.servers(50) == {"v1": 50}
    assert shop.servers(50, x_version="2") == {"v2": 50}
    assert shop.servers(50, x_version="3") == {"v1": 50}


@pytest.mark.feature("F36", "F118", "F122", "F141")
def test_requests_are_shared_out_by_weight(shop: Shop) -> None:
    shop.route(to(("web-v2", 1)))
    shop.follows("the first route", "v2")
    shop.route(to(("web-v1", 90), ("web-v2", 10)))
    shop.comes_to("the second route", "v1")
    found = shop.servers(200) + shop.servers(200)
    # Fewer or more once in a hundred million times.
    assert set(found) == {"v1", "v2"}
    assert 7 <= found["v2"] <= 78


@pytest.mark.feature("F33")
def test_requests_have_so_much_time(shop: Shop) -> None:
    shop.route(to(("web-v2", 1)))
    shop.follows("the first route", "v2")
    shop.route(to(("web-v1", 1), timeouts={"request": "1s"}))
    shop.mesh.wait("the time is over", lambda: shop.ask("/waits-at-v1").startswith("504"))
    # Also for the others on a machine that is busy.
    shop.comes_to("who is in time", "v1")


@pytest.mark.feature("F33")
def test_failed_requests_are_tried_again_elsewhere(shop: Shop) -> None:
    path = "/fails-at-v1"
    retry = {"attempts": 2, "codes": [503], "backoff": "10ms"}
    shop.route(to(("web", 1)))
    shop.mesh.wait("half of them fail", lambda: set(shop.servers(20, path)) == {"v2", "503"})
    shop.route(to(("web", 1), retry=retry))
    shop.mesh.wait("none fails", lambda: shop.servers(40, path) == {"v2": 40})
    shop.route(to(("web-v1", 1), retry=retry))

    def tries() -> int:
        before = shop.heard("v1", path)
        assert shop.ask(path)[:3] in {"200", "503"}
        return shop.heard("v1", path) - before

    shop.mesh.wait("it is tried three times where it fails always", lambda: tries() == 3)
    shop.route(to(("web-v1", 1), retry={**retry, "attempts": 100_000}), to(("web-v2", 1)))
    shop.mesh.wait("it is not tried for ever", lambda: shop.ask(path)[:3] == "500")


@pytest.mark.feature("F37")
def test_copies_of_requests_go_elsewhere_and_nobody_waits_for_them(shop: Shop) -> None:
    path = "/waits-at-v2"
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    copy = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web-v2", "port": 80}}}
    shop.route(to(("web-v1", 1), filters=[copy]))
    before = shop.heard("v2", path)
    # The one to whom the copy goes does not answer before it is told to.
    shop.mesh.wait("a copy", lambda: shop.server(path) == "v1" and shop.heard("v2", path) > before)
    shop.ask("/go-on", service="web-v2")


@pytest.mark.feature("F118")
def test_requests_of_a_rule_are_shown_to_who_says_yes_or_no(dedicated: Shop) -> None:
    """A filter of the API's experimental channel. While he is away nobody passes."""
    shop, mesh = dedicated, dedicated.mesh
    ports = [{"name": "http", "port": 8000}, {"name": "grpc", "port": 9000}]
    ready = {"readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1}}
    serving = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "authz"},
            "spec": {"selector": {"app": "authz"}, "ports": ports},
        },
        pod("authz", mesh.nodes[1], ["python3", "-uc", PROGRAM], labels={"app": "authz"}, **ready),
    ]
    apply_in(mesh, shop.namespace, serving)

    def asking(protocol: str, port: int) -> dict[str, Any]:
        asked = {"protocol": protocol, "backendRef": {"name": "authz", "port": port}, protocol.lower(): {}}
        matches = [{"path": {"value": f"/{protocol}"}}]
        filters = [{"type": "ExternalAuth", "externalAuth": asked}]
        return to(("web-v1", 1), matches=matches, filters=filters)

    shop.route(asking("HTTP", 8000), asking("GRPC", 9000), to(("web-v1", 1)))
    try:
        for protocol in ("HTTP", "GRPC"):
            mesh.wait("his no", lambda each=protocol: shop.ask(f"/{each}/no").startswith("401"))
            mesh.wait("his yes", lambda each=protocol: shop.server(f"/{each}/yes") == "v1")
        assert shop.server("/no") == "v1"
        mesh.kubectl("delete", "pod", "-n", shop.namespace, "authz", "--now")
        for protocol in ("HTTP", "GRPC"):
            mesh.wait("nobody", lambda each=protocol: shop.ask(f"/{each}/yes").startswith("403"))
    finally:
        shop.route(to(("web-v1", 1)))
        mesh.kubectl("delete", "-n", shop.namespace, "service/authz", "pod/authz", "--ignore-not-found")


@pytest.mark.feature("N22")
def test_servers_are_told_who_called_and_not_by_who_called(shop: Shop) -> None:
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    own = f"spiffe://cluster.local/ns/{shop.namespace}/sa"
    said = "x-forwarded-client-cert: By=me;URI=spiffe://cluster.local/ns/other/sa/king"
    # By whom: the waypoint, or the caller's own node.
    told = {f"200 v1 / By={own}/{each};URI={own}/default" for each in ("way", "default")}
    assert shop.ask("/", said) in told
    alike = [said.replace(*each, 1) for each in (("-", "_"), ("-client", "_client"), ("-cert:", "_cert:"))]
    assert shop.ask("/", *alike, said.replace("-", "_", 3)) in told


def _tcp_route(**weights: int) -> dict[str, Any]:
    """To backends by name, `_` in names stands for `-`."""
    backends = [
        {"name": name.replace("_", "-"), "port": 81, "weight": weight} for name, weight in weights.items()
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "TCPRoute",
        "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 81}],
            "rules": [{"backendRefs": backends}],
        },
    }


@pytest.mark.feature("F120")
def test_connections_go_where_a_tcp_route_says(dedicated: Shop) -> None:
    """And to the service's own pods without one. An inline waypoint refuses a TCPRoute, as one that is for requests."""
    for server in ("v2", "v1"):
        dedicated.apply(_tcp_route(**{f"web_{server}": 1}))
        dedicated.mesh.wait("the route", lambda wanted={server: 24}: _connect(dedicated, 24) == wanted)
    dedicated.apply(_tcp_route(nobody=1))
    dedicated.mesh.wait("the refusal", lambda: dedicated.ask(service="web:81").startswith("curl:"))
    dedicated.mesh.kubectl("delete", "-n", dedicated.namespace, "tcproute/web")
    dedicated.mesh.wait("no route", lambda: dedicated.ask(service="web:81").startswith("200"))


# Who answers each of so many connections.
_CONNECTS = """
import collections, http.client, json, sys
found = collections.Counter()
for _ in range(int(sys.argv[1])):
    client = http.client.HTTPConnection("web", 81, timeout=30)
    client.request("GET", "/")
    found[client.getresponse().read().decode().partition(" ")[0]] += 1
    client.close()
print(json.dumps(found))
"""


def _connect(shop: Shop, count: int) -> dict[str, int]:
    """Who answered how many of so many connections; nobody while one of them fails."""
    done = shop.mesh.exec(shop.namespace, "client", "python3", "-c", _CONNECTS, str(count), check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


@pytest.mark.feature("F62")
def test_connections_are_shared_out_by_weight(dedicated: Shop) -> None:
    """By a TCPRoute, which an inline waypoint refuses."""
    dedicated.apply(_tcp_route(web_v2=1))
    dedicated.mesh.wait("the first route", lambda: _connect(dedicated, 24) == {"v2": 24})
    dedicated.apply(_tcp_route(web_v1=80, web_v2=20))
    dedicated.mesh.wait("the second route", lambda: dedicated.ask(service="web:81").startswith("200 v1"))
    found = _connect(dedicated, 200)
    dedicated.mesh.kubectl("delete", "-n", dedicated.namespace, "tcproute/web")
    # Fewer or more once in a hundred million times.
    assert set(found) == {"v1", "v2"}
    assert 8 <= found["v2"] <= 75


def test_why_tells_what_a_request_meets(shop: Shop) -> None:
    """And the record of one that was sent says the same. Endpoints see the waypoint, or the caller itself."""
    shop.route(to(("web-v2", 1), matches=[{"path": {"type": "PathPrefix", "value": "/why"}}]))
    shop.mesh.wait("the route", lambda: shop.server("/why") == "v2")
    words = ("why", f"{shop.namespace}/client", "GET", "http://web/why", "-o", "json")

    def confirmed() -> dict[str, Any] | None:
        shop.ask("/why")
        answer: dict[str, Any] = json.loads(shop.mesh.ambit(*words).stdout)
        return answer if answer["confirmation"]["records"] == "agrees" else None

    answer = shop.mesh.wait("a record that says the same", confirmed)
    waypoint, seen = (f"{shop.namespace}/way", "way") if shop.is_dedicated else (None, "default")
    assert (answer["verdict"], answer.get("waypoint")) == ("allowed", waypoint)
    assert (answer["route"], answer["confirmation"]["verdict"]) == (f"{shop.namespace}/web/0", "200")
    assert [each["backend"] for each in answer["shares"]] == [f"{shop.namespace}/web-v2:80"]
    assert answer["shares"][0]["rulings"][0]["identity"].endswith(f"/sa/{seen}")


def test_why_names_the_policy_that_denies_a_request(shop: Shop) -> None:
    """And the record of one that was sent says the same."""
    shop.route(to(("web", 1)))
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "not-this"},
        "spec": {
            "action": "DENY",
            "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"to": [{"operation": {"paths": ["/why-not"]}}]}],
        },
    }
    shop.apply(policy)
    words = ("why", f"{shop.namespace}/client", "GET", "http://web/why-not", "-o", "json")

    def confirmed() -> dict[str, Any] | None:
        done = shop.mesh.ambit(*words, check=False)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer if done.returncode == 1 and answer["confirmation"]["records"] == "agrees" else None

    try:
        shop.mesh.wait("the denial", lambda: shop.ask("/why-not").startswith("403"))
        answer = shop.mesh.wait("a record that says the same", confirmed)
    finally:
        shop.mesh.kubectl("delete", "-n", shop.namespace, "authorizationpolicy/not-this")
    rule = f"{shop.namespace}/not-this[0]"
    assert (answer["verdict"], answer["confirmation"]["rule"]) == ("denied", rule)
    # A waypoint denies before it chooses where to send; without one each server's node decides.
    assert ("shares" not in answer) is shop.is_dedicated
    by = [answer["policy"]] if shop.is_dedicated else answer["shares"][0]["rulings"]
    assert {each["rule"] for each in by} == {rule}
    assert all(each["identity"].endswith("/sa/default") for each in by)
    shop.mesh.wait("no policy", lambda: shop.ask("/why-not").startswith("200"))


def test_endpoints_nearby_are_preferred_where_callers_choose(shop: Shop) -> None:
    """By the callers' nodes; a waypoint in pods chooses among all (docs/limits.md)."""
    near = service("web")
    near["metadata"]["annotations"] = {"networking.istio.io/traffic-distribution": "PreferSameNode"}
    shop.route(to(("web", 1)))
    shop.mesh.wait("both", lambda: set(shop.servers(20)) == {"v1", "v2"})
    shop.apply(near)
    try:
        if not shop.is_dedicated:
            shop.mesh.wait("the one nearby", lambda: shop.servers(20) == {"v2": 20})
        else:
            assert set(shop.servers(50)) == {"v1", "v2"}
    finally:
        shop.apply(service("web"))
    shop.mesh.wait("both again", lambda: set(shop.servers(20)) == {"v1", "v2"})


def test_what_no_rule_matches_is_not_found(shop: Shop) -> None:
    shop.route(to(("web-v1", 1), matches=[{"path": {"type": "Exact", "value": "/only"}}]))
    shop.mesh.wait("the route", lambda: shop.server("/other") == "404")
    assert shop.server("/only") == "v1"


@pytest.mark.parametrize("place", [0, 1])
def test_requests_are_routed_on_the_way_to_this_node_and_to_others(shop: Shop, place: int) -> None:
    """With the server's policy in force: who may not call it, the waypoint or the caller, is refused there."""
    node = shop.mesh.nodes[place]
    name = f"caller-{place}"
    shop.route(to(("web-v1", 1), matches=[{"path": {"value": "/one"}}]), to(("web-v2", 1)))
    apply_in(shop.mesh, shop.namespace, [pod(name, node, ["sleep", "3600"])])

    def asked(path: str) -> str:
        words = ("curl", "-sS", "-m", "30", f"http://web{path}")
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
    shop.mesh.kubectl("delete", "-n", shop.namespace, "pod", name)


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


def test_ports_that_are_no_http_go_on_as_bytes(shop: Shop) -> None:
    """Also of the same service: a server that speaks first is heard."""
    more = service("web")
    more["spec"]["ports"].append({"name": "greets", "port": 7000})
    shop.apply(more)
    greeting = pod("greets", shop.mesh.nodes[1], ["python3", "-uc", _GREETS], labels={"app": "web"})
    apply_in(shop.mesh, shop.namespace, [greeting])
    try:

        def heard() -> str:
            words = ("python3", "-c", _LISTENS)
            return shop.mesh.exec(shop.namespace, "client", *words, check=False).stdout.strip()

        shop.mesh.wait("the greeting", lambda: heard() == "welcome")
    finally:
        shop.mesh.kubectl("delete", "pod", "-n", shop.namespace, "greets")
        shop.apply(service("web"))


@pytest.mark.parametrize("event", ["the route changes", "endpoints change"])
def test_no_request_fails_while(shop: Shop, event: str) -> None:
    """Neither on a connection that is kept nor on a new one."""
    shop.route(to(("web-v1", 1)))
    shop.follows("the route", "v1")
    with no_request_fails(shop.mesh, shop.namespace):
        _EVENTS[event](shop)
        shop.follows("the route afterwards", "v1")


def _change_the_route(shop: Shop) -> None:
    for version in ("v2", "v1", "v2", "v1"):
        shop.route(to((f"web-{version}", 1)))
        shop.follows("the change", version)


def _change_endpoints(shop: Shop) -> None:
    more = pod("more", shop.mesh.nodes[0], ["sleep", "3600"], labels={"app": "web", "version": "v2"})
    apply_in(shop.mesh, shop.namespace, [more])
    shop.mesh.kubectl("delete", "pod", "-n", shop.namespace, "more")


_EVENTS: dict[str, Callable[[Shop], None]] = {
    "the route changes": _change_the_route,
    "endpoints change": _change_endpoints,
}


@pytest.mark.feature("F29")
def test_a_pod_that_is_called_by_its_own_address_is_behind_the_waypoint_too(dedicated: Shop) -> None:
    """An inline one is for services: rules hold for the pod whichever way it is reached (test_inline.py)."""
    for address in dedicated.mesh.pod_addresses(dedicated.namespace, "v1"):
        host = f"[{address}]" if ":" in address else address
        dedicated.mesh.wait(
            "an answer", lambda host=host: dedicated.ask("/own", service=f"{host}:8080").startswith("200 v1")
        )
        assert f"sa/way;URI=spiffe://cluster.local/ns/{dedicated.namespace}" in dedicated.ask(
            service=f"{host}:8080"
        )


def test_a_waypoint_is_replaced_under_requests(dedicated: Shop) -> None:
    """None fails: neither on a connection that is kept nor on a new one. (Of inline ones the nodes' proxies are
    replaced: test_inline.py.)"""
    dedicated.route(to(("web-v1", 1)))
    dedicated.follows("the route", "v1")
    selector = ("-n", dedicated.namespace, "-l", "gateway.networking.k8s.io/gateway-name=way")
    path = "jsonpath={.items[*].metadata.name}"

    def names() -> str:
        return dedicated.mesh.kubectl("get", "pods", *selector, "-o", path).stdout

    with no_request_fails(dedicated.mesh, dedicated.namespace):
        before = names()
        dedicated.mesh.kubectl("rollout", "restart", "-n", dedicated.namespace, "deployment/way")
        dedicated.mesh.wait("the former pod is gone", lambda: before not in names())


def test_without_a_waypoint_nobody_is_let_past(dedicated: Shop) -> None:
    """And the record says why. An inline one cannot be away."""
    mesh, namespace = dedicated.mesh, dedicated.namespace
    dedicated.route(to(("web-v1", 1)))
    dedicated.follows("the route", "v1")
    mesh.kubectl("scale", "-n", namespace, "deployment/way", "--replicas=0")
    try:
        mesh.wait("the refusal", lambda: dedicated.ask().startswith("curl:"))
        assert dedicated.ask(service="web-v2").startswith("curl:")

        def reasons() -> set[str]:
            words = ("flows", "--last", "200", "--from", f"{namespace}/client", "-o", "json")
            flows = map(json.loads, mesh.ambit(*words).stdout.splitlines())
            return {str(flow.get("error", "")) for flow in flows}

        name = f"{namespace}/way.{namespace}.svc.cluster.local"
        mesh.wait("the record", lambda: any(name in each and "not ready" in each for each in reasons()))
    finally:
        mesh.kubectl("scale", "-n", namespace, "deployment/way", "--replicas=1")
    dedicated.follows("the waypoint again", "v1")
