"""Programs are built once, again when their source changes, and what is missing is named."""

import shutil
from pathlib import Path

import pytest

from ambit.core.errors import AmbitError
from tests.kubernetes.cluster import programs


def test_without_go_it_says_that_go_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AmbitError, match="Go is needed") as failure:
        programs.build()
    assert "https://go.dev/dl" in failure.value.hint


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(AmbitError, match="need root"):
        programs.check_machine()


def test_missing_system_programs_become_one_line_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(programs, "PLUGINS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AmbitError) as failure:
        programs.check_machine()
    assert failure.value.hint.endswith(
        "containerd containernetworking-plugins iproute2 iptables mount nftables runc util-linux`"
    )


def test_a_changed_source_is_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pause = next(program for program in programs.programs() if program.name == "pause")
    before = programs.digest(pause)
    shutil.copytree(programs.SOURCES / "pause", tmp_path / "pause")
    monkeypatch.setattr(programs, "SOURCES", tmp_path)
    assert programs.digest(pause) == before
    source = tmp_path / "pause/main.go"
    source.write_text(source.read_text() + "\n")
    assert programs.digest(pause) != before


def test_programs_call_themselves_by_the_versions_of_their_modules() -> None:
    stamps = {program.name: program.stamps for program in programs.programs()}
    assert stamps["kube"]["k8s.io/component-base/version.gitVersion"] == "v1.36.3"
    assert stamps["kube"]["k8s.io/component-base/version.gitMinor"] == "36"
    assert stamps["helm"]["helm.sh/helm/v3/internal/version.version"] == "v3.22.0"
