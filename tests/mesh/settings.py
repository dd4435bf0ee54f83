"""Other settings of the control plane, for a while: it is started again with them, and without them afterwards."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ambit.core.names import MESH_CONFIG_KEY
from ambit.testing.mesh import Mesh

_CONTROL = ("-n", "ambit-system", "deployment/ambit-control")
_ARGUMENTS = "/spec/template/spec/containers/0/args"


@contextmanager
def with_options(mesh: Mesh, *words: str) -> Iterator[None]:
    """The control plane has these options of its command beside its own; of two that say the same the last counts."""
    before = _control(mesh)["spec"]["template"]["spec"]["containers"][0]["args"]
    try:
        _patch(mesh, [*before, *words])
        yield
    finally:
        _patch(mesh, before)


class Put(Protocol):
    """Gives the control plane other settings; `taken`: waits until it has them."""

    def __call__(self, text: str, *, taken: bool = True) -> None: ...


@contextmanager
def with_mesh_config(mesh: Mesh, text: str) -> Iterator[Put]:
    """The fields of Istio's MeshConfig are these."""
    named = ("configmap/ambit-mesh-config", "-n", "ambit-system")
    before = json.loads(mesh.kubectl("get", *named, "-o", "json").stdout)["data"][MESH_CONFIG_KEY]

    def put(text: str, *, taken: bool = True) -> None:
        mesh.kubectl("patch", *named, "-p", json.dumps({"data": {MESH_CONFIG_KEY: text}}))
        mesh.kubectl("rollout", "restart", *_CONTROL)
        if taken:
            _settled(mesh)

    try:
        put(text)
        yield put
    finally:
        put(before)


def _control(mesh: Mesh) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mesh.kubectl("get", *_CONTROL, "-o", "json").stdout)
    return found


def _patch(mesh: Mesh, arguments: list[str]) -> None:
    change = [{"op": "replace", "path": _ARGUMENTS, "value": arguments}]
    mesh.kubectl("patch", *_CONTROL, "--type=json", "-p", json.dumps(change))
    _settled(mesh)


def _settled(mesh: Mesh) -> None:
    """Those before answer for some seconds after they were replaced, as they were told."""
    mesh.kubectl("rollout", "status", *_CONTROL, "--timeout=110s")
    control = _control(mesh)["spec"]
    labels = ",".join(f"{key}={value}" for key, value in control["selector"]["matchLabels"].items())
    pods = ("get", "pods", "-n", "ambit-system", "-l", labels, "-o", "name")
    mesh.wait("those before are gone", lambda: len(mesh.kubectl(*pods).stdout.split()) == control["replicas"])
