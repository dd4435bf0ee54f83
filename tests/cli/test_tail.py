"""`ambit local logs`, and `ambit down --all` where nothing runs."""

import io
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ambit.cli.access import instance_names
from ambit.cli.commands.down import command as down
from ambit.cli.render import tail as module
from ambit.cli.render.tail import tail
from ambit.core.errors import BadInput
from ambit.local.instance.record import InstanceRecord, ProcessId, write_record
from ambit.local.layout import StateDirectory


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "cluster.log"


@given(
    st.binary(max_size=60).map(lambda text: text.replace(b"\r", b"\n")),
    st.integers(-1, 9),
    st.integers(1, 70),
)
def test_the_last_lines_are_those_of_tail(log: Path, text: bytes, last: int, block: int) -> None:
    log.write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
        tail(log, follow=False, last=last)
        shown = sys.stdout.buffer
        assert isinstance(shown, io.BytesIO)
        found = shown.getvalue()
    lines = io.BytesIO(text).readlines()
    assert found == b"".join(lines if last < 0 else lines[len(lines) - min(last, len(lines)) :])


def test_down_all_ends_instances_and_touches_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMBIT_STATE", os.fspath(tmp_path))
    state = StateDirectory.of("ambit")
    assert "nothing to do" in CliRunner().invoke(down, ["--all"]).stderr
    for name in ("one", "two"):
        crashed = StateDirectory.of(name)
        crashed.root.mkdir()
        write_record(crashed, InstanceRecord(name, "0", ProcessId(1, 1), "another boot", 1, 1, False))
    (tmp_path / "mine").mkdir()
    assert instance_names(state) == ["one", "two"]
    told = CliRunner().invoke(down, ["--all"]).stderr
    assert "'one' is gone" in told and "'two' is gone" in told
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["mine"]
    with pytest.raises(BadInput):
        CliRunner().invoke(down, ["--all", "--name", "one"], catch_exceptions=False)
