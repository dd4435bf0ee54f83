"""What a killed test run leaves behind: nothing."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ambit.testing.leftovers import leftovers

ROOT = Path(__file__).parents[2]
RUN = """
import os, subprocess, sys
from pathlib import Path
from ambit.testing.aftermath import after_death, end_after_death
folder = Path(sys.argv[1])
end_after_death(folder)
after_death("touch", f"{folder}/second")
after_death("mv", f"{folder}/first", f"{folder}/none")  # cannot be done: the others are done nevertheless
after_death("sh", "-c", f"! test -e {folder}/second && touch {folder}/first")
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
child, named = (
    subprocess.Popen([*sleeper, *more], start_new_session=True, stdout=subprocess.DEVNULL)
    for more in ((), (f"{folder}/x",))
)
print(child.pid, named.pid, flush=True)
sys.stdin.read()
child.kill(), named.kill()
"""


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)


def running(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, os.fspath(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def test_who_is_killed_has_its_orders_carried_out(tmp_path: Path) -> None:
    process, (child, named) = running(tmp_path)
    process.kill()
    process.wait()
    try:
        until(lambda: not Path(f"/proc/{named}").exists(), "what names the folder is dead")
        until((tmp_path / "second").exists, "commands were run")
        assert (tmp_path / "none").exists(), "the newest first, and all of them"
        assert Path(f"/proc/{child}").exists(), "others live"
    finally:
        os.kill(child, signal.SIGKILL)


def test_who_ends_by_itself_has_nothing_done(tmp_path: Path) -> None:
    process, _ = running(tmp_path)
    process.communicate("")
    assert process.returncode == 0
    until(lambda: leftovers(tmp_path) == [], "all have ended")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for those of sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.netns
@pytest.mark.envoy
@pytest.mark.parametrize("file", ["tests/plan/dataplane/test_ways.py", "tests/node/test_limit.py"])
def test_a_killed_pytest_leaves_no_envoy_and_no_namespace(file: str, short: Path) -> None:
    """With Envoys that are children of the run, and with those that outlive their agents."""
    base = short / "base"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={base}", file]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        until(lambda: len(envoys(base)) == 2, "both Envoys run")
        assert namespaces(process.pid)
    finally:
        process.kill()
        process.wait()
    until(lambda: leftovers(base) == [], "the Envoys are dead")
    until(lambda: not namespaces(process.pid), "the namespaces are gone")


def envoys(base: Path) -> list[str]:
    return [line for line in leftovers(base) if f"{base}/" in line and "/envoy" in line]


def namespaces(pid: int) -> list[str]:
    return [name for name in os.listdir("/run/netns") if name.startswith(f"ambt{pid}-")]
