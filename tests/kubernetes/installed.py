"""ambit in a cluster of this machine: its image, its installation by Helm, and how long each step took."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ambit.core.errors import AmbitError
from tests.kubernetes.cluster import lifecycle
from tests.kubernetes.cluster.settings import Cluster

ROOT = Path(__file__).parents[2]
IMAGES = [ROOT / ".cache/image/ambit.tar", ROOT / ".cache/image/samples.tar"]
"""What `python -m image` writes."""
INSTALL_TIMEOUT = 180
INTERRUPTED = 130
"""The exit code of what was told to end."""
LOOK = "run `./dev test-kubernetes --keep` and read the logs of the pods in ambit-system"


def install(cluster: Cluster, channel: str = "standard") -> None:
    """Installs or upgrades, with the kinds of this channel of the Gateway API. Raises AmbitError, and prints what runs
    in the cluster, when it did not get ready."""
    settings = ["--set", "global.hub=localhost", "--set", "global.tag=dev", "--timeout", str(INSTALL_TIMEOUT)]
    settings += ["--gateway-api", channel]
    if lifecycle.execute(cluster, [sys.executable, "-m", "ambit", "install", *settings]):
        lifecycle.execute(cluster, ["kubectl", "get", "pods", "--all-namespaces", "-o", "wide"])
        lifecycle.execute(cluster, ["kubectl", "-n", "ambit-system", "get", "events"])
        raise AmbitError(
            "ambit did not install into the test cluster",
            hint=LOOK,
        )


def restart(cluster: Cluster) -> None:
    """The image has the same name as before, so nothing but this makes its new content run."""
    for words in (("restart",), ("status", f"--timeout={INSTALL_TIMEOUT}s")):
        for each in ("deployment/ambit-control", "daemonset/ambit-node"):
            lifecycle.kubectl(
                cluster, "-n", "ambit-system", "rollout", words[0], each, *words[1:], quiet=True
            )


def checked(command: list[str]) -> None:
    """Runs a program of ours. Raises AmbitError when it fails."""
    if subprocess.run(command, cwd=ROOT).returncode:
        raise AmbitError(f"`{' '.join(command[1:])}` failed")


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints how long the block took."""
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)


def told(work: Callable[[], int | None]) -> int:
    """The exit code of what it did; prints what of its failure someone can act on. Ctrl-C ends quietly."""
    try:
        return work() or 0
    except AmbitError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def stop(_signal: int, _frame: FrameType | None) -> None:
    """A signal's handler that lets the cluster be taken down."""
    raise SystemExit(INTERRUPTED)
