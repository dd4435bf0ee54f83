"""A gateway at the edge: who is outside the mesh comes in by it, and by mutual TLS from there on."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, pod, web_and_client
from tests.mesh.scrape import scrape_gateway, total
from tests.mesh.unbroken import no_request_fails
from tests.tokens import Issuer

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

ASK = """
import http.client, sys
client = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=30)
headers = dict(each.split(": ", 1) for each in sys.argv[5:])
client.request("GET", sys.argv[3], headers={"host": sys.argv[4], **headers})
answer = client.getresponse()
print(answer.status, answer.read().decode())
"""


def gateway(**spec: Any) -> dict[str, Any]:
    """Without a load balancer, which not every cluster has."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "front", "annotations": {"networking.istio.io/service-type": "ClusterIP"}},
        "spec": {
            "gatewayClassName": "ambit",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            **spec,
        },
    }


def route(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {"parentRefs": [{"name": "front"}], "rules": list(rules), **spec},
    }


class Shop:
    """A namespace of the mesh, and a client that is not of the mesh."""

    def __init__(self, mesh: Mesh, namespace: str, outside: str) -> None:
        self.mesh = mesh
        self.namespace = namespace
        self.outside = outside

    def apply(self, *objects: dict[str, Any]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.mesh.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=text)

    def address(self, name: str = "front") -> str:
        """When it is programmed."""
        wait = (
            "wait",
            "-n",
            self.namespace,
            f"gateway/{name}",
            "--for=condition=Programmed",
            "--timeout=110s",
        )
        done = self.mesh.kubectl(*wait, check=False)
        if done.returncode:
            told = self.mesh.kubectl("get", "-n", self.namespace, "gateways,pods", "-o", "yaml").stdout
            raise AssertionError(f"gateway {name} is not programmed: {told[-9000:]}")
        path = "jsonpath={.status.addresses[0].value}"
        return self.mesh.kubectl("get", "gateway", name, "-n", self.namespace, "-o", path).stdout

    def get(
        self, address: str, path: str = "/", host: str = "shop.example.com", token: str = "", said: str = ""
    ) -> str:
        """Status and body, asked from outside the mesh. `said` is one more header."""
        bearer = (f"authorization: Bearer {token}",) if token else ()
        asked = ("python3", "-c", ASK, address, "80", path, host, *bearer, *([said] if said else []))
        return self.mesh.exec(self.outside, "client", *asked, check=False).stdout.strip()

    def status_of(self, address: str, **asked: str) -> str:
        return self.get(address, **asked).partition(" ")[0]

    def until(self, address: str, status: str, **asked: str) -> None:
        self.mesh.wait(f"{status} from {address}", lambda: self.status_of(address, **asked) == status)


@pytest.fixture(scope="module")
def shop(mesh: Mesh) -> Iterator[Shop]:
    with make_namespace(mesh) as inside, make_namespace(mesh, enrolled=False) as outside:
        apply_in(mesh, inside, web_and_client())
        apply_in(mesh, outside, [pod("client", mesh.nodes[0], ["sleep", "3600"])])
        yield Shop(mesh, inside, outside)


@pytest.mark.feature("F116")
def test_a_gateway_brings_the_outside_in_by_mutual_tls_and_goes(shop: Shop) -> None:
    """Its pods call as their own account: STRICT lets them in."""
    strict = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "strict"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    only = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "gateway-only"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "rules": [
                {"from": [{"source": {"principals": [f"cluster.local/ns/{shop.namespace}/sa/front-ambit"]}}]}
            ],
        },
    }
    shop.apply(strict, only, gateway(), route({"backendRefs": [{"name": "web", "port": 80}]}))
    address = shop.address()
    shop.until(address, "200")
    assert "Directory listing" in shop.get(address)
    shop.apply(route({"backendRefs": [{"name": "web", "port": 80}]}, hostnames=["other.example.com"]))
    shop.until(address, "404")
    assert shop.status_of(address, host="other.example.com") == "200"
    made = ("gateway/front", "httproute/web", "peerauthentication/strict", "authorizationpolicy/gateway-only")
    shop.mesh.kubectl("delete", "-n", shop.namespace, *made)
    for kind in ("deployment", "service", "serviceaccount"):
        args = ("wait", "-n", shop.namespace, f"{kind}/front-ambit", "--for=delete", "--timeout=110s")
        shop.mesh.kubectl(*args)


def _wanted(deployment: str) -> dict[str, Any]:
    metadata = {"name": "wanted"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"deployment": deployment}}


@pytest.mark.feature("F61")
def test_a_gateway_has_as_many_pods_as_its_config_map_says_and_outlives_mistakes(shop: Shop) -> None:
    infrastructure = {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "wanted"}}
    shop.apply(
        _wanted("spec: {replicas: 2}"),
        gateway(infrastructure=infrastructure),
        route({"backendRefs": [{"name": "web", "port": 80}]}),
    )
    address = shop.address()

    def said(kind: str, path: str) -> str:
        return shop.mesh.kubectl("get", kind, "-n", shop.namespace, "-o", f"jsonpath={{{path}}}").stdout

    ready = ".status.readyReplicas"
    shop.mesh.wait("two pods", lambda: said("deployment/front-ambit", ready) == "2")
    shop.until(address, "200")
    shop.apply(_wanted("spec: {template: {spec: {hostNetwork: true}}}"))
    accepted = ".status.conditions[?(@.type=='Accepted')].reason"
    shop.mesh.wait("the refusal", lambda: said("gateway/front", accepted) == "InvalidParameters")
    assert shop.status_of(address) == "200" and said("deployment/front-ambit", ready) == "2"
    shop.apply(_wanted("spec: {replicas: 1}"))
    shop.mesh.wait("one pod", lambda: said("deployment/front-ambit", ready) == "1")
    shop.mesh.wait("no refusal", lambda: said("gateway/front", accepted) == "Accepted")
    assert shop.status_of(address) == "200"
    for kind, name in (("gateway", "front"), ("httproute", "web")):
        shop.mesh.kubectl("delete", "-n", shop.namespace, kind, name)


@pytest.mark.feature("F115")
def test_classes_are_accepted_and_others_are_left_alone(shop: Shop) -> None:
    def classes() -> dict[str, str]:
        items = json.loads(shop.mesh.kubectl("get", "gatewayclasses", "-o", "json").stdout)["items"]
        return {
            each["metadata"]["name"]: condition["status"]
            for each in items
            for condition in each.get("status", {}).get("conditions", ())
            if condition["type"] == "Accepted"
        }

    own = ("ambit", "istio", "ambit-waypoint", "istio-waypoint", "ambit-inline")
    shop.mesh.wait("own classes", lambda: {classes().get(each) for each in own} == {"True"})
    name = f"foreign-{shop.namespace}"
    foreign = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": "example.com/somebody-else"},
    }
    theirs, ours = gateway(gatewayClassName=name), gateway()
    theirs["metadata"] = {"name": "theirs"}
    try:
        shop.apply(foreign, theirs, ours)
        shop.address()
        told = json.loads(
            shop.mesh.kubectl("get", "gateway/theirs", "-n", shop.namespace, "-o", "json").stdout
        )
        # The API gives every Gateway conditions of its own, which say that nobody has looked at it.
        waiting = {each["reason"] for each in told.get("status", {}).get("conditions", ())}
        assert waiting <= {"Pending"}
        found = shop.mesh.kubectl("get", "deployments", "-n", shop.namespace, "-o", "name").stdout.split()
        assert found == ["deployment.apps/front-ambit"]
        assert name not in classes() or classes()[name] == "Unknown"
    finally:
        shop.mesh.kubectl("delete", "gatewayclass", name)
        shop.mesh.kubectl("delete", "-n", shop.namespace, "gateway/front", "gateway/theirs")


@pytest.mark.feature("F119")
def test_one_route_gives_the_same_answers_at_the_edge_and_inside(shop: Shop) -> None:
    inside = gateway(
        gatewayClassName="ambit-inline", listeners=[{"name": "mesh", "port": 15008, "protocol": "HBONE"}]
    )
    inside["metadata"] = {"name": "inside"}
    gone = {"type": "RequestRedirect", "requestRedirect": {"path": _NEW_PATH, "statusCode": 301}}
    header = {"name": "x-old", "value": "yes"}
    shop.mesh.kubectl("label", "-n", shop.namespace, "service/web", "istio.io/use-waypoint=inside")
    shop.apply(
        inside,
        gateway(),
        route(
            {"matches": [{"path": {"value": "/old"}, "headers": [header]}], "filters": [gone]},
            {
                "matches": [{"path": {"value": "/"}, "method": "GET"}],
                "backendRefs": [{"name": "web", "port": 80}],
            },
            parentRefs=[{"name": "front"}, {"group": "", "kind": "Service", "name": "web"}],
        ),
    )
    address = shop.address()

    def answers(namespace: str, host: str) -> list[str]:
        found = []
        for words in (("/",), ("/old", "-H", "x-old: yes"), ("/old",), ("/", "-X", "DELETE")):
            asked = ("curl", "-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code} %header{location}")
            url = f"http://{host}{words[0]}"
            done = shop.mesh.exec(namespace, "client", *asked, *words[1:], url, check=False)
            found.append(done.stdout.strip().replace(host, "HOST"))
        return found

    wanted = ["200", "301 http://HOST/new", "404", "404"]
    shop.mesh.wait("answers at the edge", lambda: answers(shop.outside, address) == wanted)
    shop.mesh.wait("answers inside", lambda: answers(shop.namespace, "web") == wanted)
    shop.mesh.kubectl("label", "-n", shop.namespace, "service/web", "istio.io/use-waypoint-")
    shop.mesh.kubectl("delete", "-n", shop.namespace, "gateway/front", "gateway/inside", "httproute/web")


_NEW_PATH = {"type": "ReplaceFullPath", "replaceFullPath": "/new"}


# Says who called it, as the proxy before it tells; like CGI and WSGI it reads `_` in names of headers as `-`.
_CALLED_BY = """
import http.server
class Tell(http.server.BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    def do_GET(self):
        folded = ((key.lower().replace("_", "-"), value) for key, value in self.headers.items())
        told = [value for key, value in folded if key == "x-forwarded-client-cert"]
        said = (",".join(told) or "nobody told").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
http.server.ThreadingHTTPServer(("", 8080), Tell).serve_forever()
"""


@pytest.mark.feature("F124")
def test_a_gateway_goes_through_a_waypoint_when_a_label_says_so(shop: Shop) -> None:
    way = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "way"},
        "spec": {
            "gatewayClassName": "ambit-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }

    def service(**labels: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "tell", "labels": {"istio.io/use-waypoint": "way", **labels}},
            "spec": {
                "selector": {"app": "tell"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        }

    ready = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
    server = pod("tell", shop.mesh.nodes[0], ["python3", "-uc", _CALLED_BY], labels={"app": "tell"}, **ready)
    shop.apply(way, service(), server, gateway(), route({"backendRefs": [{"name": "tell", "port": 80}]}))
    address = shop.address()
    shop.address("way")
    shop.mesh.wait("it is called directly", lambda: shop.get(address) == "200 nobody told")
    for header in ("x-forwarded-client-cert", "x_forwarded_client_cert", "x-forwarded-client_cert"):
        assert shop.get(address, said=f"{header}: URI=spiffe://a") == "200 nobody told", header
    shop.apply(service(**{"istio.io/ingress-use-waypoint": "true"}))
    own = f"spiffe://cluster.local/ns/{shop.namespace}/sa"
    through = f"200 By={own}/way;URI={own}/front-ambit"
    shop.mesh.wait("it is called through its waypoint", lambda: shop.get(address) == through)
    assert shop.get(address, said="x_forwarded_client_cert: URI=spiffe://a") == through

    def answer(namespace: str, host: str, path: str) -> str:
        asked = ("curl", "-sS", "-m", "30", "--path-as-is", "-o", "/dev/null", "-w")
        words = (*asked, "%{http_code} %header{x-ambit-reason}", f"http://{host}{path}")
        return shop.mesh.exec(namespace, "client", *words, check=False).stdout.strip()

    # What the waypoint denies no spelling gets past it, and clients outside are not told who said no.
    target = {"group": "", "kind": "Service", "name": "tell"}
    operation = {"operation": {"paths": ["/denied", "/denied/*"]}}
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "tell"},
        "spec": {"action": "DENY", "targetRefs": [target], "rules": [{"to": [operation]}]},
    }
    shop.apply(policy)
    shop.mesh.wait("it is denied", lambda: answer(shop.outside, address, "/denied") == "403")
    shop.mesh.wait(
        "a caller inside is told", lambda: answer(shop.namespace, "tell", "/denied") == "403 denied"
    )
    for path in ("//denied", "/x/..%2fdenied", "/denied;a=b", "/%2564enied", "/x/..;/denied", "/denied%3fa"):
        assert answer(shop.outside, address, path) == "403", path
    asked = ("python3", "-c", _TWO_IN_ONE, address)
    said = shop.mesh.exec(shop.outside, "client", *asked).stdout
    assert "HTTP/1.1 400 " in said and "nobody" not in said and "By=" not in said
    assert shop.get(address) == through
    shop.mesh.kubectl(
        *("delete", "-n", shop.namespace, "gateway/front", "gateway/way"),
        *("httproute/web", "authorizationpolicy/tell"),
    )


# A body with two ends, of which one hides a request.
_TWO_IN_ONE = """
import socket, sys
hidden = "0\\r\\n\\r\\nGET /denied HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n"
head = "POST / HTTP/1.1\\r\\nhost: a\\r\\ntransfer-encoding: chunked\\r\\ncontent-length: "
with socket.create_connection((sys.argv[1], 80), timeout=60) as connection:
    connection.sendall((head + str(len(hidden)) + "\\r\\n\\r\\n" + hidden).encode())
    while part := connection.recv(65536):
        print(part.decode(), flush=True)
"""


def test_a_rolling_restart_fails_no_request(shop: Shop) -> None:
    shop.apply(gateway(), route({"backendRefs": [{"name": "web", "port": 80}]}))
    address = shop.address()
    shop.until(address, "200")
    named = ("-n", shop.namespace, "deployment/front-ambit")
    pods = ("pods", "-n", shop.namespace, "-o", "name", "-l", "gateway.networking.k8s.io/gateway-name=front")
    with no_request_fails(shop.mesh, shop.outside, address):
        shop.mesh.kubectl("rollout", "restart", *named)
        shop.mesh.kubectl("rollout", "status", *named, "--timeout=110s")
        shop.mesh.wait("one pod is left", lambda: len(shop.mesh.kubectl("get", *pods).stdout.split()) == 1)
    shop.mesh.kubectl("delete", "-n", shop.namespace, "gateway/front", "httproute/web")


_ECHO_UDP = """
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("::", 5353))
while True:
    asked, peer = server.recvfrom(65536)
    server.sendto(b"heard " + asked, peer)
"""
_ASK_UDP = """
import socket, sys
sending = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sending.settimeout(1)
sending.sendto(b"hi", (sys.argv[1], 5300))
print(sending.recv(100).decode())
"""


@pytest.mark.feature("F40")
@pytest.mark.feature("F87")
def test_policies_and_tokens_for_its_pods_are_enforced_and_told(shop: Shop) -> None:
    """Those that select them, as for Istio's ingress gateways, by who connects, what is asked for and who signed."""
    issuer = Issuer()
    chosen = {"matchLabels": {"gateway.networking.k8s.io/gateway-name": "front"}}

    def policy(*rules: dict[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "edge"},
            "spec": {"selector": chosen, "action": "DENY", "rules": list(rules)},
        }

    tokens = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "edge"},
        "spec": {"selector": chosen, "jwtRules": [{"issuer": issuer.name, "jwks": issuer.jwks}]},
    }
    private = {"to": [{"operation": {"paths": ["/private*"]}}]}
    shop.apply(gateway(), route({"backendRefs": [{"name": "web", "port": 80}]}), policy(private))
    address = shop.address()
    shop.until(address, "200")
    shop.until(address, "403", path="/private")
    assert shop.status_of(address, path="/x/../private/a") == "403"
    wait = ("wait", "-n", shop.namespace, "--for=condition=WaypointAccepted", "--timeout=110s")
    shop.mesh.kubectl(*wait, "authorizationpolicy/edge")

    def is_told() -> bool:
        told = shop.mesh.ambit("flows", "--requests", "--denied", "-o", "json", "-n", shop.namespace).stdout
        return f'"{shop.namespace}/edge[0]"' in told

    shop.mesh.wait("a record of the denied request", is_told)
    anonymous = {"from": [{"source": {"notRequestPrincipals": ["*"]}}]}
    shop.apply(tokens, policy(anonymous))
    shop.until(address, "403")
    shop.until(address, "200", token=issuer.token())
    assert shop.status_of(address, token=Issuer().token()) == "401"
    everybody = {"from": [{"source": {"ipBlocks": ["0.0.0.0/0", "::/0"]}}]}
    shop.apply(policy(everybody))
    shop.until(address, "403", token=issuer.token())
    for each in ("gateway/front", "httproute/web", "authorizationpolicy/edge", "requestauthentication/edge"):
        shop.mesh.kubectl("delete", "-n", shop.namespace, each)


@pytest.mark.feature("F14")
def test_connections_that_nobody_reads_are_told_of(shop: Shop) -> None:
    """With the rule that denies them, and in the metrics that Prometheus takes."""
    mesh, own = shop.mesh, shop.namespace
    tcp = {
        **route({"backendRefs": [{"name": "web", "port": 80}]}),
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "TCPRoute",
    }
    shop.apply(gateway(listeners=[{"name": "tcp", "port": 9000, "protocol": "TCP"}]), tcp)
    address = shop.address()

    def asked() -> str:
        words = ("python3", "-c", ASK, address, "9000", "/", "web")
        return mesh.exec(shop.outside, "client", *words, check=False).stdout.partition(" ")[0]

    def records(*words: str) -> list[dict[str, Any]]:
        told = mesh.ambit("flows", "--last", "100", "-n", own, "-o", "json", *words).stdout
        found = [each for each in map(json.loads, told.splitlines()) if each["reporter"] == "gateway"]
        return [each for each in found if "request" not in each]

    mesh.wait("an answer", lambda: asked() == "200")

    def answered() -> list[dict[str, Any]]:
        return [each for each in records("--to", f"{own}/web") if each["sent"]]

    (last, *_) = mesh.wait("the record", answered)
    assert (last["proxy"], last["hop"], last["destination"]["workload"]) == (f"{own}/front", "tunnel", "web")

    def sent() -> float:
        """Asked again: who answered before may be a pod of the former listeners, which takes its counts along."""
        asked()
        samples = scrape_gateway(mesh, own, "front")
        return total(samples, "istio_tcp_sent_bytes_total", destination_service_name="web")

    mesh.wait("what is counted", sent)
    everybody = {"from": [{"source": {"ipBlocks": ["0.0.0.0/0", "::/0"]}}]}
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "edge"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}],
            "action": "DENY",
            "rules": [everybody],
        },
    }
    shop.apply(policy)
    mesh.wait("the refusal", lambda: asked() != "200")
    mesh.wait("its record", lambda: f"{own}/edge[0]" in {each.get("policy") for each in records("--denied")})
    mesh.kubectl("delete", "-n", own, "gateway/front", "tcproute/web", "authorizationpolicy/edge")


@pytest.mark.feature("N59")
def test_nothing_in_another_network_is_called(shop: Shop) -> None:
    """The same server, as a WorkloadEntry of the mesh's own network, and of another one."""
    (address, *_) = shop.mesh.pod_addresses(shop.namespace, "web")
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]

    def entry(**spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": "far"},
            "spec": {"address": address, "labels": {"app": "far"}, **spec},
        }

    far = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "far"},
        "spec": {"selector": {"app": "far"}, "ports": ports},
    }
    shop.apply(far, entry(), gateway(), route({"backendRefs": [{"name": "far", "port": 80}]}))
    edge = shop.address()
    shop.until(edge, "200")
    shop.apply(entry(network="elsewhere"))
    shop.until(edge, "503")
    shop.mesh.kubectl(
        "delete", "-n", shop.namespace, "gateway/front", "httproute/web", "service/far", "workloadentry/far"
    )


@pytest.mark.feature("F121")
def test_datagrams_go_where_a_udp_route_says(shop: Shop) -> None:
    """By the address of the gateway's Service to a pod of the mesh, which takes them in plain text, STRICT or not."""
    of_udp = {"name": "dgram", "port": 53, "protocol": "UDP", "targetPort": 5353}
    server = pod("udp", shop.mesh.nodes[1], ["python3", "-c", _ECHO_UDP], labels={"app": "udp"})
    backend = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "udp"},
        "spec": {"selector": {"app": "udp"}, "ports": [of_udp]},
    }
    udp_route = {
        **route({"backendRefs": [{"name": "udp", "port": 53}]}),
        "kind": "UDPRoute",
        "metadata": {"name": "udp"},
    }
    # Pods of the gateway before would answer as well, and take their counts along.
    pods = ("pods", "-n", shop.namespace, "-o", "name", "-l", "gateway.networking.k8s.io/gateway-name=front")
    shop.mesh.wait("no pod of the former gateway", lambda: shop.mesh.kubectl("get", *pods).stdout == "")
    shop.apply(
        server, backend, gateway(listeners=[{"name": "udp", "port": 5300, "protocol": "UDP"}]), udp_route
    )
    asked = ("python3", "-c", _ASK_UDP, shop.address())

    def answer() -> str:
        return shop.mesh.exec(shop.outside, "client", *asked, check=False).stdout.strip()

    shop.mesh.wait("an answer by UDP", lambda: answer() == "heard hi")
    accepted = "jsonpath={.status.parents[*].conditions[?(@.type=='Accepted')].status}"
    found = shop.mesh.kubectl("get", "udproute", "udp", "-n", shop.namespace, "-o", accepted)
    assert found.stdout == "True"
    # Who is behind the port ends with the route, and with them the sessions of clients.
    shop.mesh.kubectl("delete", "-n", shop.namespace, "udproute/udp")
    (told, *_) = shop.mesh.wait("the record", lambda: _datagram_records(shop))
    assert (told["proxy"], told["hop"]) == (f"{shop.namespace}/front", "direct")
    assert told["destination"]["service"].startswith(f"{shop.namespace}/udp.")
    assert told["datagrams"] == {
        "listener": "udp",
        "route": f"{shop.namespace}/udp/0",
        "received": 1,
        "sent": 1,
    }
    assert (told["received"], told["sent"]) == (2, 8)

    def counted() -> float:
        samples = scrape_gateway(shop.mesh, shop.namespace, "front")
        return total(samples, "ambit_udp_sent_bytes_total", destination_service_name="udp")

    shop.mesh.wait("what is counted", lambda: counted() >= 8)
    shop.mesh.kubectl("delete", "-n", shop.namespace, "gateway/front", "service/udp", "pod/udp")


def _datagram_records(shop: Shop) -> list[dict[str, Any]]:
    """Of clients that were answered."""
    told = shop.mesh.ambit("flows", "--last", "100", "-n", shop.namespace, "-o", "json").stdout
    found = [each for each in map(json.loads, told.splitlines()) if "datagrams" in each]
    return [each for each in found if each.get("sent")]
