"""Namespaces and pods that several tests make."""

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ambit.local.instance.processes import instance_processes
from ambit.local.instance.record import read_record
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
            "containers": [{"name": "main", "image": "local", "command": list(command), **more}],
        },
    }


def kill(mesh: Mesh, part: str, node: str, *, until_back: bool = True) -> None:
    """SIGKILL a node's `envoy` or `node agent`, and wait until there is a new one."""
    pid = mesh.wait(f"{part} of {node} runs", lambda: _process(mesh, part, node))
    os.kill(pid, signal.SIGKILL)
    if until_back:
        mesh.wait(f"{part} of {node} is back", lambda: _process(mesh, part, node) not in (0, pid))


def _process(mesh: Mesh, part: str, node: str) -> int:
    """The process id; 0 when there is none, or more than one."""
    record = read_record(mesh.state)
    assert record is not None
    found = []
    for each in instance_processes(record):
        with contextlib.suppress(OSError):
            if each.part == part and f"nodes/{node}" in Path(f"/proc/{each.pid}/cmdline").read_text():
                found.append(each.pid)
    return found[0] if len(found) == 1 else 0
