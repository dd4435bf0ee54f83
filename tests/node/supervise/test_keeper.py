"""The first process of the node's container: the agent comes back, what it started lives on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ambit.daemon.process_id import start_time
from ambit.node.supervise import keeper

AGENT = """
import os, pathlib, signal, sys, time
directory = pathlib.Path(sys.argv[1])
if not (directory / "envoy").exists():
    envoy = os.posix_spawn("/bin/sleep", ["sleep", "60"], {}, setsid=True)
    (directory / "envoy").write_text(str(envoy))
(directory / "new").write_text(str(os.getpid()))
(directory / "new").rename(directory / "agent")
signal.pause()
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Container:
    def __init__(self, directory: Path, script: str, *before: str) -> None:
        self.directory = directory
        command = [*before, sys.executable, "-I", "-S", str(keeper.__file__)]
        self.process = subprocess.Popen(
            [*command, sys.executable, "-c", script, str(directory)], stderr=subprocess.PIPE, text=True
        )

    def pid(self, name: str) -> int:
        until((self.directory / name).exists)
        return int((self.directory / name).read_text())

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    made = Container(tmp_path, AGENT)
    yield made
    if made.process.poll() is None:
        made.end()
    os.kill(made.pid("envoy"), signal.SIGKILL)


def test_a_killed_agent_comes_back_and_envoy_does_not_notice(container: Container) -> None:
    agent, envoy = container.pid("agent"), container.pid("envoy")
    began = start_time(envoy)
    os.kill(agent, signal.SIGKILL)
    until(lambda: container.pid("agent") != agent)
    assert start_time(envoy) == began is not None
    assert container.end() == 0
    until(lambda: start_time(agent) is None)


def test_the_end_is_passed_on(container: Container) -> None:
    agent = container.pid("agent")
    assert container.end() == 0
    assert start_time(agent) is None


def test_a_wrong_command_line_is_not_tried_again(tmp_path: Path) -> None:
    process = Container(tmp_path, "raise SystemExit(2)").process
    assert process.wait(10) == 2


def test_an_agent_that_cannot_run_is_tried_ever_more_slowly(tmp_path: Path) -> None:
    made = Container(tmp_path, "raise SystemExit(1)")
    assert made.process.stderr is not None
    lines = [made.process.stderr.readline() for _ in range(3)]
    assert made.end() == 0
    assert [line.rpartition(" in ")[2].strip() for line in lines] == ["0.0 s", "0.1 s", "0.2 s"]
    assert [keeper.pause(n) for n in (1, 2, 3, 50)] == [0.0, 0.1, 0.2, 10.0]


def test_what_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    program, envoy = tmp_path / "agent", tmp_path / "started"
    command = [sys.executable, "-I", "-S", str(keeper.__file__), str(program)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"{program} cannot be started: No such file or directory\n"
        ready = tmp_path / "ready"
        ready.write_text(f"#!/bin/sh\ntouch {envoy}\nexec sleep 60\n")
        ready.chmod(0o755)
        ready.rename(program)
        until(envoy.exists)
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.netns
def test_as_the_first_process_of_a_pid_namespace(tmp_path: Path) -> None:
    """There the kernel drops signals that the first process does not wait for, and orphans become its children."""
    made = Container(tmp_path, AGENT, "unshare", "--pid", "--fork", "--kill-child")
    made.pid("agent")
    (inner,) = Path(f"/proc/{made.process.pid}/task/{made.process.pid}/children").read_text().split()
    children = Path(f"/proc/{inner}/task/{inner}/children")
    (agent,) = children.read_text().split()
    os.kill(int(agent), signal.SIGKILL)
    until(lambda: len(children.read_text().split()) == 2)
    envoy = next(
        pid for pid in children.read_text().split() if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    )
    os.kill(int(inner), signal.SIGTERM)
    assert made.process.wait(10) == 0
    until(lambda: start_time(int(envoy)) is None)
