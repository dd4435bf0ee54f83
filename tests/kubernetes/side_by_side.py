"""Several clusters side by side: each step in all of them at once, and one pytest that shares the tests out."""

import multiprocessing
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ambit.core.errors import AmbitError
from tests.kubernetes.cluster.settings import Cluster
from tests.kubernetes.installed import told


def called(name: str, state: Path, number: int) -> list[Cluster]:
    """The cluster of that name and folder, and others whose names and folders end in -2, -3 and so on."""
    ends = ["", *(f"-{each}" for each in range(2, number + 1))]
    return [Cluster(f"{name}{end}", state.with_name(f"{state.name}{end}"), 2) for end in ends]


def at_once(step: Callable[[Cluster], None], where: Sequence[Cluster]) -> None:
    """Does the step in every cluster, each in a process of its own, and returns when all are done.

    Raises AmbitError when one failed; it has said why by then. What ends this process ends those first.
    """
    fork = multiprocessing.get_context("fork")
    steps = [fork.Process(target=_do, args=(step, cluster), name=cluster.name) for cluster in where]
    try:
        for each in steps:
            each.start()
        for each in steps:
            each.join()
    finally:
        for each in steps:
            if each.pid is not None:
                each.terminate()
                each.join()
    failed = [each.name for each in steps if each.exitcode]
    if failed:
        raise AmbitError(f"that was in {' and '.join(failed)}", hint="read what was said before")


def _do(step: Callable[[Cluster], None], cluster: Cluster) -> None:
    sys.exit(told(lambda: step(cluster)))


def shared_out(where: Sequence[Cluster]) -> list[str]:
    """pytest's options to run whole files of tests in these clusters, each where one has become free.

    Files keep the order that they have in one cluster. What runs them lives in a cluster's network, bears its name and
    means it, as `lifecycle.environment` says.
    """
    words = ["--dist", "loadfile", "--no-loadscope-reorder"]
    for cluster in where:
        told_of = {
            "id": cluster.name,
            "python": shlex.join([*cluster.inside(), sys.executable]),
            "env:KUBECONFIG": str(cluster.kubeconfig()),
            "env:KUBE_STATE": str(cluster.state),
        }
        words += ["--tx", "//".join(["popen", *(f"{key}={value}" for key, value in told_of.items())])]
    return words
