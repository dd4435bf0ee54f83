"""`ambit version`."""

import json

import pytest
from click.testing import CliRunner

from ambit import __version__
from ambit.cli.commands.version import Part, Program, Versions, command, version_lines
from ambit.core.errors import NotRunning

PROGRAM = Program("1.0", "1.40.0")


def test_versions_that_differ_are_counted() -> None:
    proxies = (
        Part("a", "n1", "1.0", "1.40.0"),
        Part("b", "n2", "1.0", "1.40.1"),
        Part("c", "n3", "0.9", "1.40.0"),
    )
    assert version_lines(Versions(PROGRAM, (Part("control", "n1", "1.0"),), proxies)) == [
        "client version: 1.0 (Envoy 1.40.0)",
        "control plane version: 1.0 (1 running)",
        "node proxy version: 0.9 (1 running), 1.0 (2 running)",
        "Envoy version: 1.40.0 (2 running), 1.40.1 (1 running)",
    ]


def test_a_part_that_does_not_answer_says_why() -> None:
    lines = version_lines(Versions(PROGRAM, (), (Part("a", "n1", "unknown", error="no answer"),)))
    assert lines[1:] == [
        "node proxy version: unknown (1 running)",
        "Envoy version: unknown (1 running)",
        "a: no answer",
    ]


def test_only_this_program_without_the_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(command, ["--no-remote", "-o", "json"], catch_exceptions=False)
    told = json.loads(result.stdout)
    assert told["client"]["version"] == __version__
    assert told["controlPlanes"] == told["nodeProxies"] == []


def test_no_mesh_is_no_error_unless_one_was_named(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMBIT_STATE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    result = CliRunner().invoke(command, [], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"client version: {__version__} (Envoy ")
    assert "no instance 'ambit' is running" in result.stderr
    with pytest.raises(NotRunning):
        CliRunner().invoke(command, ["--name", "mine"], catch_exceptions=False)
