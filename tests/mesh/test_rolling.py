"""Services whose pods are all replaced while they are used: nobody is refused, nobody is cut off."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, pod

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

# Says its name. Told to end, it answers what has come until it stops accepting, `connection: close` on what is open,
# and ends with the last connection. Its argument: so many seconds it accepts after it was told.
SERVER = """
import http.server, os, select, signal, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = os.environ["HOSTNAME"].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        if told.is_set():
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 100
told = threading.Event()
server = Server(("", 8080), Handler)
def end(*_):
    told.set()
    threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, end)
server.serve_forever(0.01)
until = time.monotonic() + float(sys.argv[1])
while select.select([server.socket], [], [], max(0, until - time.monotonic()))[0]:
    server.handle_request()
server.server_close()
"""
# Asks again and again: three by new connections, three by one each that is kept as long as the server likes. Says so
# when so many servers have answered on new connections. Ends when those have that it is told of; tells failures, and
# who answered how often.
CLIENT = """
import collections, http.client, json, select, socket, sys, threading, time
answers = collections.Counter()
failures = []
over = threading.Event()
def ask(kind):
    connection = http.client.HTTPConnection("web", timeout=60)
    while not over.wait(0.02):
        try:
            if kind == "new":
                connection.close()
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = answer.read().decode()
            assert answer.status == 200, answer.status
            answers[kind, body] += 1
        except (OSError, http.client.HTTPException, AssertionError) as problem:
            failures.append([kind, time.time(), repr(problem)])
            connection.close()
threads = [threading.Thread(target=ask, args=[kind]) for kind in ("new", "kept") for _ in range(3)]
for thread in threads:
    thread.start()
def wait(condition):
    until = time.monotonic() + 60
    while not condition() and not failures and time.monotonic() < until:
        time.sleep(0.01)
def who(kind):
    return {body for asked, body in list(answers) if asked == kind}
wait(lambda: len(who("new")) >= int(sys.argv[1]) and who("kept"))
print("begun", flush=True)
wanted = set(sys.stdin.read().split())
wait(lambda: who("new") >= wanted and who("kept") & wanted)
over.set()
for thread in threads:
    thread.join()
print(json.dumps([failures, [[*key, times] for key, times in answers.items()]]), flush=True)
"""
REPLICAS = 3


@pytest.fixture
def namespace(mesh: Mesh) -> Iterator[str]:
    with make_namespace(mesh) as name:
        yield name


def objects(linger: float) -> list[dict[str, Any]]:
    """A Deployment that never has fewer pods than it should, and its Service."""
    container = {
        "name": "main",
        "image": "python:3",
        "command": ["python3", "-uc", SERVER, str(linger)],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    deployment = {
        "replicas": REPLICAS,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": template,
    }
    service = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": deployment},
    ]


class Client:
    """One pod's clients."""

    def __init__(self, mesh: Mesh, namespace: str, name: str) -> None:
        words = ("exec", "-i", "-n", namespace, name, "--", "python3", "-uc", CLIENT, str(REPLICAS))
        self._process = mesh.popen(*words, stdin=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "begun\n"

    def end(self, servers: set[str]) -> tuple[list[Any], dict[str, set[str]]]:
        """Once these have answered: what failed; and who answered, by kind."""
        failures, answers = json.loads(self._process.communicate(" ".join(servers), timeout=110)[0])
        found: dict[str, set[str]] = {"new": set(), "kept": set()}
        for kind, name, _ in answers:
            found[kind].add(name)
        return failures, found


def roll(mesh: Mesh, namespace: str, linger: float) -> None:
    """All pods are replaced while a client on each of two nodes asks the Service; none may notice."""
    clients = [pod(f"client{number}", node, ["sleep", "3600"]) for number, node in enumerate(mesh.nodes[:2])]
    apply_in(mesh, namespace, [*objects(linger), *clients])
    mesh.kubectl("rollout", "status", "-n", namespace, "deployment/web", "--timeout=110s")
    asking = [Client(mesh, namespace, client["metadata"]["name"]) for client in clients]
    before = servers(mesh, namespace)
    mesh.kubectl("rollout", "restart", "-n", namespace, "deployment/web")
    mesh.kubectl("rollout", "status", "-n", namespace, "deployment/web", "--timeout=120s", timeout=130)
    mesh.wait("the former pods are gone", lambda: not before & servers(mesh, namespace))
    after = servers(mesh, namespace)
    for client in asking:
        failures, answered = client.end(after)
        assert failures == []
        assert answered["new"] >= before | after
        assert answered["kept"] & before and answered["kept"] & after


def servers(mesh: Mesh, namespace: str) -> set[str]:
    words = ("get", "pods", "-n", namespace, "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}")
    return set(mesh.kubectl(*words).stdout.split())


@pytest.mark.laptop_only("kubelets tell a pod at once, so there it must accept a little longer")
def test_servers_may_stop_accepting_when_they_are_told(mesh: Mesh, namespace: str) -> None:
    roll(mesh, namespace, linger=0)


def test_nobody_notices_a_rolling_update_of_servers_that_accept_a_second_longer(
    mesh: Mesh, namespace: str
) -> None:
    roll(mesh, namespace, linger=1)
