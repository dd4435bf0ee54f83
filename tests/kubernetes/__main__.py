"""`./dev test-kubernetes`: images, a cluster of two nodes, ambit in it, the tests that need it, everything down.

Arguments are pytest's, e.g. `-k bookinfo`; `--mesh kubernetes -m mesh` runs the laptop's tests there instead. With
`--keep` the cluster stays for a look, and the next run with `--keep` uses it again.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ambit.core.errors import AmbitError
from tests.kubernetes.cluster import lifecycle, programs
from tests.kubernetes.cluster.settings import Cluster, load, state_folder

ROOT = Path(__file__).parents[2]
IMAGES = [ROOT / ".cache/image/ambit.tar", ROOT / ".cache/image/samples.tar"]
INSTALL_TIMEOUT = 180


def main() -> int:
    """Runs all of it and returns pytest's exit code, or that of what failed before."""
    parser = argparse.ArgumentParser(prog="./dev test-kubernetes", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster running, and use one that is")
    options, words = parser.parse_known_args()
    signal.signal(signal.SIGTERM, _stop)
    name = "ambit-kept" if options.keep else f"ambit-{os.getpid()}"
    try:
        return _run(Cluster(name, state_folder(name), 2), options.keep, words)
    except AmbitError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code


def _run(cluster: Cluster, keep: bool, words: list[str]) -> int:
    programs.check_machine()
    with _timed("programs of the cluster"):
        programs.build()
    with _timed("images"):
        _checked([sys.executable, "-m", "image"])
    try:
        if load(cluster.state) is None:
            with _timed("cluster"):
                lifecycle.up(cluster)
        with _timed("images onto nodes"):
            for archive in IMAGES:
                lifecycle.load_image(cluster, archive)
        with _timed("ambit install"):
            _install(cluster)
        pytest = [sys.executable, "-m", "pytest", "-m", "kubernetes", *words]
        return lifecycle.execute(cluster, pytest)
    finally:
        if keep:
            print(
                f"kept: export KUBE_STATE={cluster.state}; python -m tests.kubernetes.cluster kubectl get pods -A"
            )
        else:
            with _timed("down"):
                lifecycle.down(cluster.state)


def _install(cluster: Cluster) -> None:
    settings = ["--set", "global.hub=localhost", "--set", "global.tag=dev", "--timeout", str(INSTALL_TIMEOUT)]
    if lifecycle.execute(cluster, [sys.executable, "-m", "ambit", "install", *settings]):
        lifecycle.execute(cluster, ["kubectl", "get", "pods", "--all-namespaces", "-o", "wide"])
        lifecycle.execute(cluster, ["kubectl", "-n", "ambit-system", "get", "events"])
        raise AmbitError(
            "ambit did not install into the test cluster",
            hint="run `./dev test-kubernetes --keep` and read the logs of the pods in ambit-system",
        )


def _checked(command: list[str]) -> None:
    if subprocess.run(command, cwd=ROOT).returncode:
        raise AmbitError(f"`{' '.join(command[1:])}` failed")


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(130)  # so that the cluster is taken down


if __name__ == "__main__":
    sys.exit(main())
