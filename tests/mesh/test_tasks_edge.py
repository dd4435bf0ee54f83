"""Istio's task pages about what comes in from outside, each as one test: sample files unchanged, in the order of the
page, and what the page says one sees. What differs is in docs/samples.md."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.guide import Guide, make_guide

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
HOST, OTHER, NGINX = "httpbin.example.com", "helloworld.example.com", "nginx.example.com"
SAMPLES = (
    "httpbin",
    "httpbin/gateway-api/httpbin-gateway",
    "helloworld",
    "helloworld/gateway-api/helloworld-gateway",
    "helloworld/gateway-api/helloworld-versions",
)
# Says a line on so many connections, one after the other; prints the answers.
TALK = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 31400), 30) as connection:
        connection.sendall(b"world\\n")
        print(connection.makefile().readline(), end="")
"""
# Writes files, told by name in JSON, into a folder.
WRITE = """
import json, os, sys
os.makedirs(sys.argv[1], exist_ok=True)
for name, text in json.loads(sys.argv[2]).items():
    with open(f"{sys.argv[1]}/{name}", "w") as file:
        file.write(text)
"""
SECURE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: mygateway}
spec:
  gatewayClassName: istio
  listeners:
"""
LISTENER = """
  - name: https-SECRET
    hostname: HOST
    port: 443
    protocol: HTTPS
    tls:
      mode: Terminate
      certificateRefs: [{name: SECRET}]
      options: OPTIONS
    allowedRoutes:
      namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: INSIDE}}}
"""
PASSED = """
  - name: https
    hostname: nginx.example.com
    port: 443
    protocol: TLS
    tls: {mode: Passthrough}
    allowedRoutes: {namespaces: {from: All}}
"""
PLAIN = """
  - name: default
    hostname: "*.example.com"
    port: 80
    protocol: HTTP
    allowedRoutes: {namespaces: {from: All}}
"""
MUTUAL = "{gateway.istio.io/tls-terminate-mode: MUTUAL}"


def listener(host: str, secret: str, options: str = "{}") -> str:
    return LISTENER.replace("HOST", host).replace("SECRET", secret).replace("OPTIONS", options)


@pytest.fixture(scope="module")
def edge(mesh: Mesh) -> Iterator[Guide]:
    """Httpbin and helloworld, and gateways that are ready by the time that somebody asks them. The pages
    have `mygateway` in `istio-system`; here it is in the namespace outside."""
    with make_guide(mesh, SAMPLES) as guide:
        guide.apply(SECURE + PLAIN, guide.outside)
        guide.available()
        guide.available(guide.outside)
        yield guide


class Pairs:
    """Keys and certificates by the commands of the pages, in a folder each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._run(
            f"req -x509 -sha256 -nodes -days 365 {NEW_KEY} -keyout example.com.key -out example.com.crt"
        )

    def make(self, name: str, serial: int = 0) -> None:
        self._run(
            f"req {NEW_KEY} -nodes -out {name}.csr -keyout {name}.key",
            f"/CN={name}/O=organization",
        )
        signed = "x509 -req -sha256 -days 365 -CA example.com.crt -CAkey example.com.key -set_serial"
        self._run(f"{signed} {serial} -in {name}.csr -out {name}.crt", "")

    def _run(self, words: str, subject: str = "/O=example Inc./CN=example.com") -> None:
        named = ["-subj", subject] if subject else []
        command = ["openssl", *words.split(), *named]
        subprocess.run(command, cwd=self.directory, check=True, capture_output=True, timeout=60)

    def text(self, name: str) -> str:
        return (self.directory / name).read_text()

    def secret(self, guide: Guide, name: str, host: str) -> None:
        """Deleted, and created again with this pair."""
        guide.delete(f"secret/{name}", namespace=guide.outside)
        files = (f"--key={self.directory}/{host}.key", f"--cert={self.directory}/{host}.crt")
        guide.mesh.kubectl("create", "-n", guide.outside, "secret", "tls", name, *files)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pairs, Pairs]:
    first, second = (Pairs(tmp_path_factory.mktemp(f"example_certs{number}")) for number in (1, 2))
    for number, name in enumerate((HOST, OTHER, NGINX, "client.example.com")):
        first.make(name, number)
    second.make(HOST)
    return first, second


def give(guide: Guide, pairs: Pairs, *names: str) -> str:
    """The folder of the client outside that holds these files."""
    folder = f"/tmp/{pairs.directory.name}"
    texts = json.dumps({name: pairs.text(name) for name in names})
    guide.mesh.exec(guide.outside, "deploy/curl", "python3", "-c", WRITE, folder, texts)
    return folder


@pytest.mark.feature("F116")
def test_ingress_opens_two_paths_of_one_host_then_one_of_any(edge: Guide) -> None:
    address = edge.address("httpbin-gateway")
    edge.until("418", f"http://{address}/status/418", outside=True)  # the sample lets in everything
    named = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: httpbin-gateway}
spec:
  gatewayClassName: istio
  listeners:
  - name: http
    hostname: httpbin.example.com
    port: 80
    protocol: HTTP
    allowedRoutes: {namespaces: {from: Same}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: httpbin}
spec:
  parentRefs: [{name: httpbin-gateway}]
  hostnames: [httpbin.example.com]
  rules:
  - matches:
    - path: {type: PathPrefix, value: /status}
    - path: {type: PathPrefix, value: /delay}
    backendRefs: [{name: httpbin, port: 8000}]
"""
    edge.apply(named)
    host = ("-I", "-H", f"Host: {HOST}")
    edge.until("404", *host, f"http://{address}/headers", outside=True)
    edge.until("200", *host, f"http://{address}/status/200", outside=True)
    assert edge.code(*host, f"http://{address}/headers", outside=True) == "404"
    assert edge.code("-I", f"http://{address}/status/200", outside=True) == "404"
    anybody = named.replace("    hostname: httpbin.example.com\n", "")
    anybody = anybody.replace("  hostnames: [httpbin.example.com]\n", "").replace("/status", "/headers")
    edge.apply(anybody)
    edge.until("200", f"http://{address}/headers", outside=True)
    edge.delete("httproute/httpbin", "gateway/httpbin-gateway")


@pytest.mark.feature("F116")
def test_a_gateway_of_another_namespace_takes_routes_that_add_headers(edge: Guide) -> None:
    edge.apply(SECURE + PLAIN, edge.outside)
    address = edge.address("mygateway", edge.outside)
    route = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: http}
spec:
  parentRefs: [{name: mygateway, namespace: OUTSIDE}]
  hostnames: [httpbin.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /get}}]
    backendRefs: [{name: httpbin, port: 8000}]
"""
    added = """
  - matches: [{path: {type: PathPrefix, value: /headers}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: my-added-header, value: added-value}]}}
    backendRefs: [{name: httpbin, port: 8000}]
"""
    edge.apply(route)
    host = ("-H", f"Host: {HOST}")
    edge.until("200", *host, f"http://{address}/get", outside=True)
    assert edge.code(*host, f"http://{address}/headers", outside=True) == "404"
    edge.apply(route + added)
    edge.until("200", *host, f"http://{address}/headers", outside=True)
    told = json.loads(edge.curl(*host, f"http://{address}/headers", outside=True))["headers"]
    assert told["My-Added-Header"] == ["added-value"]
    edge.delete("httproute/http")


@pytest.mark.feature("F120")
@pytest.mark.feature("F122")
def test_a_fifth_of_the_connections_is_shifted_to_the_second_version(edge: Guide) -> None:
    edge.samples("tcp-echo/tcp-echo-services", "tcp-echo/gateway-api/tcp-echo-all-v1")
    edge.available()
    address = edge.address("tcp-echo-gateway")

    def answers(count: int) -> Counter[str]:
        said = edge.mesh.exec(
            edge.outside, "deploy/curl", "python3", "-c", TALK, address, str(count), check=False
        )
        return Counter(said.stdout.splitlines())

    edge.mesh.wait("the first version answers", lambda: answers(20) == {"one world": 20})
    edge.samples("tcp-echo/gateway-api/tcp-echo-20-v2")
    edge.mesh.wait("so does the second", lambda: answers(10)["two world"])
    found = answers(100)
    assert set(found) == {"one world", "two world"} and 0 < found["two world"] <= 50
    edge.samples("tcp-echo/gateway-api/tcp-echo-all-v1")
    edge.mesh.wait("the first one alone again", lambda: set(answers(20)) == {"one world"})


@pytest.mark.feature("F122")
def test_helloworld_is_served_by_its_gateway_and_a_tenth_by_its_second_version(edge: Guide) -> None:
    url = f"http://{edge.address('helloworld-gateway')}/hello"

    def answers(count: int) -> Counter[str]:
        said = edge.curl(f"{url}?[1-{count}]", outside=True)
        return Counter(line.partition(",")[0].removeprefix("Hello version: ") for line in said.splitlines())

    edge.mesh.wait("both answer", lambda: set(answers(10)) == {"v1", "v2"})
    edge.samples("helloworld/gateway-api/helloworld-route")
    edge.mesh.wait("the first answers more", lambda: answers(100)["v1"] > 75)
    found = answers(200)
    assert set(found) == {"v1", "v2"} and 0 < found["v2"] <= 60
    edge.delete("httproute/helloworld", "gateway/helloworld-gateway")


HTTPBIN_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: httpbin-secure}
spec:
  parentRefs: [{name: mygateway, namespace: OUTSIDE}]
  hostnames: [httpbin.example.com]
  rules:
  - matches:
    - path: {type: PathPrefix, value: /status}
    - path: {type: PathPrefix, value: /delay}
    backendRefs: [{name: httpbin, port: 8000}]
"""
HELLO_ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: helloworld}
spec:
  parentRefs: [{name: mygateway, namespace: OUTSIDE}]
  hostnames: [helloworld.example.com]
  rules:
  - matches: [{path: {type: Exact, value: /hello}}]
    backendRefs: [{name: helloworld, port: 5000}]
"""


@pytest.mark.feature("F117", "F91")
def test_secure_ingress_follows_its_secret_serves_two_hosts_and_asks_clients_for_certificates(
    edge: Guide, pairs: tuple[Pairs, Pairs]
) -> None:
    first, second = pairs
    files = ("example.com.crt", "client.example.com.crt", "client.example.com.key")
    old, new = give(edge, first, *files), give(edge, second, "example.com.crt")
    first.secret(edge, "httpbin-credential", HOST)
    edge.apply(SECURE + listener(HOST, "httpbin-credential"), edge.outside)
    edge.apply(HTTPBIN_ROUTE)
    address = edge.address("mygateway", edge.outside)

    def asked(host: str, folder: str, path: str = "/status/418") -> tuple[str, ...]:
        to = ("--resolve", f"{host}:443:{address}", "--cacert", f"{folder}/example.com.crt")
        return (*to, f"https://{host}{path}")

    edge.until("418", *asked(HOST, old), outside=True)
    second.secret(edge, "httpbin-credential", HOST)
    edge.until("418", *asked(HOST, new), outside=True)
    assert edge.code(*asked(HOST, old), outside=True).startswith("exit ")

    for name, host in (("httpbin-credential", HOST), ("helloworld-credential", OTHER)):
        first.secret(edge, name, host)
    both = listener(HOST, "httpbin-credential") + listener(OTHER, "helloworld-credential")
    edge.apply(SECURE + both, edge.outside)
    edge.apply(HTTPBIN_ROUTE + HELLO_ROUTE)
    edge.until("200", *asked(OTHER, old, "/hello"), outside=True)
    assert edge.code(*asked(HOST, old), outside=True) == "418"

    # The page makes a Secret without a type; ambit reads those of type kubernetes.io/tls.
    edge.delete("secret/httpbin-credential", namespace=edge.outside)
    kept = {"tls.key": f"{HOST}.key", "tls.crt": f"{HOST}.crt", "ca.crt": "example.com.crt"}
    given = (f"--from-file={key}={first.directory}/{file}" for key, file in kept.items())
    words = (
        "create",
        "-n",
        edge.outside,
        "secret",
        "generic",
        "httpbin-credential",
        "--type=kubernetes.io/tls",
    )
    edge.mesh.kubectl(*words, *given)
    mutual = listener(HOST, "httpbin-credential", MUTUAL) + listener(OTHER, "helloworld-credential")
    edge.apply(SECURE + mutual, edge.outside)
    own = ("--cert", f"{old}/client.example.com.crt", "--key", f"{old}/client.example.com.key")
    edge.mesh.wait(
        "nobody without a certificate comes in",
        lambda: edge.code(*asked(HOST, old), outside=True).startswith("exit "),
    )
    edge.until("418", *own, *asked(HOST, old), outside=True)
    assert edge.code(*asked(HOST, old), outside=True).startswith("exit ")
    assert edge.code(*asked(OTHER, old, "/hello"), outside=True) == "200"
    edge.delete("httproute/httpbin-secure", "httproute/helloworld")


@pytest.mark.feature("F120")
def test_tls_passes_by_the_name_in_the_hello_to_a_server_with_its_own_certificate(
    edge: Guide, pairs: tuple[Pairs, Pairs]
) -> None:
    """The server is Python's, where the page has nginx."""
    first = pairs[0]
    folder = give(edge, first, "example.com.crt")
    files = (f"--key={first.directory}/{NGINX}.key", f"--cert={first.directory}/{NGINX}.crt")
    edge.mesh.kubectl("create", "-n", edge.namespace, "secret", "tls", "nginx-server-certs", *files)
    edge.apply(_NGINX)
    edge.apply(SECURE + PASSED, edge.outside)
    edge.available()
    address = edge.address("mygateway", edge.outside)
    asked = (
        "--resolve",
        f"{NGINX}:443:{address}",
        "--cacert",
        f"{folder}/example.com.crt",
        f"https://{NGINX}",
    )
    edge.until("200", *asked, outside=True)
    assert edge.curl(*asked, outside=True) == "Welcome to nginx!"
    shown = edge.curl("-o", "/dev/null", "-w", "%{certs}", *asked, outside=True)
    assert first.text(f"{NGINX}.crt").strip() in shown


_NGINX = """
apiVersion: v1
kind: Service
metadata: {name: my-nginx}
spec:
  ports: [{port: 443, protocol: TCP}]
  selector: {run: my-nginx}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: my-nginx}
spec:
  selector: {matchLabels: {run: my-nginx}}
  template:
    metadata: {labels: {run: my-nginx}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: my-nginx
        image: python:3
        command:
        - python3
        - -uc
        - |
          import http.server, ssl
          class Welcome(http.server.BaseHTTPRequestHandler):
              def do_GET(self):
                  self.send_response(200)
                  self.end_headers()
                  self.wfile.write(b"Welcome to nginx!")
          server = http.server.ThreadingHTTPServer(("", 443), Welcome)
          context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
          context.load_cert_chain("/etc/nginx-server-certs/tls.crt", "/etc/nginx-server-certs/tls.key")
          server.socket = context.wrap_socket(server.socket, server_side=True)
          server.serve_forever()
        readinessProbe: {tcpSocket: {port: 443}, periodSeconds: 1}
        volumeMounts:
        - {name: nginx-server-certs, mountPath: /etc/nginx-server-certs, readOnly: true}
      volumes:
      - {name: nginx-server-certs, secret: {secretName: nginx-server-certs}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: nginx}
spec:
  parentRefs: [{name: mygateway, namespace: OUTSIDE}]
  hostnames: [nginx.example.com]
  rules:
  - backendRefs: [{name: my-nginx, port: 443}]
"""
