"""Namespaces and pods that several tests make."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ambit.testing.mesh import Mesh


@contextmanager
def make_namespace(mesh: Mesh, *, enrolled: bool = True) -> Iterator[str]:
    """A fresh namespace; deleted afterwards without waiting for its pods."""
    name = f"n{uuid.uuid4().hex[:8]}"
    labels = {"istio.io/dataplane-mode": "ambient"} if enrolled else {}
    mesh.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
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
