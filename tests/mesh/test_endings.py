"""Pods that end while they are used: nobody is sent to them any more before they are told."""

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
        laptop.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/told", "--timeout=110s")
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
        laptop.kubectl("wait", "-n", namespace, "--for=delete", "pod/told", "--timeout=110s")
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
