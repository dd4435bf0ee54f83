"""Pods that end while they are used: nobody is sent to them any more before they are told, and nobody notices."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ambit.testing.laptop import LaptopMesh
from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, pod

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

# Ends as a well-behaved server does: what comes in the seconds after SIGTERM is answered, and told to come no more.
SERVER = """
import http.server, os, signal, threading
ending = False
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        if ending:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *words):
        pass
def end(*_):
    global ending
    ending = True
    threading.Timer(5, os._exit, [0]).start()
signal.signal(signal.SIGTERM, end)
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 200
Server(("", 8080), Handler).serve_forever()
"""
# Four threads make a connection for each request, two keep theirs, until a line comes in. Then says how it went.
LOAD = """
import http.client, json, sys, threading, time
done = threading.Event()
counts, problems = [], []
def ask(kept):
    count, connection = 0, http.client.HTTPConnection("web", timeout=20)
    while not done.is_set():
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert answer.read() == b"ok" and answer.status == 200
        except (OSError, http.client.HTTPException, AssertionError) as problem:
            problems.append(f"{'kept' if kept else 'fresh'} {problem!r}")
            connection.close()
        count += 1
        if not kept:
            connection.close()
        time.sleep(0.01)
    counts.append(count)
threads = [threading.Thread(target=ask, args=[number > 3]) for number in range(6)]
for each in threads:
    each.start()
print("begun", flush=True)
sys.stdin.readline()
done.set()
for each in threads:
    each.join()
print(json.dumps([sum(counts), problems]), flush=True)
"""
# Says when it was told to end, on the clock that all processes share, and ends.
TOLD = """
import signal, socket, sys, time
def told(*_):
    print("told", time.monotonic(), flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, told)
server = socket.create_server(("", 8080))
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
PROBE = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
LATEST = 4.5
"""A pod's end waits 5 s for proxies at the most; a try that took longer than this says nothing."""


@pytest.fixture(scope="module")
def namespace(mesh: Mesh) -> Iterator[str]:
    with make_namespace(mesh) as name:
        yield name


def service(name: str) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def test_a_rolling_update_under_load_costs_nobody_a_request(mesh: Mesh, namespace: str) -> None:
    (spec,) = (pod("web", "", ["python3", "-uc", SERVER], readinessProbe=PROBE)["spec"],)
    del spec["nodeName"], spec["restartPolicy"]
    spec["terminationGracePeriodSeconds"] = 20
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec},
        },
    }
    clients = {f"client-{node}": pod(f"client-{node}", node, ["sleep", "3600"]) for node in mesh.nodes[:2]}
    apply_in(mesh, namespace, [service("web"), deployment, *clients.values()])
    mesh.kubectl("rollout", "status", "-n", namespace, "deployment/web", "--timeout=60s")
    loads = [
        mesh.popen("exec", "-i", "-n", namespace, name, "--", "python3", "-uc", LOAD, stdin=-1)
        for name in clients
    ]
    try:
        assert [each.stdout.readline() for each in loads if each.stdout] == ["begun\n"] * 2
        before = pods_of(mesh, namespace)
        mesh.kubectl("rollout", "restart", "-n", namespace, "deployment/web")
        mesh.kubectl("rollout", "status", "-n", namespace, "deployment/web", "--timeout=60s")
        mesh.wait("the former pods are gone", lambda: not before & pods_of(mesh, namespace))
        results = [json.loads(each.communicate("end\n", timeout=60)[0]) for each in loads]
    finally:
        for each in loads:
            each.kill()
            each.wait()
    assert all(count > 0 for count, _ in results)
    assert [problems for _, problems in results] == [[], []]


def pods_of(mesh: Mesh, namespace: str) -> set[str]:
    words = ("get", "pods", "-n", namespace, "-l", "app=web", "-o", "jsonpath={.items[*].metadata.uid}")
    return set(mesh.kubectl(*words).stdout.split())


@pytest.mark.laptop_only("kubelets tell a pod at once; there endpoints leave beside it")
def test_a_pod_is_told_only_after_every_proxy_sends_its_connections_elsewhere(
    laptop: LaptopMesh, namespace: str
) -> None:
    """One node's Envoy is stopped, so it cannot acknowledge: the pod must not hear of its end before it goes on."""
    near, far = laptop.nodes[:2]
    apply_in(laptop, namespace, [service("told"), pod("user", near, ["sleep", "3600"])])
    (envoy,) = laptop.processes("envoy", near)
    for _ in range(3):
        server = pod("told", far, ["python3", "-uc", TOLD], labels={"app": "told"}, readinessProbe=PROBE)
        server["spec"]["terminationGracePeriodSeconds"] = 20
        laptop.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(server))
        laptop.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/told", "--timeout=60s")
        laptop.wait("the near node uses it", lambda: uses(laptop, namespace))
        said = laptop.popen("logs", "-f", "-n", namespace, "told")
        assert said.stdout is not None and said.stdout.readline() == "ready\n"
        begun = time.monotonic()
        os.kill(envoy, signal.SIGSTOP)
        try:
            laptop.kubectl("delete", "pod", "-n", namespace, "told", "--wait=false")
            laptop.wait("the endpoint is ending", lambda: is_ending(laptop, namespace))
        finally:
            went_on = time.monotonic()
            os.kill(envoy, signal.SIGCONT)
        word, told = said.communicate(timeout=60)[0].split()
        laptop.kubectl("wait", "-n", namespace, "--for=delete", "pod/told", "--timeout=60s")
        assert word == "told"
        if went_on - begun < LATEST:
            assert float(told) > went_on
            return
    pytest.skip(
        "the machine was too slow three times to stop a proxy within the time that a pod's end waits for it"
    )


def uses(mesh: Mesh, namespace: str) -> bool:
    script = "import socket; print(socket.create_connection(('told', 80), 5).recv(1) == b'')"
    done = mesh.exec(namespace, "user", "python3", "-c", script, check=False)
    return done.stdout.strip() == "True"


def is_ending(mesh: Mesh, namespace: str) -> bool:
    words = ("get", "endpointslices", "-n", namespace, "-l", "kubernetes.io/service-name=told", "-o", "json")
    slices = json.loads(mesh.kubectl(*words).stdout)["items"]
    endpoints = [each for slice_ in slices for each in slice_.get("endpoints") or ()]
    return all(each["conditions"].get("terminating") for each in endpoints)
