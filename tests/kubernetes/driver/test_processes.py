"""A process is ended if it is the one written down, and only then."""

import os
from pathlib import Path

import pytest

from ambit.core.errors import AmbitError
from tests.kubernetes.cluster import processes


def test_a_recorded_process_and_its_children_are_ended(tmp_path: Path) -> None:
    process = processes.start(tmp_path, "sleeper", ["sh", "-c", "sleep 1000 & echo $!; wait"])
    processes.record(tmp_path, "sleeper", process.pid)
    assert processes.recorded(tmp_path, "sleeper") == process.pid
    log = tmp_path / "sleeper.log"
    processes.wait_for("the child's id", lambda: log.read_text().endswith("\n"), 60)
    child = int(log.read_text())
    processes.end_recorded(tmp_path)
    assert process.poll() is not None

    def gone() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    processes.wait_for("the end of the child", gone, 60)


def test_a_process_with_a_recycled_id_is_left_alone(tmp_path: Path) -> None:
    process = processes.start(tmp_path, "sleeper", ["sleep", "1000"])
    try:
        (tmp_path / "processes").write_text(
            f"{process.pid} 1 sleeper\n"
        )  # recorded when another process had this id
        processes.end_recorded(tmp_path)
        assert process.poll() is None
        with pytest.raises(AmbitError, match="no sleeper runs"):
            processes.recorded(tmp_path, "sleeper")
    finally:
        process.kill()
        process.wait()


def test_nothing_recorded_is_nothing_to_end(tmp_path: Path) -> None:
    processes.end_recorded(tmp_path)


def test_what_does_not_come_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(AmbitError, match="the moon: not within 0 s") as failure:
        processes.wait_for("the moon", lambda: False, 0, hint="look up")
    assert failure.value.hint == "look up"


def test_output_goes_to_a_log_of_the_programs_name(tmp_path: Path) -> None:
    process = processes.start(tmp_path, "speaker", ["sh", "-c", "echo said; echo wrong >&2"])
    assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 0
    assert (tmp_path / "speaker.log").read_text() == "said\nwrong\n"
