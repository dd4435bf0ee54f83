"""Where the suite runs: two real nodes, or a laptop cluster, where a round takes seconds."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import yaml

from ambit.core.errors import AmbitError
from ambit.local.layout import API_PORT, FABRIC_V4
from ambit.testing.laptop import LaptopMesh
from tests.conformance import echo
from tests.conformance.echo import Servers
from tests.kubectl.program import find_kubectl
from tests.kubernetes.cluster import lifecycle, programs
from tests.kubernetes.cluster.settings import Cluster, load, state_folder
from tests.kubernetes.installed import IMAGES, checked, install, restart, timed

_PROGRAMS = {"echo-basic": echo.BASIC, "coredns": echo.COREDNS}
# Pods of the laptop see the machine's files, so what the server's arguments say of the root folder is put right.
_SERVE = """#!/bin/sh
for word; do
  shift
  case $word in --crt=/*|--key=/*) word="${{word%%=*}}={folder}/${{word##*/}}" ;; esac
  set -- "$@" "$word"
done
exec {folder}/{server} "$@"
"""


class Where(Protocol):
    """A cluster with ambit in it, and the suite's images."""

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """What kubectl printed. Raises AmbitError."""

    def run(self, command: list[str], log: Path) -> int:
        """Runs a command where the cluster's addresses are reached, its output in a file; returns its exit code."""


class _Nodes:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def kubectl(self, *words: str, stdin: str = "") -> str:
        command = [*self._cluster.inside(), str(programs.bin_folder() / "kubectl"), *words]
        return _output(command, lifecycle.environment(self._cluster), stdin)

    def run(self, command: list[str], log: Path) -> int:
        return _logged([*self._cluster.inside(), *command], lifecycle.environment(self._cluster), log)


@contextmanager
def nodes(servers: Servers, name: str, channel: str, *, keep: bool) -> Iterator[Where]:
    """Two nodes on this machine; of the Gateway API this channel, `standard` or `experimental`. Raises AmbitError."""
    programs.check_machine()
    cluster = Cluster(name, state_folder(name), 2)
    with timed("programs of the cluster"):
        programs.build()
    with timed("images"):
        checked([sys.executable, "-m", "image"])
        archives = [IMAGES[0], *echo.pack(servers)]
    try:
        fresh = load(cluster.state) is None
        if fresh:
            with timed("cluster"):
                lifecycle.up(cluster)
        with timed("images onto nodes"):
            for archive in archives:
                lifecycle.load_image(cluster, archive)
        where = _Nodes(cluster)
        with timed("ambit install"):
            install(cluster, channel)
            if not fresh:
                restart(cluster)
        yield where
    finally:
        if keep:
            print(
                f"kept: export KUBE_STATE={cluster.state}; python -m tests.kubernetes.cluster kubectl get pods -A"
            )
        else:
            with timed("down"):
                lifecycle.down(cluster.state)


class _Laptop:
    """`inside`: a kubeconfig that works where pods, Services and load balancers are reached."""

    def __init__(self, mesh: LaptopMesh, inside: Path) -> None:
        self._mesh = mesh
        self._environment = {**mesh.environment, "KUBECONFIG": str(mesh.kubeconfig)}
        self._inside = inside

    def kubectl(self, *words: str, stdin: str = "") -> str:
        return _output([self._mesh.kubectl_program or "kubectl", *words], self._environment, stdin)

    def run(self, command: list[str], log: Path) -> int:
        enter = ["local", "node", "exec", "--name", self._mesh.name, "fabric", "--"]
        environment = {**self._environment, "KUBECONFIG": str(self._inside)}
        return _logged([sys.executable, "-m", "ambit", *enter, *command], environment, log)


def _inside(mesh: LaptopMesh, target: Path) -> Path:
    """The instance's kubeconfig with the address by which the fabric reaches the server."""
    told = yaml.safe_load(mesh.kubeconfig.read_text())
    for each in told["clusters"]:
        each["cluster"]["server"] = f"https://{FABRIC_V4.ip}:{API_PORT}"
    target.touch(mode=0o600)
    target.write_text(yaml.safe_dump(told))
    return target


@contextmanager
def laptop(servers: Servers, name: str, channel: str, state: Path, *, keep: bool) -> Iterator[Where]:
    """A laptop cluster whose pods run the suite's servers as programs; of the Gateway API this channel. Raises
    AmbitError."""
    mesh = LaptopMesh(name, state, find_kubectl())
    entries = _entries(servers)
    if not mesh.kubeconfig.exists():
        with timed("cluster"):
            mesh.ambit("up", "--gateway-api", channel, timeout=120)
    try:
        where = _Laptop(mesh, _inside(mesh, state / f"{name}.inside"))
        images = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"images.yaml": json.dumps(entries)}}
        metadata = {"name": "image-map", "namespace": "ambit-system"}
        where.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps({**images, "metadata": metadata}))
        yield where
    finally:
        if keep:
            print(f"kept: export AMBIT_STATE={state}; ambit ps --name {name}")
        else:
            mesh.ambit("down")


def _entries(servers: Servers) -> list[dict[str, object]]:
    """The image map's entries. The programs are copied to where pods of the laptop can see them."""
    folder = Path(sys.prefix) / "conformance"
    folder.mkdir(exist_ok=True)
    for file in servers.files:
        target = folder / ("client" if file.name == echo.CLIENT else file.name)
        if not target.exists() or target.stat().st_mtime < file.stat().st_mtime:
            fresh = shutil.copy2(file, f"{target}.{os.getpid()}")
            Path(fresh).replace(target)  # another instance may be running it
    serve = folder / "serve"
    if not serve.exists():
        serve.write_text(_SERVE.format(folder=folder, server=echo.SERVER))
        serve.chmod(0o755)
    commands = {
        **{name: str(folder / program) for name, program in _PROGRAMS.items()},
        "echo-advanced": str(serve),
    }
    return [
        {"pattern": image, "command": [commands[name]], "environment": {"PATH": f"{folder}:/usr/bin:/bin"}}
        for name, images in servers.images.items()
        for image in images
    ]


def _output(command: list[str], environment: dict[str, str], stdin: str) -> str:
    done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise AmbitError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _logged(command: list[str], environment: dict[str, str], log: Path) -> int:
    with log.open("wb") as out:
        return subprocess.run(
            command, env={**os.environ, **environment}, stdout=out, stderr=subprocess.STDOUT
        ).returncode
