"""The first process of the node's container: the agent comes back, what it started lives on."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ambit.agent.supervise import keeper
from ambit.daemon.process_id import start_time

PATIENCE = 60
AGENT = """
import os, pathlib, signal, sys, time
directory = pathlib.Path(sys.argv[1])
if not (directory / "envoy").exists():
    envoy = os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsid=True)
    (directory / "envoy").write_text(str(envoy))
(directory / "new").write_text(str(os.getpid()))
(directory / "new").rename(directory / "agent")
signal.pause()
"""


def name(pid: int | str) -> str:
    """Of the program that the process runs; empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
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
        return self.process.wait(PATIENCE)


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


BEATS = """
import asyncio, os, pathlib, sys
from ambit.agent.supervise import keeper
keeper.BEAT = 0.05
directory = pathlib.Path(sys.argv[1])
async def main():
    beating = asyncio.create_task(keeper.beat())
    await asyncio.sleep(0)
    (directory / "new").write_text(str(os.getpid()))
    (directory / "new").rename(directory / "agent")
    await beating
asyncio.run(main())
"""
KEEPS = """
import sys
sys.path.insert(0, {folder!r})
import keeper
keeper._LISTEN, keeper._SILENT = 0.5, 4
sys.exit(keeper.keep(sys.argv[1:]))
"""


@pytest.mark.parametrize("hangs", [True, False])
def test_an_agent_that_hangs_is_killed_and_started_again_and_no_other(tmp_path: Path, hangs: bool) -> None:
    """The one that goes on beats ten times in each wait."""
    keeps = KEEPS.format(folder=str(Path(str(keeper.__file__)).parent))
    command = [sys.executable, "-I", "-S", "-c", keeps, sys.executable, "-c", BEATS, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        until((tmp_path / "agent").exists)
        agent = int((tmp_path / "agent").read_text())
        if hangs:
            os.kill(agent, signal.SIGSTOP)
            assert process.stderr is not None
            assert "has done nothing for 2 s and is killed" in process.stderr.readline()
            assert "ended by signal 9" in process.stderr.readline()
            until(lambda: int((tmp_path / "agent").read_text()) != agent)
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(4)
            assert int((tmp_path / "agent").read_text()) == agent
        process.terminate()
        process.wait(PATIENCE)


def test_the_end_is_passed_on(container: Container) -> None:
    agent = container.pid("agent")
    assert container.end() == 0
    assert start_time(agent) is None


def test_a_wrong_command_line_is_not_tried_again(tmp_path: Path) -> None:
    process = Container(tmp_path, "raise SystemExit(2)").process
    assert process.wait(PATIENCE) == 2


def test_an_agent_that_cannot_run_is_tried_ever_more_slowly(tmp_path: Path) -> None:
    made = Container(tmp_path, "raise SystemExit(1)")
    assert made.process.stderr is not None
    lines = [made.process.stderr.readline() for _ in range(3)]
    # With the status of the agent, should that have been started again just now.
    made.end()
    assert [line.rpartition(" in ")[2].strip() for line in lines] == ["0.0 s", "0.1 s", "0.2 s"]
    assert [keeper.pause(n) for n in (1, 2, 3, 50)] == [0.0, 0.1, 0.2, 10.0]


def test_what_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    program, envoy = tmp_path / "agent", tmp_path / "started"
    command = [sys.executable, "-I", "-S", str(keeper.__file__), str(program)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"{program} cannot be started: No such file or directory\n"
        ready = tmp_path / "ready"
        ready.write_text(f"#!/bin/sh\ntouch {envoy}\nexec sleep 600\n")
        ready.chmod(0o755)
        ready.rename(program)
        until(envoy.exists)
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.netns
def test_as_the_first_process_of_a_pid_namespace(tmp_path: Path) -> None:
    """There the kernel drops signals that the first process does not wait for, and orphans become its children."""
    made = Container(tmp_path, AGENT, "unshare", "--pid", "--fork", "--kill-child")
    made.pid("agent")
    (inner,) = Path(f"/proc/{made.process.pid}/task/{made.process.pid}/children").read_text().split()
    children = Path(f"/proc/{inner}/task/{inner}/children")
    (agent,) = children.read_text().split()
    os.kill(int(agent), signal.SIGKILL)
    # The killed agent is a child until it is reaped.
    until(lambda: agent not in (now := children.read_text().split()) and len(now) == 2)
    envoy = next(pid for pid in children.read_text().split() if name(pid) == "sleep")
    os.kill(int(inner), signal.SIGTERM)
    assert made.process.wait(PATIENCE) == 0
    until(lambda: start_time(int(envoy)) is None)


SUCCEEDED = """
import os, pathlib, sys
directory = pathlib.Path(sys.argv[1])
starts = directory / "starts"
starts.write_text((starts.read_text() if starts.exists() else "") + "x")
if not (directory / "envoy").exists():
    envoy = os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsid=True)
    (directory / "new").write_text(str(envoy))
    (directory / "new").rename(directory / "envoy")
raise SystemExit(75)
"""


class Succeeded(Container):
    """Its agent ends at once, as one that handed over; the test holds the lock of the one in charge."""

    def __init__(self, directory: Path) -> None:
        lock = directory / keeper.LOCK
        self.lock = lock.open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        command = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            sys.executable,
            "-I",
            "-S",
            str(keeper.__file__),
        ]
        agent = [sys.executable, "-c", SUCCEEDED, str(directory), "--run-dir", str(directory)]
        self.directory = directory
        self.process = subprocess.Popen([*command, *agent], stderr=subprocess.PIPE, text=True)
        self.pid("envoy")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        (self.first,) = map(int, children.read_text().split())

    def children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.first}/task/{self.first}/children").read_text().split()
        ]

    def envoy(self) -> int:
        """The number here of what the agent left behind, once the agent itself is gone."""
        until(lambda: [name(pid) for pid in self.children()] == ["sleep"])
        return self.children()[0]

    def starts(self) -> int:
        return len((self.directory / "starts").read_text())


@pytest.mark.netns
def test_after_a_succession_the_container_ends_with_envoy(tmp_path: Path) -> None:
    made = Succeeded(tmp_path)
    envoy = made.envoy()
    os.kill(made.first, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        made.process.wait(3 * keeper._LOOK)
    os.kill(envoy, signal.SIGTERM)
    assert made.process.wait(PATIENCE) == 0
    assert made.starts() == 1


@pytest.mark.netns
def test_after_a_succession_the_container_waits_until_it_is_told_to_end(tmp_path: Path) -> None:
    made = Succeeded(tmp_path)
    os.kill(made.envoy(), signal.SIGTERM)
    until(lambda: not made.children())
    with pytest.raises(subprocess.TimeoutExpired):
        made.process.wait(3 * keeper._LOOK)
    os.kill(made.first, signal.SIGTERM)
    assert made.process.wait(PATIENCE) == 0


def test_a_node_without_an_agent_gets_the_former_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_ORPHANED_SECONDS", 0.2)
    monkeypatch.setattr(keeper, "_LOOK", 0.05)
    lock = tmp_path / keeper.LOCK
    lock.touch()
    program = ["agent", "--run-dir", str(tmp_path)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, keeper._SIGNALS)
    try:
        assert keeper._outlive(False, keeper._lock(program)) is False
        with lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert keeper._is_held(str(lock))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
