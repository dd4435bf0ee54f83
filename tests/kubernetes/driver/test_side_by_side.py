"""Steps run in all clusters at once and end together; pytest's workers mean a cluster each."""

import itertools
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import execnet
import pytest

from ambit.core.errors import AmbitError
from tests.kubernetes.cluster import processes
from tests.kubernetes.cluster.settings import Cluster
from tests.kubernetes.side_by_side import at_once, called, shared_out

TOLD_TO_END = """
import signal, sys
from pathlib import Path
from tests.kubernetes.cluster import processes
from tests.kubernetes.installed import stop
from tests.kubernetes.side_by_side import at_once, called

signal.signal(signal.SIGTERM, stop)
folder = Path(sys.argv[1])

def step(cluster):
    processes.run(["sh", "-c", f"trap 'echo > {cluster.state}.cleaned; exit' TERM; echo > {cluster.state}.began; "
                   "while :; do sleep 0.05; done"], {})

at_once(step, called("mine", folder / "state", 2))
"""


def test_clusters_of_one_run_have_names_and_folders_of_their_own(tmp_path: Path) -> None:
    where = called("mine", tmp_path / "state", 3)
    assert [cluster.name for cluster in where] == ["mine", "mine-2", "mine-3"]
    assert [cluster.state.name for cluster in where] == ["state", "state-2", "state-3"]
    assert len({node.key for cluster in where for node in cluster.nodes}) == 6


def test_a_step_is_done_in_every_cluster_at_once(tmp_path: Path) -> None:
    where = called("mine", tmp_path / "state", 2)
    for cluster in where:
        os.mkfifo(cluster.state)

    def meet(cluster: Cluster) -> None:
        mode = "w" if cluster is where[0] else "r"
        for other in where:  # opening one waits for whoever opens its other end
            other.state.open(mode).close()

    at_once(meet, where)


def test_a_failure_names_its_clusters_and_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    where = called("mine", tmp_path / "state", 3)

    def step(cluster: Cluster) -> None:
        if cluster is not where[1]:
            raise AmbitError(f"{cluster.name} has no room", hint="make some")

    with pytest.raises(AmbitError, match=r"in mine and mine-3$"):
        at_once(step, where)
    said = capfd.readouterr().err
    assert "error: mine has no room\n\nhint: make some\n" in said
    assert "error: mine-3 has no room\n\nhint: make some\n" in said


def test_who_is_told_to_end_ends_the_steps_first_and_they_their_programs(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", TOLD_TO_END, str(tmp_path)])
    try:
        began = [tmp_path / "state.began", tmp_path / "state-2.began"]
        processes.wait_for("both programs", lambda: all(path.exists() for path in began), 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "state.cleaned").exists()
    assert (tmp_path / "state-2.cleaned").exists()


def test_each_worker_lives_in_a_cluster_and_means_it(tmp_path: Path) -> None:
    where = called("mine", tmp_path / "state", 2)
    words = shared_out(where)
    specs = [execnet.XSpec(word) for before, word in itertools.pairwise(words) if before == "--tx"]
    assert [spec.id for spec in specs] == ["mine", "mine-2"]
    for spec, cluster in zip(specs, where, strict=True):
        assert spec.popen
        assert shlex.split(spec.python) == [*cluster.inside(), sys.executable]
        assert spec.env == {"KUBECONFIG": f"{cluster.state}/admin.conf", "KUBE_STATE": str(cluster.state)}
