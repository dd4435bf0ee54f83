"""Which Helm the tests use: `$HELM`, the one in PATH, or one that Go built into the cache.

A build takes minutes, so tests only look; `python -m tests.helm.program` builds and prints the path.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

MODULE = Path(__file__).parent
CACHE = MODULE.parents[1] / ".cache"
BUILD_SECONDS = 1800
VERSION = "v3.22.0"
KUBERNETES = ("1", "37")
"""Major and minor version that charts are rendered for without a cluster: that of Helm's Kubernetes modules."""
_HELM = "helm.sh/helm/v3"


def find_helm() -> str | None:
    """The path of a Helm that is there already."""
    named = shutil.which(os.environ.get("HELM") or "helm")
    if named:
        return named
    return str(_built()) if _built().exists() else None


def build_helm() -> str:
    """The same, built when it is not there. Raises CalledProcessError, FileNotFoundError without Go."""
    found = find_helm()
    if found:
        return found
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "helm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _built().exists():
            _build(_built())
    return str(_built())


def _built() -> Path:
    content = b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    content += repr((VERSION, KUBERNETES)).encode()
    return CACHE / f"helm-{hashlib.sha256(content).hexdigest()[:16]}"


def _build(target: Path) -> None:
    stamps = {f"{_HELM}/internal/version.version": VERSION}
    for package in ("lint/rules", "chartutil"):
        for part, value in zip(("Major", "Minor"), KUBERNETES, strict=True):
            stamps[f"{_HELM}/pkg/{package}.k8sVersion{part}"] = value
    flags = "-s -w " + " ".join(f"-X {name}={value}" for name, value in stamps.items())
    unfinished = target.with_suffix(".unfinished")
    subprocess.run(
        [
            "go",
            "build",
            "-mod=readonly",
            "-trimpath",
            f"-ldflags={flags}",
            "-o",
            unfinished,
            f"{_HELM}/cmd/helm",
        ],
        cwd=MODULE,
        env={**os.environ, "CGO_ENABLED": "0"},
        check=True,
        timeout=BUILD_SECONDS,
    )
    unfinished.rename(target)


if __name__ == "__main__":
    sys.stdout.write(build_helm() + "\n")
