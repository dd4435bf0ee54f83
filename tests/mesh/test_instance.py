"""Instances that are killed, interrupted or damaged: nothing half-alive stays, and the next `up` works."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ambit.local.instance.end import supervisors
from ambit.local.instance.processes import instance_processes
from ambit.local.instance.record import ProcessId, read_record
from ambit.testing.laptop import LaptopMesh
from ambit.testing.leftovers import leftovers, pid_namespace

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.laptop_only("about `ambit up` and `ambit down`"),
]


@pytest.fixture
def cold(kubectl_program: str | None) -> Iterator[LaptopMesh]:
    """A name and a state directory; nothing runs in it yet. Whatever the test leaves must end with `down`."""
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        mesh = LaptopMesh(f"t{uuid.uuid4().hex[:8]}", Path(root), kubectl_program)
        try:
            yield mesh
        finally:
            mesh.ambit("down")
        assert leftovers(Path(root)) == []
        assert os.listdir(root) == []


def up(mesh: LaptopMesh) -> None:
    mesh.ambit("up", "--nodes", "1", "--timeout=110")
    assert mesh.dump("local", "status")


def supervisor(mesh: LaptopMesh) -> ProcessId:
    record = read_record(mesh.state)
    assert record is not None
    return record.supervisor


def kill_supervisor(mesh: LaptopMesh) -> None:
    """SIGKILL PID 1 of the instance; the kernel ends the rest before PID 1 is gone."""
    record = read_record(mesh.state)
    assert record is not None
    assert len(instance_processes(record)) > 5
    namespace = pid_namespace(record)
    os.kill(record.supervisor.pid, signal.SIGKILL)
    mesh.wait("the supervisor is gone", lambda: not record.supervisor.is_alive())
    assert leftovers(mesh.state.root.parent, namespace) == []


def test_supervisor_killed(cold: LaptopMesh) -> None:
    """Everything ends with it, and the next `up` clears what it left on the disk."""
    up(cold)
    kill_supervisor(cold)
    refused = cold.ambit("local", "status", check=False)
    assert refused.returncode == 1
    assert "type `ambit up" in refused.stderr
    up(cold)


def _garbage(mesh: LaptopMesh) -> None:
    mesh.state.instance.write_bytes(b"\x00garbage")


def _half_deleted(mesh: LaptopMesh) -> None:
    mesh.state.instance.unlink()
    mesh.state.database.unlink()
    (mesh.state.root / "nodes").rename(mesh.state.root / "elsewhere")


def _truncated(mesh: LaptopMesh) -> None:
    for file in mesh.state.root.rglob("*.sqlite"):
        os.truncate(file, file.stat().st_size // 2)


def _rebooted(mesh: LaptopMesh) -> None:
    """Another boot, in which the supervisor's number belongs to somebody else: to this very process."""
    record = json.loads(mesh.state.instance.read_bytes())
    ours = ProcessId.of(os.getpid())
    record.update(boot=str(uuid.uuid4()), supervisor={"pid": ours.pid, "started": ours.started})
    mesh.state.instance.write_text(json.dumps(record))


def _closed_directory(mesh: LaptopMesh) -> None:
    closed = mesh.state.root / "closed" / "deeper"
    closed.mkdir(parents=True)
    (closed / "file").write_text("")
    closed.chmod(0)
    closed.parent.chmod(0)


@pytest.mark.parametrize(
    "damage",
    [_garbage, _half_deleted, _truncated, _rebooted, _closed_directory],
    ids=lambda f: f.__name__[1:],
)
def test_damaged_state_of_a_dead_instance(cold: LaptopMesh, damage: Callable[[LaptopMesh], None]) -> None:
    """Every damage to what a dead instance left: `up` replaces it."""
    _fake_dead(cold)
    damage(cold)
    lock = cold.state.root.parent / f".{cold.name}.lock"
    lock.write_text("stale")
    up(cold)


def _fake_dead(mesh: LaptopMesh) -> None:
    """The files a dead instance leaves, without the seconds it takes to make one."""
    for directory in ("logs", "pki", "host", "nodes/node1"):
        (mesh.state.root / directory).mkdir(parents=True)
    record = {
        "name": mesh.name,
        "version": "0",
        "supervisor": {"pid": 1, "started": 0},
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "api_port": 1,
        "nodes": 1,
        "rootless": os.geteuid() != 0,
    }
    mesh.state.instance.write_text(json.dumps(record))
    for name in ("cluster.sqlite", "nodes/node1/mesh.sqlite"):
        (mesh.state.root / name).write_bytes(b"SQLite format 3\0" + bytes(4096))


def test_a_running_instance_without_its_record(cold: LaptopMesh) -> None:
    """Its record is damaged, then its whole directory is removed: it is found and ended all the same."""
    up(cold)
    first = supervisor(cold)
    _garbage(cold)
    up(cold)
    assert not first.is_alive()
    second = supervisor(cold)
    for path in (cold.state.instance, cold.state.cluster_config, cold.state.kubeconfig):
        path.unlink()
    cold.ambit("down")
    assert not second.is_alive()


def start(mesh: LaptopMesh, *words: str) -> subprocess.Popen[str]:
    # A test run in the background of a shell script ignores SIGINT, and so would its children. (No preexec_fn: it
    # forks this process, and gRPC's threads abort such a fork now and then.)
    command = ["env", "--default-signal=INT", sys.executable, "-m", "ambit", *words, "--name", mesh.name]
    return subprocess.Popen(
        command,
        env=mesh.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_at_once(cold: LaptopMesh) -> None:
    """One of them starts the instance, the other says that it runs."""
    both = [start(cold, "up", "--nodes", "1", "--timeout=100") for _ in range(2)]
    ended = sorted((process.wait(110), process.communicate()[0]) for process in both)
    assert [code for code, _ in ended] == [0, 2], ended
    assert "is already running" in ended[1][1]
    assert len(supervisors(cold.state)) == 1


@pytest.mark.parametrize("moment", ["state", "record", "kubeconfig"])
def test_up_killed_midway(cold: LaptopMesh, moment: str) -> None:
    """At its first trace, as soon as the instance is written down, and when its API server gets ready."""
    path = {
        "state": cold.state.root,
        "record": cold.state.instance,
        "kubeconfig": cold.state.kubeconfig,
    }[moment]
    with start(cold, "up", "--nodes", "1") as starting:
        until(path.exists)
        starting.kill()
    record = read_record(cold.state)
    if record is None:
        cold.wait("an instance nobody knows of ends by itself", lambda: supervisors(cold.state) == [])
        up(cold)
    else:
        refused = cold.ambit("up", "--nodes", "1", check=False)
        assert "already running" in refused.stderr
        cold.ambit("down")
        up(cold)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["state", "kubeconfig"])
def test_up_interrupted(cold: LaptopMesh, moment: str, number: signal.Signals) -> None:
    path = cold.state.root if moment == "state" else cold.state.kubeconfig
    with start(cold, "up", "--nodes", "1") as starting:
        until(path.exists)
        starting.send_signal(number)
        said, _ = starting.communicate(timeout=110)
    assert starting.returncode == 130, said
    assert "Traceback" not in said
    if moment == "kubeconfig":
        assert "undoing" in said
    assert not cold.state.root.exists()
    assert leftovers(cold.state.root.parent) == []


def test_down_while_it_starts(cold: LaptopMesh) -> None:
    with start(cold, "up", "--nodes", "1") as starting:
        until(cold.state.kubeconfig.exists)
        cold.ambit("down")
        said, _ = starting.communicate(timeout=110)
    assert starting.returncode == 1, said
    assert "the instance ended while it started" in said
    assert "Traceback" not in said


def test_demo_interrupted(cold: LaptopMesh) -> None:
    with start(cold, "demo", "--once") as starting:
        until(cold.state.kubeconfig.exists)
        starting.send_signal(signal.SIGINT)
        said, _ = starting.communicate(timeout=110)
    assert starting.returncode == 130, said
    assert "Traceback" not in said
    assert "Everything the demo started is gone again" in said
    assert not cold.state.root.exists()
    assert leftovers(cold.state.root.parent) == []


def until(condition: Callable[[], bool], patience: float = 110.0) -> None:
    """As soon as possible: the moment is what the test is about."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
