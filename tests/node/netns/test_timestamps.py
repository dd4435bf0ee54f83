"""The setting is the namespace's own, and can be written where a container's /proc/sys is read-only."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.node.netns import timestamps
from ambit.node.netns.enter import in_namespace
from tests.plan.dataplane.network import add_namespace

pytestmark = pytest.mark.netns
SETTING = Path("/proc/sys/net/ipv4/tcp_timestamps")
READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec"
CHANGE = "import sys; from ambit.node.netns import timestamps; sys.exit(not timestamps.without_offsets(sys.argv[1]))"


@pytest.fixture
def netns() -> Iterator[str]:
    path = Path("/run/netns") / f"ats{os.getpid()}"
    add_namespace(path.name)
    write(str(path), "1")
    yield str(path)
    subprocess.run(["ip", "netns", "del", path.name], check=True)


def write(netns: str, value: str) -> None:
    in_namespace(Path(netns), lambda: SETTING.write_text(value))


def value(netns: str) -> str:
    return in_namespace(Path(netns), SETTING.read_text).strip()


def test_there_and_back(netns: str) -> None:
    mine = SETTING.read_text()
    assert timestamps.without_offsets(netns)
    assert value(netns) == "2"
    assert SETTING.read_text() == mine
    assert timestamps.with_offsets(netns)
    assert value(netns) == "1"


def test_who_switched_timestamps_off_keeps_that(netns: str) -> None:
    write(netns, "0")
    assert timestamps.without_offsets(netns)
    assert value(netns) == "0"


def test_a_read_only_proc(netns: str) -> None:
    program = f"{READ_ONLY} {sys.executable} -c '{CHANGE}' {netns}"
    subprocess.run(["unshare", "--mount", "sh", "-c", program], check=True, timeout=240)
    assert value(netns) == "2"


def test_a_namespace_that_is_gone() -> None:
    assert not timestamps.without_offsets("/run/netns/nowhere")
