"""Builds the cluster's programs from their Go modules and keeps them.

Each folder under `programs/` is one Go module with pinned versions. What is built is kept in the cache under
the program's name beside the digest of what it was built from, so a change of a module builds it again.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ambit.core.errors import AmbitError
from tests.kubernetes.cluster.settings import cache

SOURCES = Path(__file__).parent / "programs"
SYSTEM = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "iptables": "iptables",
}
PLUGINS = Path("/usr/lib/cni")


class Program(msgspec.Struct, frozen=True):
    """One executable: the module it is built in, the package, and the linker's `-X` settings.

    A name that ends in `.test`, as Go calls them, means the program of the package's tests.
    """

    name: str
    package: str = "."
    stamps: dict[str, str] = {}


def bin_folder() -> Path:
    """Where the built programs are; `kubectl` and `helm` among them."""
    return cache() / "bin"


def check_machine() -> None:
    """Raises AmbitError that names everything this machine lacks for running nodes."""
    if os.geteuid() != 0:
        raise AmbitError(
            "real Kubernetes nodes need root: they make namespaces, mounts and cgroups",
            hint="run it with sudo, or run `./dev test`, which needs neither root nor Kubernetes",
        )
    missing = {package for program, package in SYSTEM.items() if shutil.which(program) is None}
    if not (PLUGINS / "bridge").exists():
        missing.add("containernetworking-plugins")
    if missing:
        raise AmbitError(
            "programs that Kubernetes nodes need are missing",
            hint=f"type `apt-get install --yes --no-install-recommends {' '.join(sorted(missing))}`",
        )


def build() -> Path:
    """Builds what is not in the cache yet and returns the folder of programs; AmbitError without Go."""
    folder = build_all((program, SOURCES / program.name) for program in programs())
    for name in ("kubectl", "kubelet"):
        _link(folder / name, "kube")
    return folder


def build_all(wanted: Iterable[tuple[Program, Path]]) -> Path:
    """As `build`, for programs with the folders of their modules."""
    folder = bin_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for program, source in wanted:
        with (cache() / f"{program.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once build once
            _build(program, source, folder)
    return folder


def programs() -> list[Program]:
    """All programs with the versions they call themselves by."""
    return [
        Program("pause"),
        Program("kube", stamps=_kubernetes_stamps()),
        Program("coredns"),
        Program("helm", "helm.sh/helm/v3/cmd/helm", _helm_stamps()),
    ]


def digest(program: Program, source: Path | None = None) -> str:
    """What the program is built from, as one digest."""
    told = hashlib.sha256(msgspec.json.encode(program, order="sorted"))
    for path in sorted((source or SOURCES / program.name).iterdir()):
        told.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return told.hexdigest()


def _build(program: Program, source: Path, folder: Path) -> None:
    target, stamp = folder / program.name, folder / f".{program.name}.built-from"
    wanted = digest(program, source)
    if target.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    if shutil.which("go") is None:
        raise AmbitError(
            f"Go is needed once, to build {program.name} for the test cluster",
            hint="install Go 1.26 or later from https://go.dev/dl and put it on PATH",
        )
    print(f"building {program.name} (kept in {folder})", flush=True)
    began = time.monotonic()
    linker = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in sorted(program.stamps.items()))])
    fresh = folder / f".{program.name}.new"
    command = ("go", "test", "-c") if program.name.endswith(".test") else ("go", "build")
    done = subprocess.run(
        [*command, "-trimpath", "-o", str(fresh), f"-ldflags={linker}", program.package],
        cwd=source,
        env={**os.environ, "CGO_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise AmbitError(
            f"{program.name} did not compile: {done.stdout[-2000:].strip()}",
            hint="`go version` must say 1.26 or later, and the Go module proxy must be reachable",
        )
    stamp.unlink(missing_ok=True)
    fresh.replace(target)
    stamp.write_text(wanted)
    print(f"built {program.name} in {time.monotonic() - began:.0f} s", flush=True)


def _link(link: Path, target: str) -> None:
    if not link.is_symlink():
        link.symlink_to(target)


def _required(module: str, path: str) -> str:
    """The pinned version of one requirement of a module's go.mod."""
    text = (SOURCES / module / "go.mod").read_text()
    found = re.search(rf"^(?:require )?\s*{re.escape(path)} (v\S+)", text, re.MULTILINE)
    assert found is not None, f"{module}/go.mod does not require {path}"
    return found[1]


def _kubernetes_stamps() -> dict[str, str]:
    """Unstamped programs call themselves v0.0.0, and Kubernetes' own version checks then go wrong."""
    version = _required("kube", "k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".", 2)
    told = "k8s.io/component-base/version"
    return {
        f"{told}.gitVersion": version,
        f"{told}.gitMajor": major,
        f"{told}.gitMinor": minor,
        f"{told}.gitTreeState": "clean",
        "k8s.io/client-go/pkg/version.gitVersion": version,
    }


def _helm_stamps() -> dict[str, str]:
    """Helm compares its version and Kubernetes' with what a chart asks for."""
    major, minor, _ = _required("helm", "k8s.io/client-go").removeprefix("v").split(".", 2)
    lint = "helm.sh/helm/v3/pkg/lint/rules"
    util = "helm.sh/helm/v3/pkg/chartutil"
    kubernetes_minor = {"k8sVersionMajor": str(int(major) + 1), "k8sVersionMinor": minor}
    return {
        "helm.sh/helm/v3/internal/version.version": _required("helm", "helm.sh/helm/v3"),
        **{
            f"{package}.{name}": value for package in (lint, util) for name, value in kubernetes_minor.items()
        },
    }
