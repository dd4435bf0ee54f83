"""`./dev test-kubernetes`: images, clusters of two nodes, ambit in them, the tests that need one, everything down.

The tests are those marked `kubernetes`, and those of the laptop's mesh, driven in these clusters. Their files are
shared out over the clusters (`--clusters`); in each, one runs after the other. Other arguments are pytest's:
`-k bookinfo`, `-m kubernetes`. Without any, the results are recorded in docs/conformance/kubernetes.json, after at most
three failed tests had a second try. With `--keep` the clusters stay for a look, and the next run with `--keep` uses
them again; runs with different names (`--name`) do not disturb each other.
"""

import argparse
import functools
import os
import signal
import sys

import pytest

from ambit.core.errors import AmbitError
from tests.kubernetes import results
from tests.kubernetes.cluster import lifecycle, processes, programs
from tests.kubernetes.cluster.settings import Cluster, load, state_folder
from tests.kubernetes.installed import IMAGES, LOOK, checked, install, restart, stop, timed, told
from tests.kubernetes.side_by_side import at_once, called, shared_out
from tests.rerun import LIMIT

TESTS = ["-m", "kubernetes or mesh", "--mesh", "kubernetes", "--timeout", "300", "--durations", "15"]
PLACES = ["tests/image", "tests/kubernetes", "tests/mesh"]
"""Where such tests lie; collecting all others takes a while."""
PODS = {"AMBIT_CAPTURE_PODS": "20", "AMBIT_CAPTURE_DURING_OUTAGES": "200"}
"""How many pods send their first bytes, and how many more start while agents are deleted."""
CLUSTERS = 2
"""For two processors: most tests wait more than they compute."""


def main() -> int:
    """Runs all of it and returns pytest's exit code, or that of what failed before."""
    parser = argparse.ArgumentParser(prog="./dev test-kubernetes", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave the clusters running, and use those that are"
    )
    parser.add_argument("--name", help="which clusters (default with --keep: `ambit-kept`)")
    parser.add_argument(
        "--clusters",
        type=int,
        choices=range(1, 10),
        default=CLUSTERS,
        metavar="N",
        help="over how many clusters the tests are shared out (default: %(default)s)",
    )
    options, words = parser.parse_known_args()
    if options.clusters > 1 and "--pdb" in words:
        parser.error("--pdb needs a terminal of its own: add --clusters 1")
    signal.signal(signal.SIGTERM, stop)
    os.environ |= PODS | os.environ
    name = options.name or ("ambit-kept" if options.keep else f"ambit-{os.getpid()}")
    where = called(name, state_folder(name), options.clusters)
    return told(lambda: _run(where, options.keep, words))


def _run(where: list[Cluster], keep: bool, words: list[str]) -> int:
    programs.check_machine()
    with timed("programs of the clusters"):
        programs.build()
    with timed("images"):
        checked([sys.executable, "-m", "image"])
    fresh = [cluster for cluster in where if load(cluster.state) is None]
    try:
        with timed("clusters"):
            at_once(lifecycle.up, fresh)
        with timed("images onto nodes"):
            at_once(_load_images, where)
        if where[0] in fresh:
            with timed("pods without the mesh"):
                _measured_starts(where[0], "without")
        with timed("ambit install"):
            at_once(functools.partial(_install, fresh=fresh), where)
        if where[0] in fresh:
            with timed("pods with the mesh"):
                _measured_starts(where[0], "with")
        with timed("tests"):
            return _tests(where, words)
    finally:
        if keep:
            for cluster in where:
                kubectl = "python -m tests.kubernetes.cluster kubectl get pods -A"
                print(f"kept: export KUBE_STATE={cluster.state}; {kubectl}")
        else:
            for each in (signal.SIGINT, signal.SIGTERM):  # whoever asks twice asks for nothing else
                signal.signal(each, signal.SIG_IGN)
            with timed("down"):
                at_once(_down, where)


def _load_images(cluster: Cluster) -> None:
    for archive in IMAGES:
        lifecycle.load_image(cluster, archive)


def _install(cluster: Cluster, fresh: list[Cluster]) -> None:
    install(cluster, "experimental")  # what has the fields of the standard one, and those of more tests
    if cluster not in fresh:
        restart(cluster)


def _measured_starts(cluster: Cluster, which: str) -> None:
    command = [sys.executable, "-m", "tests.kubernetes.starts", which]
    if lifecycle.execute(cluster, command):
        raise AmbitError(f"`{' '.join(command[1:])}` failed", hint=LOOK)


def _tests(where: list[Cluster], words: list[str]) -> int:
    """Runs them; a whole run records its results, after at most `LIMIT` failed tests had a second try alone."""
    if words:
        places = [] if any(word.startswith("tests/") for word in words) else PLACES
        return _pytest(where, [*words, *places])
    partial = results.FILE.with_name(".kubernetes.json")
    record = ["-p", "tests.kubernetes.results", "--results", str(partial)]
    try:
        code = _pytest(where, [*record, *PLACES])
        found = results.load(partial)
        if found is None or code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return code
        if found.failed and len(found.failed) <= LIMIT:
            _pytest(where[:1], [*record, "--second-try", *found.failed])
            found = results.load(partial) or found
            code = int(bool(found.failed))
        partial.replace(results.FILE)
        print(f"results of {found.commit}: {results.FILE}; `pytest tests/docs --update-golden` shows them")
        return code
    finally:
        partial.unlink(missing_ok=True)


def _pytest(where: list[Cluster], words: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", *TESTS, *words]
    if len(where) == 1:
        return lifecycle.execute(where[0], command)
    return processes.run([*command, *shared_out(where)], lifecycle.tools())


def _down(cluster: Cluster) -> None:
    lifecycle.down(cluster.state)


if __name__ == "__main__":
    sys.exit(main())
