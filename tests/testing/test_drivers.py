"""The driver of a Kubernetes cluster with a kubectl that only writes down what it is told, and the plugin's choice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ambit.testing.kubernetes import KubernetesMesh, node_namespace, node_pod

KUBECTL = """#!/bin/sh
printf '%s\\n' "$*" >>"$TOLD"
case "$*" in
*" get nodes "*) echo '{"items": [
  {"metadata": {"name": "second"}, "spec": {}},
  {"metadata": {"name": "closed"}, "spec": {"unschedulable": true}},
  {"metadata": {"name": "first"}, "spec": {}}]}' ;;
*" get pod web "*) echo fd00::1 10.0.0.1 ;;
*"/proc"*) echo '{"1": ["/sbin/init"], "7": ["/opt/envoy", "-c", "x"], "8": ["python3", "-m", "ambit", "node", "run"],
  "9": ["python3", "-I", "/lib/keeper.py", "python3", "-m", "ambit", "node", "run"],
  "10": ["/usr/bin/python3", "/usr/bin/ambit", "node", "run"]}' ;;
esac
"""
TESTS = """
import pytest

@pytest.mark.laptop_only("it is about the laptop")
def test_laptop(): raise AssertionError

def test_everywhere(): pass
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "told"
    monkeypatch.setenv("TOLD", os.fspath(path))
    return path


@pytest.fixture
def mesh(told: Path, tmp_path: Path) -> KubernetesMesh:
    program, kubeconfig = tmp_path / "kubectl", tmp_path / "config"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    kubeconfig.write_text("{}")
    return KubernetesMesh(kubeconfig, os.fspath(program))


def test_every_command_names_the_cluster(mesh: KubernetesMesh, told: Path) -> None:
    mesh.kubectl("version")
    assert told.read_text() == f"--kubeconfig={mesh.kubeconfig} version\n"
    refused = mesh.ambit("ps", check=False)
    assert refused.returncode != 0
    assert "config" in refused.stderr


def test_nodes_that_take_pods_in_order_and_addresses_by_family(mesh: KubernetesMesh) -> None:
    assert mesh.nodes == ("first", "second")
    assert mesh.pod_addresses("default", "web") == ("10.0.0.1", "fd00::1")


def test_a_node_is_entered_by_a_pod_that_is_made_once_and_removed(mesh: KubernetesMesh, told: Path) -> None:
    for _ in range(2):
        mesh.on_node("first", "true")
    mesh.close()
    words = [line.partition(" ")[2].split()[0] for line in told.read_text().splitlines()]
    assert words == ["apply", "get", "apply", "wait", "exec", "exec", "delete"]
    spec = node_pod("n", "first")["spec"]
    assert (spec["nodeName"], spec["hostNetwork"], spec["hostPID"]) == ("first", True, True)
    # A cluster may refuse such pods by default, and enrol every namespace.
    labels = node_namespace("n")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


def test_nothing_is_removed_when_no_node_was_entered(mesh: KubernetesMesh, told: Path) -> None:
    mesh.close()
    assert not told.exists()


def test_processes_of_a_node_by_part(mesh: KubernetesMesh, told: Path) -> None:
    assert mesh.processes("envoy", "first") == [7]
    assert mesh.processes("node agent", "first") == [8, 10]
    mesh.end_process("first", 7)
    assert told.read_text().rstrip().endswith("7 9")


def test_a_kubeconfig_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"nothing is no kubeconfig: set \$KUBECONFIG"):
        KubernetesMesh(tmp_path / "nothing", None)


def run_pytest(folder: Path, text: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text('pytest_plugins = ["ambit.testing.plugin"]\n')
    (folder / "test_it.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rs",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        folder,
        *words,
        folder,
    ]
    given = {name: value for name, value in os.environ.items() if name != "AMBIT_TEST_MESH"}
    return subprocess.run(
        command, env={**given, **environment}, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("by_environment", [False, True])
def test_what_is_of_the_laptop_is_left_out_elsewhere_and_the_reason_shown(
    tmp_path: Path, by_environment: bool
) -> None:
    words = () if by_environment else ("--mesh", "kubernetes")
    done = run_pytest(tmp_path, TESTS, *words, **{"AMBIT_TEST_MESH": "kubernetes"} if by_environment else {})
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert "laptop only: it is about the laptop" in done.stdout
    assert "1 failed, 1 passed" in run_pytest(tmp_path, TESTS).stdout


def test_mistakes_of_choice_are_told(tmp_path: Path) -> None:
    silent = TESTS.replace('("it is about the laptop")', "")
    assert "test_laptop: laptop_only needs its reason" in run_pytest(tmp_path, silent).stderr
    done = run_pytest(tmp_path, TESTS, AMBIT_TEST_MESH="cloud")
    assert "AMBIT_TEST_MESH is 'cloud', not one of laptop, kubernetes" in done.stdout + done.stderr
