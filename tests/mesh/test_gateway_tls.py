"""TLS at a gateway: which certificate is shown to whom, who is asked for one, what TLS is taken, and where it ends.

All of one Gateway, whose listeners change; all on one port."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ambit.testing.mesh import Mesh
from tests.ingest.gateway.pairs import Authority, Pair, https, secret
from tests.mesh.pods import apply_in, make_namespace, pod, web_and_client
from tests.mesh.test_gateway import Shop, gateway, route

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

SHOP = "shop.example.com"
AUTHORITY, SERVERS = Authority("gateway"), Authority("servers")
"""The gateway's, and that of a server which speaks TLS itself."""
# Says what was agreed with whom, and what was answered.
_ASK = """
import hashlib, http.client, json, socket, ssl, sys, tempfile
asked = json.loads(sys.argv[1])
name, context = asked["name"], ssl.create_default_context(cadata=asked["believes"])
context.verify_flags &= ~ssl.VERIFY_X509_STRICT
if asked["newest"]:
    context.maximum_version = ssl.TLSVersion[asked["newest"]]
if asked["shows"]:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(asked["shows"])
        file.flush()
        context.load_cert_chain(file.name)
client = http.client.HTTPConnection(name)
plain = socket.create_connection((asked["address"], 443), 30)
client.sock = context.wrap_socket(plain, server_hostname=name)
agreed = {
    "version": client.sock.version(),
    "suite": client.sock.cipher()[0],
    "certificate": hashlib.sha256(client.sock.getpeercert(True)).hexdigest(),
}
client.request("GET", "/", headers={"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/a/sa/b"})
answer = client.getresponse()
print(json.dumps({**agreed, "status": answer.status, "body": answer.read().decode()}))
"""
# In plain text it says who it is told that called it, by TLS, with the chain and key of its environment, by which name
# it was asked for.
_SERVER = """
import http.server, os, ssl, tempfile, threading
names = []
class Handler(http.server.BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    def do_GET(self):
        caller = self.headers.get("x-forwarded-client-cert") or "nobody"
        said = " ".join(["asked for", *names[-1:]] if self.server is secured else ["told of", caller]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
plain, secured = (http.server.ThreadingHTTPServer(("", port), Handler) for port in (8080, 8443))
with tempfile.NamedTemporaryFile("w") as file:
    file.write(os.environ["PAIR"])
    file.flush()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file.name)
context.sni_callback = lambda socket, name, _: names.append(name)
secured.socket = context.wrap_socket(secured.socket, server_side=True)
threading.Thread(target=secured.serve_forever).start()
plain.serve_forever()
"""


class Edge(Shop):
    """Its gateway has an address from the beginning, and leads to `web` what HTTPS listeners take."""

    def __init__(self, mesh: Mesh, namespace: str, outside: str) -> None:
        super().__init__(mesh, namespace, outside)
        self.listen(https("https", "shown", hostname=SHOP))
        self.show("shown", AUTHORITY.pair(SHOP))
        self.lead_to("web")
        self.at = self.address()

    def listen(self, *listeners: dict[str, Any], **more: Any) -> None:
        self.apply(gateway(listeners=list(listeners), **more))

    def lead_to(self, service: str) -> None:
        self.apply(route({"backendRefs": [{"name": service, "port": 80}]}))

    def show(self, name: str, pair: Pair) -> None:
        self.apply({"apiVersion": "v1", "kind": "Secret", **secret(name, pair, namespace=self.namespace)[1]})

    def told(
        self,
        name: str = SHOP,
        *,
        believes: Authority = AUTHORITY,
        shows: Pair | None = None,
        newest: str = "",
    ) -> dict[str, Any]:
        """What a client outside of the mesh is told that asks for this name, believes this authority and knows TLS
        up to this version; nothing where it is refused."""
        asked = {
            "address": self.at,
            "name": name,
            "believes": believes.root,
            "shows": shows.chain + shows.key if shows else "",
            "newest": newest,
        }
        words = ("python3", "-c", _ASK, json.dumps(asked))
        done = self.mesh.exec(self.outside, "client", *words, check=False)
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        return answer

    def reason(self, kind: str, listener: int = 0) -> str:
        """Of a condition of a listener."""
        path = f"{{.status.listeners[{listener}].conditions[?(@.type=='{kind}')].reason}}"
        get = ("get", "gateway", "front", "-n", self.namespace, "-o", f"jsonpath={path}")
        return self.mesh.kubectl(*get).stdout


@pytest.fixture(scope="module")
def edge(mesh: Mesh) -> Iterator[Edge]:
    with make_namespace(mesh) as inside, make_namespace(mesh, enrolled=False) as outside:
        pair = SERVERS.pair("*.passed.example.com")
        env = [{"name": "PAIR", "value": pair.chain + pair.key}]
        probe = {"tcpSocket": {"port": 8443}, "periodSeconds": 1}
        command = ["python3", "-uc", _SERVER]
        server = pod(
            "server", mesh.nodes[1], command, labels={"app": "server"}, env=env, readinessProbe=probe
        )
        ports = [
            {"name": name, "port": port, "targetPort": 8000 + port}
            for name, port in (("http", 80), ("tls", 443))
        ]
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "server"},
            "spec": {"selector": {"app": "server"}, "ports": ports},
        }
        apply_in(mesh, outside, [pod("client", mesh.nodes[0], ["sleep", "3600"])])
        apply_in(mesh, inside, [*web_and_client()[:2], service, server])
        yield Edge(mesh, inside, outside)


def fingerprint(pair: Pair) -> str:
    return x509.load_pem_x509_certificate(pair.chain.encode()).fingerprint(hashes.SHA256()).hex()


@pytest.mark.feature("F117")
def test_a_certificate_is_shown_and_followed_and_needs_a_grant(edge: Edge) -> None:
    edge.listen(https("https", "shown", hostname=SHOP))
    for pair in (AUTHORITY.pair(SHOP), AUTHORITY.pair(SHOP)):
        edge.show("shown", pair)
        wanted = fingerprint(pair)
        edge.mesh.wait("it is shown", lambda wanted=wanted: edge.told().get("certificate") == wanted)
    assert edge.told()["status"] == 200
    edge.listen(https("https", f"{edge.outside}/shown", hostname=SHOP))
    edge.mesh.wait("it is refused", lambda: edge.reason("ResolvedRefs") == "RefNotPermitted")


def _ask_for_certificates(edge: Edge, authority: Authority, **more: str) -> None:
    """Of this authority."""
    roots = {"ca.crt": authority.root}
    edge.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "clients"}, "data": roots})
    believed = {"group": "", "kind": "ConfigMap", "name": "clients"}
    validation = {"caCertificateRefs": [believed], **more}
    asked = {"frontend": {"default": {"validation": validation}}}
    edge.listen(https("https", "shown", hostname=SHOP), tls=asked)


@pytest.mark.feature("F91")
def test_clients_show_certificates(edge: Edge) -> None:
    clients, others = Authority(), Authority()
    _ask_for_certificates(edge, clients)
    friend = clients.pair("friend")
    edge.mesh.wait("nobody without one is let in", lambda: edge.told(shows=friend) and not edge.told())
    assert edge.told(shows=friend)["status"] == 200
    assert not edge.told(shows=others.pair("friend"))


@pytest.mark.feature("N51")
def test_backends_are_told_of_certificates_that_nobody_verified(edge: Edge) -> None:
    """And of nothing that a client says of himself; who shows none comes in as well."""
    edge.lead_to("server")
    _ask_for_certificates(edge, Authority(), mode="AllowInsecureFallback")
    shown = Authority().pair("friend")

    def told(pair: Pair | None = None) -> str:
        return str(edge.told(shows=pair).get("body", ""))

    edge.mesh.wait("somebody without a certificate", lambda: told() == "told of nobody")
    edge.mesh.wait("somebody with one", lambda: "Hash=" in told(shown))
    parts = dict(each.split("=", 1) for each in told(shown).removeprefix("told of ").split(";"))
    assert parts["Hash"] == fingerprint(shown) and set(parts) == {"Hash", "Cert"}
    assert unquote(parts["Cert"].strip('"')).strip() == shown.chain.strip()
    path = "jsonpath={.status.conditions[?(@.type=='InsecureFrontendValidationMode')].status}"
    get = ("get", "gateway", "front", "-n", edge.namespace, "-o", path)
    edge.mesh.wait("it is said", lambda: edge.mesh.kubectl(*get).stdout == "True")
    edge.lead_to("web")


@pytest.mark.feature("N17")
def test_options_choose_what_tls_is_taken(edge: Edge) -> None:
    def listen(option: str, value: str) -> None:
        listener = https("https", "shown", hostname=SHOP)
        edge.listen({**listener, "tls": {**listener["tls"], "options": {option: value}}})

    suite = "ECDHE-ECDSA-CHACHA20-POLY1305"
    listen("gateway.istio.io/tls-cipher-suites", suite)
    edge.mesh.wait("the suite", lambda: edge.told(newest="TLSv1_2").get("suite") == suite)
    assert edge.told()["version"] == "TLSv1.3"
    listen("ambit.io/tls-min-version", "1.3")
    edge.mesh.wait("nothing older", lambda: edge.told() and not edge.told(newest="TLSv1_2"))
    assert edge.told()["version"] == "TLSv1.3"
    listen("example.com/tls-min-version", "1.3")
    edge.mesh.wait("the refusal", lambda: edge.reason("Accepted") == "UnsupportedValue")
    edge.mesh.wait("nobody is let in", lambda: edge.told().get("status") != 200)


def _stream_route(kind: str, section: str, backend: str, port: int, *hostnames: str) -> dict[str, Any]:
    names = {"hostnames": list(hostnames)} if hostnames else {}
    made = route(
        {"backendRefs": [{"name": backend, "port": port}]},
        parentRefs=[{"name": "front", "sectionName": section}],
        **names,
    )
    return {**made, "kind": kind, "metadata": {"name": section if hostnames else f"all-{section}"}}


@pytest.mark.feature("N28")
def test_tls_ends_or_passes_by_name_on_one_port(edge: Edge) -> None:
    ended, passed = "*.ended.example.com", "*.passed.example.com"
    edge.show("ended", AUTHORITY.pair(ended))
    edge.listen(
        https("https", "shown", hostname=SHOP),
        {**https("ended", "ended", hostname=ended), "protocol": "TLS"},
        {
            "name": "passed",
            "port": 443,
            "protocol": "TLS",
            "hostname": passed,
            "tls": {"mode": "Passthrough"},
        },
    )
    edge.apply(
        _stream_route("TLSRoute", "passed", "server", 443, "a.passed.example.com"),
        _stream_route("TLSRoute", "ended", "server", 80, "a.ended.example.com"),
        _stream_route("TCPRoute", "ended", "web", 80),
    )

    def said(name: str, believes: Authority = AUTHORITY) -> str:
        """By whom who has a certificate of this authority."""
        return str(edge.told(name, believes=believes).get("body", ""))[:40]

    wanted = "asked for a.passed.example.com"
    edge.mesh.wait("what is passed through", lambda: said("a.passed.example.com", SERVERS) == wanted)
    edge.mesh.wait("what is ended", lambda: said("a.ended.example.com").startswith("told of"))
    edge.mesh.wait("what no TLSRoute has", lambda: said("b.ended.example.com").startswith("<!DOCTYPE"))
    edge.mesh.wait("requests", lambda: said(SHOP).startswith("<!DOCTYPE"))
    for name in ("b.passed.example.com", "other.example.com"):
        assert not said(name) and not said(name, SERVERS)
    edge.mesh.kubectl(
        "delete", "-n", edge.namespace, "tlsroute/passed", "tlsroute/ended", "tcproute/all-ended"
    )
