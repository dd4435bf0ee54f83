"""Pods that are reached one by one, by names of their own, and pods that are reached before they are ready."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, pod
from tests.mesh.test_dns import resolve
from tests.mesh.test_external import ASK, SERVER

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

REPLICAS = 3
PROBE = {"tcpSocket": {"port": 8081}, "periodSeconds": 1}
NEVER = {"exec": {"command": ["false"]}, "periodSeconds": 1}


@pytest.fixture
def town(mesh: Mesh) -> Iterator[str]:
    """With `client` on the first node."""
    with make_namespace(mesh) as name:
        apply_in(mesh, name, [pod("client", mesh.nodes[0], ["sleep", "3600"])])
        yield name


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"port": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "db"}, "ports": ports, **spec},
    }


def stateful_set() -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "python:3",
        "command": ["python3", "-uc", SERVER],
        "readinessProbe": PROBE,
    }
    template = {
        "metadata": {"labels": {"app": "db"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    spec = {
        "serviceName": "db",
        "replicas": REPLICAS,
        "selector": {"matchLabels": {"app": "db"}},
        "template": template,
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": spec}


def apply(mesh: Mesh, namespace: str, *objects: dict[str, Any]) -> None:
    mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(objects))


def answers(mesh: Mesh, namespace: str, *places: str) -> dict[str, str]:
    """Which pod answers at each place; empty or an error's name where none does."""
    output = mesh.exec(namespace, "client", "python3", "-c", ASK, "1", *places).stdout
    return {place: answer.partition(":")[0] for place, answer in json.loads(output)}


def test_each_pod_of_a_stateful_set_has_its_name(mesh: Mesh, town: str) -> None:
    """Also when it comes back at another address."""
    apply(mesh, town, service("db", clusterIP="None"), stateful_set())
    mesh.kubectl("rollout", "status", "-n", town, "statefulset/db", "--timeout=110s")
    pods = [f"db-{number}" for number in range(REPLICAS)]
    expected = {
        f"{name}.{suffix}:8080": name
        for name in pods
        for suffix in ("db", f"db.{town}", f"db.{town}.svc.cluster.local")
    }

    def all_known() -> bool:
        found = resolve(mesh, town, "db")["db"]
        everybody = {address for name in pods for address in mesh.pod_addresses(town, name)[:1]}
        return isinstance(found, list) and everybody <= set(found)

    for former in ("", mesh.pod_addresses(town, pods[0])[0]):
        if former:
            mesh.kubectl("delete", "pod", pods[0], "-n", town)
            path = "jsonpath={.status.podIP}"
            get = ("get", "pod", pods[0], "-n", town, "-o", path)
            gone = ("", former)
            mesh.wait(
                "it has another address",
                lambda gone=gone, get=get: mesh.kubectl(*get, check=False).stdout not in gone,
            )
            mesh.kubectl("rollout", "status", "-n", town, "statefulset/db", "--timeout=110s")
        mesh.wait("the name of all leads to all", all_known)
        mesh.wait("each is reached by its name", lambda: answers(mesh, town, *expected) == expected)


def test_pods_that_are_not_ready_serve_where_that_is_asked_for(mesh: Mesh, town: str) -> None:
    near, far = (
        pod(name, node, ["python3", "-uc", SERVER], labels={"app": "db"}, readinessProbe=NEVER)
        for name, node in zip(("near", "far"), mesh.nodes, strict=False)
    )
    apply(mesh, town, service("early", publishNotReadyAddresses=True), service("usual"), near, far)
    for name in ("near", "far"):
        mesh.kubectl(
            "wait", "-n", town, "--for=jsonpath={.status.phase}=Running", f"pod/{name}", "--timeout=110s"
        )

    def early() -> set[str]:
        return {each for _ in range(8) for each in answers(mesh, town, "early:8080").values()}

    mesh.wait("both serve", lambda: early() == {"near", "far"})
    assert answers(mesh, town, "usual:8080")["usual:8080"] not in {"near", "far"}
