"""Namespaces and pods that several tests make."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import yaml

from ambit.testing.mesh import Mesh

T = TypeVar("T")


@contextmanager
def side_by_side(made: Mapping[str, AbstractContextManager[T]]) -> Iterator[dict[str, T]]:
    """All of these, entered at once: what takes its time is that pods start."""
    with ExitStack() as stack, ThreadPoolExecutor(len(made)) as pool:
        entering = {name: pool.submit(each.__enter__) for name, each in made.items()}
        for name, entered in entering.items():
            if entered.exception() is None:
                stack.push(made[name])
        yield {name: entered.result() for name, entered in entering.items()}


@contextmanager
def make_namespace(mesh: Mesh, *, enrolled: bool = True) -> Iterator[str]:
    """A fresh namespace; deleted afterwards without waiting for its pods."""
    name = f"n{uuid.uuid4().hex[:8]}"
    mesh.create_namespace(name, {"istio.io/dataplane-mode": "ambient"} if enrolled else {})
    yield name
    mesh.kubectl("delete", "namespace", name, "--wait=false")


def pod(
    name: str,
    node: str,
    command: Sequence[str],
    *,
    namespace: str = "",
    labels: dict[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A pod of one container on a given node; `more` is said of its container."""
    metadata = {"name": name, "labels": labels or {}} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "python:3", "command": list(command), **more}],
        },
    }


def web_and_client(port_name: str = "http") -> list[dict[str, Any]]:
    """Service `web` (port 80), its pod of the same name, ready when it listens, and a pod `client` that waits."""
    server = {
        "name": "web",
        "image": "python:3",
        "command": ["python3", "-u", "-m", "http.server", "8080"],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    waiting = {"name": "client", "image": "busybox:1", "command": ["sleep", "3600"]}
    ports = [{"name": port_name, "port": 80, "targetPort": 8080}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": ports},
        },
        *(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": container["name"], "labels": {"app": container["name"]}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            }
            for container in (server, waiting)
        ),
    ]


def known_everywhere(mesh: Mesh, namespace: str, *pods: str, service: str = "") -> None:
    """Until every node knows these pods as the mesh's own, and the service. Before that a connection may be none of the
    mesh's (docs/limits.md)."""

    def known(node: str) -> bool:
        workloads, services = (
            [each for each in mesh.dump(kind, "--node", node) if each["namespace"] == namespace]
            for kind in ("workloads", "services")
        )
        own = {each["name"] for each in workloads if each["protocol"] == "HBONE"}
        return own >= set(pods) and (not service or service in {each["name"] for each in services})

    mesh.wait("every node knows them", lambda: all(map(known, mesh.nodes)))


def apply_in(mesh: Mesh, namespace: str, objects: Sequence[Mapping[str, Any]]) -> None:
    """Apply objects that name no namespace, and wait until every pod there is ready."""
    mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(objects))
    mesh.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
