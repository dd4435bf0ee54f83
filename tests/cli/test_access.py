"""Which cluster a command asks, and what never leaves the laptop."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from ambit.cli import access
from ambit.cli.commands import local
from ambit.core.errors import NotRunning
from ambit.local.instance.record import InstanceRecord, ProcessId, boot_id, write_record
from ambit.local.layout import StateDirectory


class Asked:
    """Stands for the client: remembers which kubeconfig and context it was given."""

    @staticmethod
    def from_kubeconfig(path: str | Path, context: str | None) -> tuple[str, str | None]:
        return os.fspath(path), context


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home with a kubeconfig, and a state directory without instances."""
    monkeypatch.setattr(access, "Client", Asked)
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    monkeypatch.setenv("AMBIT_STATE", os.fspath(tmp_path / "state"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()
    return tmp_path


def start(name: str) -> str:
    """An instance that runs; its kubeconfig."""
    state = StateDirectory.of(name)
    state.root.mkdir(parents=True)
    write_record(state, InstanceRecord(name, "0", ProcessId.of(os.getpid()), boot_id(), 1, 1, False))
    return os.fspath(state.kubeconfig)


def test_without_an_instance_the_kubeconfig_is_that_of_kubectl(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = os.fspath(home / ".kube" / "config")
    assert access.open_client(None, None, None) == (usual, None)
    monkeypatch.setenv("KUBECONFIG", "/etc/one:/etc/two")
    assert access.open_client(None, None, "prod") == ("/etc/one", "prod")
    assert access.open_client(None, "/etc/three", None) == ("/etc/three", None)
    with pytest.raises(NotRunning):
        access.open_client("mine", None, None)


def test_without_any_cluster_the_instance_is_missed(home: Path) -> None:
    (home / ".kube" / "config").unlink()
    with pytest.raises(NotRunning):
        access.open_client(None, None, None)


def test_the_running_instance_goes_before_it_unless_a_context_is_named(home: Path) -> None:
    mine = start("ambit")
    assert access.open_client(None, None, None) == (mine, None)
    assert access.open_client(None, None, "prod") == (os.fspath(home / ".kube" / "config"), "prod")
    (home / ".kube" / "config").unlink()
    assert access.open_client(None, None, "ambit") == (mine, "ambit")


def test_the_variable_goes_before_the_running_instance(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for kubectl, istioctl and helm, which are typed beside this."""
    mine = start("ambit")
    for kubeconfig in ("", mine):
        monkeypatch.setenv("KUBECONFIG", kubeconfig)
        assert access.open_client(None, None, None) == (mine, None)
    monkeypatch.setenv("KUBECONFIG", "/etc/prod")
    assert access.open_client(None, None, None) == ("/etc/prod", None)
    assert access.open_client("ambit", None, None) == (mine, None)
    assert access.open_client(None, mine, None) == (mine, None)


def test_the_kubeconfig_of_another_instance_leads_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, two = start("ambit"), start("two")
    monkeypatch.setenv("KUBECONFIG", two)
    assert access.open_client(None, None, None) == access.laptop_client(None) == (two, None)
    assert access.open_client("ambit", None, None) == access.laptop_client("ambit") == (mine, None)
    monkeypatch.setenv("KUBECONFIG", os.fspath(StateDirectory.of("gone").kubeconfig))
    with pytest.raises(NotRunning, match="no instance 'gone' is running"):
        access.open_client(None, None, None)


def test_what_looks_into_an_instance_follows_the_variable(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, two = start("ambit"), start("two")
    monkeypatch.setenv("KUBECONFIG", two)
    assert os.fspath(access.running_state(None).kubeconfig) == two
    assert os.fspath(access.running_state("ambit").kubeconfig) == mine
    log = StateDirectory.of("two").logs / "cluster.log"
    log.parent.mkdir()
    log.write_text("of two\n")
    assert CliRunner().invoke(local.command, ["logs", "cluster"]).output == "of two\n"
    monkeypatch.setenv("KUBECONFIG", "/etc/prod")
    assert os.fspath(access.running_state(None).kubeconfig) == mine


def test_forwards_and_images_never_go_to_another_cluster(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/etc/one")
    with pytest.raises(NotRunning, match="no instance 'ambit' is running"):
        access.laptop_client(None)
    assert access.open_client(None, None, None) == ("/etc/one", None)
