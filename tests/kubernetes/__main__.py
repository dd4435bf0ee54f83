"""`./dev test-kubernetes`: images, a cluster of two nodes, ambit in it, the tests that need it, everything down.

The tests are those marked `kubernetes`, and those of the laptop's mesh, driven in this cluster. Other arguments are
pytest's: `-k bookinfo`, `-m kubernetes`. With `--keep` the cluster stays for a look, and the next run with `--keep`
uses it again; clusters with different names (`--name`) do not disturb each other.
"""

import argparse
import os
import signal
import sys

from ambit.core.errors import AmbitError
from tests.kubernetes.cluster import lifecycle, programs
from tests.kubernetes.cluster.settings import Cluster, load, state_folder
from tests.kubernetes.installed import IMAGES, LOOK, checked, install, restart, stop, timed

TESTS = ["-m", "kubernetes or mesh", "--mesh", "kubernetes", "--timeout", "300", "--durations", "15"]
PLACES = ["tests/image", "tests/kubernetes", "tests/mesh"]
"""Where such tests lie; collecting all others takes a while."""
PODS = {"AMBIT_CAPTURE_PODS": "20", "AMBIT_CAPTURE_DURING_OUTAGES": "200"}
"""How many pods send their first bytes, and how many more start while agents are deleted."""


def main() -> int:
    """Runs all of it and returns pytest's exit code, or that of what failed before."""
    parser = argparse.ArgumentParser(prog="./dev test-kubernetes", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster running, and use one that is")
    parser.add_argument("--name", help="which cluster (default with --keep: `ambit-kept`)")
    options, words = parser.parse_known_args()
    signal.signal(signal.SIGTERM, stop)
    os.environ |= PODS | os.environ
    name = options.name or ("ambit-kept" if options.keep else f"ambit-{os.getpid()}")
    try:
        return _run(Cluster(name, state_folder(name), 2), options.keep, words)
    except AmbitError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code


def _run(cluster: Cluster, keep: bool, words: list[str]) -> int:
    programs.check_machine()
    with timed("programs of the cluster"):
        programs.build()
    with timed("images"):
        checked([sys.executable, "-m", "image"])
    try:
        fresh = load(cluster.state) is None
        if fresh:
            with timed("cluster"):
                lifecycle.up(cluster)
        with timed("images onto nodes"):
            for archive in IMAGES:
                lifecycle.load_image(cluster, archive)
        if fresh:
            with timed("pods without the mesh"):
                _measured_starts(cluster, "without")
        with timed("ambit install"):
            install(
                cluster, "experimental"
            )  # what has the fields of the standard one, and those of more tests
            if not fresh:
                restart(cluster)
        if fresh:
            with timed("pods with the mesh"):
                _measured_starts(cluster, "with")
        with timed("tests"):
            where = [] if any(word.startswith("tests/") for word in words) else PLACES
            return lifecycle.execute(cluster, [sys.executable, "-m", "pytest", *TESTS, *words, *where])
    finally:
        if keep:
            print(
                f"kept: export KUBE_STATE={cluster.state}; python -m tests.kubernetes.cluster kubectl get pods -A"
            )
        else:
            with timed("down"):
                lifecycle.down(cluster.state)


def _measured_starts(cluster: Cluster, which: str) -> None:
    command = [sys.executable, "-m", "tests.kubernetes.starts", which]
    if lifecycle.execute(cluster, command):
        raise AmbitError(f"`{' '.join(command[1:])}` failed", hint=LOOK)


if __name__ == "__main__":
    sys.exit(main())
