"""Which kubectl the tests use: `$KUBECTL`, the one in PATH, or one that Go builds once into the cache."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

MODULE = Path(__file__).parent
CACHE = MODULE.parents[1] / ".cache"
BUILD_SECONDS = 1800


def find_kubectl() -> str | None:
    """The path of a kubectl; None where there is none and no Go to build it. Raises CalledProcessError.

    The first build takes minutes; later calls find its result, until the module's versions change.
    """
    found = os.environ.get("KUBECTL") or shutil.which("kubectl")
    if found:
        return found
    built = CACHE / f"kubectl-{_versions()}"
    if not built.exists() and shutil.which("go"):
        _build(built)
    return str(built) if built.exists() else None


def _versions() -> str:
    content = b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))
    return hashlib.sha256(content).hexdigest()[:16]


def _build(target: Path) -> None:
    """Test processes that run side by side build once: the others wait for it."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "kubectl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return
        unfinished = target.with_suffix(".unfinished")
        subprocess.run(
            ["go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", unfinished, "."],
            cwd=MODULE,
            env={**os.environ, "CGO_ENABLED": "0"},
            check=True,
            timeout=BUILD_SECONDS,
        )  # fmt: skip
        unfinished.rename(target)
