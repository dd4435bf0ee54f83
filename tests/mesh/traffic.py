"""Light traffic for fault tests: a server on one node, clients on the other, every attempt logged with its time.

What they say to each other has MARKER in it, in both directions, for whoever looks for it on the wire.
"""

import json

from ambit.testing.mesh import Mesh

MARKER = "traffic"
SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "15")
        self.end_headers()
        self.wfile.write(b"traffic-answer.")
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""

LOAD = """
import http.client, json, threading, time
def attempt(kind, connection):
    start = time.time()
    try:
        connection.request("GET", "/traffic-question.")
        answer = connection.getresponse()
        answer.read()
        result = answer.status
    except (OSError, http.client.HTTPException) as problem:
        result = type(problem).__name__
        connection.close()
    print(json.dumps([kind, start, time.time() - start, result]) + "\\n", end="", flush=True)
    return result
def fresh():
    while True:
        connection = http.client.HTTPConnection("web", timeout=10)
        attempt("fresh", connection)
        connection.close()
        time.sleep(0.05)
def kept():
    connection = http.client.HTTPConnection("web", timeout=10)
    while True:
        attempt("kept", connection)
        time.sleep(0.05)
threading.Thread(target=fresh).start()
kept()
"""

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  serviceAccountName: {account}
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: python:3
    command: [python3, -u, -c, {script}]
    {probe}
---
"""

OTHERS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: denied}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: denied}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{from: [{source: {serviceAccounts: [denied]}}]}]
---
"""


class Attempt:
    """One request: `kind` is `fresh` (a new connection) or `kept` (always the same); `result` a status or an error."""

    def __init__(self, line: str) -> None:
        self.kind, self.at, self.took, self.result = json.loads(line)

    def __repr__(self) -> str:
        return f"{self.kind} {self.at:.3f} +{self.took:.3f} {self.result}"


def denied_client(name: str, node: str) -> str:
    """The manifest of a pod that tries all the time what the policy denies it, from its first moment on."""
    return POD.format(name=name, node=node, account="denied", script=json.dumps(LOAD), probe="")


def start_traffic(mesh: Mesh, namespace: str) -> None:
    """`web` on the second node; on the first `client`, which may talk to it, and `denied`, which may not. Returns when
    they run."""
    probe = "readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}"
    near, far = mesh.nodes[:2]
    text = OTHERS + denied_client("denied", near)
    for name, node, script, ready in (("web", far, SERVER, probe), ("client", near, LOAD, "")):
        text += POD.format(name=name, node=node, account="default", script=json.dumps(script), probe=ready)
    mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=text)
    mesh.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
    mesh.wait("the client is served", lambda: any(a.result == 200 for a in attempts(mesh, namespace)[-5:]))


def attempts(mesh: Mesh, namespace: str, pod: str = "client", since: float = 0) -> list[Attempt]:
    """What a client saw, oldest first; only whole lines, only attempts that began after `since`."""
    output = mesh.kubectl("logs", "-n", namespace, pod).stdout
    found = [Attempt(line) for line in output.splitlines() if line.startswith("[") and line.endswith("]")]
    return [attempt for attempt in found if attempt.at >= since]
