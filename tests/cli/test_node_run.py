"""What `ambit node run` tells the agent."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ambit.cli.commands.node import command


@pytest.mark.parametrize(("words", "as_json"), [([], False), (["--log-format", "json"], True)])
def test_the_access_log_has_the_form_of_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], as_json: bool
) -> None:
    told: list[Any] = []

    async def main(settings: Any) -> None:
        told.append(settings)

    monkeypatch.setattr("ambit.node.main.main", main)
    monkeypatch.setattr("ambit.daemon.logs.set_up", lambda *_, **__: None)
    done = CliRunner().invoke(command, ["run", "--node", "a", "--run-dir", str(tmp_path), *words])
    assert done.exit_code == 0, done.output
    assert [(each.access_log, each.log_as_json) for each in told] == [(True, as_json)]


@pytest.mark.parametrize(
    ("environment", "meant"),
    [
        ({"AMBIT_XDS_ADDRESS": "https://istiod.istio-system.svc:15012"}, "istiod.istio-system.svc:15012"),
        ({"CONTROL_ADDRESS": "control:1"}, "control:1"),
        ({"AMBIT_XDS_ADDRESS": "one:1", "CONTROL_ADDRESS": "two:2"}, "one:1"),
        ({}, "istiod.ambit-system.svc:15012"),
    ],
)
def test_another_control_plane_is_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], meant: str
) -> None:
    told: list[Any] = []

    async def main(settings: Any) -> None:
        told.append(settings.control)

    monkeypatch.setattr("ambit.node.main.main", main)
    monkeypatch.setattr("ambit.daemon.logs.set_up", lambda *_, **__: None)
    done = CliRunner().invoke(command, ["run", "--node", "a"], env=environment)
    assert done.exit_code == 0, done.output
    assert told == [meant]
