"""The supervisor with real Envoy: start, crash, hand-over, adoption."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from bench.ports import free_port

from ambit.agent.binary import envoy_binary
from ambit.agent.supervise import generation, records
from ambit.agent.supervise.generation import LOG_LIMIT, rotate
from ambit.core.errors import AmbitError, Unreachable
from ambit.node.supervise import supervisor as supervision
from ambit.node.supervise.spec import EnvoySpec
from ambit.node.supervise.supervisor import EnvoyStatus, Supervisor
from ambit.node.supervise.table import State, back_off

pytestmark = pytest.mark.envoy


def spec(tmp_path: Path, **changes: float | Path) -> EnvoySpec:
    bootstrap = tmp_path / "bootstrap.yaml"
    bootstrap.write_text(
        "node: {id: test, cluster: mesh}\n"
        f"admin: {{address: {{pipe: {{path: {tmp_path / 'run' / 'admin.sock'}}}}}}}\n"
    )
    return EnvoySpec(
        binary=envoy_binary(),
        bootstrap=bootstrap,
        run=tmp_path / "run",
        log=tmp_path / "envoy.log",
        drain_time=1,
        **changes,  # type: ignore[arg-type]
    )


class Watch:
    """Collects status changes; `until` waits for one."""

    def __init__(self) -> None:
        self.seen: list[EnvoyStatus] = []
        self._news = asyncio.Event()

    def __call__(self, status: EnvoyStatus) -> None:
        self.seen.append(status)
        self._news.set()

    async def until(self, wanted: Callable[[EnvoyStatus], bool], seconds: float = 60) -> EnvoyStatus:
        async with asyncio.timeout(seconds):
            while not (self.seen and wanted(self.seen[-1])):
                self._news.clear()
                await self._news.wait()
        return self.seen[-1]


@asynccontextmanager
async def running(envoy: EnvoySpec) -> AsyncIterator[tuple[Supervisor, Watch]]:
    watch = Watch()
    supervisor = Supervisor(envoy, watch)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(supervisor.run())
        try:
            yield supervisor, watch
        finally:
            await supervisor.stop()
            await task


async def answered(supervisor: Supervisor, times: int) -> None:
    """Returns when Envoy has had so many answers of its older generation: it counts its uptime after each."""
    seen: set[int | None] = set()
    async with asyncio.timeout(30 * times + 30):
        while len(seen) <= times:
            # While it waits for an answer itself, it gives none.
            with contextlib.suppress(Unreachable):
                seen.add(await supervisor.admin.stat("server.uptime"))
            await asyncio.sleep(0.05)


async def test_a_killed_envoy_is_back_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Any pause before its start would be too long for this test.
    monkeypatch.setattr(supervision, "back_off", lambda failures: 1000 * back_off(failures))
    async with running(spec(tmp_path)) as (_, watch):
        first = await watch.until(lambda status: status.state is State.SERVING)
        assert first.current is not None
        os.kill(first.current.pid, signal.SIGKILL)
        again = await watch.until(lambda status: status.state is State.SERVING and status.crashes == 1)
        assert again.current is not None
        assert again.current.pid != first.current.pid
    assert not again.current.alive


async def test_a_program_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    """Also by an agent that finds no Envoy at its own start."""
    binary = tmp_path / "envoy"
    async with running(msgspec.structs.replace(spec(tmp_path), binary=binary)) as (_, watch):
        await watch.until(lambda status: status.crashes > 1)
        binary.write_text("no program")
        missing = watch.seen[-1].crashes
        await watch.until(lambda status: status.crashes > missing + 1)
        binary.unlink()
        binary.symlink_to(envoy_binary())
        await watch.until(lambda status: status.state is State.SERVING)


async def test_envoy_outlives_a_launcher_that_takes_long_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy ends with whoever was its parent at its start."""
    slow = generation._LAUNCH.replace("os._exit(0)", "time.sleep(1), os._exit(0)")
    assert slow != generation._LAUNCH
    monkeypatch.setattr(generation, "_LAUNCH", slow)
    async with running(spec(tmp_path)) as (_, watch):
        status = await watch.until(lambda status: status.state is State.SERVING)
        assert status.crashes == 0


async def test_a_hand_over_keeps_serving_and_ends_the_older_generation(tmp_path: Path) -> None:
    async with running(spec(tmp_path, max_drain=2)) as (supervisor, watch):
        first = await watch.until(lambda status: status.state is State.SERVING)
        await supervisor.restart()
        assert supervisor.state is State.DRAINING
        assert supervisor.status.older == first.current
        assert supervisor.status.current is not None
        assert supervisor.status.current.epoch == 1
        after = await watch.until(lambda status: status.state is State.SERVING)
        assert after.older is None
        assert first.current is not None
        assert not first.current.alive


async def test_a_crash_while_draining_starts_a_fresh_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_EMPTY_SECONDS", 600.0)
    async with running(spec(tmp_path, max_drain=600)) as (supervisor, watch):
        await watch.until(lambda status: status.state is State.SERVING)
        await supervisor.restart()
        older = supervisor.status.older
        assert supervisor.status.current is not None
        os.kill(supervisor.status.current.pid, signal.SIGKILL)
        fresh = await watch.until(lambda status: status.crashes == 1 and status.state is State.DRAINING)
        assert fresh.current is not None
        assert fresh.current.epoch == 0
        assert older is not None
        assert older.alive


async def test_a_crash_of_the_older_generation_leaves_the_successor_alone(tmp_path: Path) -> None:
    async with running(spec(tmp_path, max_drain=60)) as (supervisor, watch):
        await watch.until(lambda status: status.state is State.SERVING)
        await supervisor.restart()
        older, current = supervisor.status.older, supervisor.status.current
        assert older is not None
        assert current is not None
        os.kill(older.pid, signal.SIGKILL)
        await watch.until(lambda status: status.state is State.SERVING)
        await answered(supervisor, 2)
        assert (await supervisor.admin.server_info()).epoch == 1
        assert supervisor.status.current == current
        assert supervisor.status.crashes == 0


async def test_a_restarted_agent_adopts_the_running_envoy(tmp_path: Path) -> None:
    envoy = spec(tmp_path)
    watch = Watch()
    agent = Supervisor(envoy, watch)
    task = asyncio.ensure_future(agent.run())
    before = await watch.until(lambda status: status.state is State.SERVING)
    task.cancel()
    await asyncio.wait([task])
    assert before.current is not None
    assert before.current.alive
    async with running(envoy) as (_, second):
        adopted = await second.until(lambda status: status.state is State.SERVING)
        assert adopted.current == before.current
    assert not before.current.alive


async def test_an_adopted_envoy_of_another_build_is_handed_over(tmp_path: Path) -> None:
    envoy = spec(tmp_path, max_drain=2)
    watch = Watch()
    task = asyncio.ensure_future(Supervisor(envoy, watch).run())
    before = await watch.until(lambda status: status.state is State.SERVING)
    task.cancel()
    await asyncio.wait([task])
    envoy.bootstrap.write_text(envoy.bootstrap.read_text() + "# another\n")
    async with running(envoy) as (_, second):
        draining = await second.until(lambda status: status.state is State.DRAINING)
        assert draining.older == before.current
        assert draining.current is not None
        assert draining.current.epoch == 1
        assert draining.current.build == envoy.build()


async def has_threads(status: EnvoyStatus, count: int) -> None:
    """Waits until the workers of the Envoy that serves are so many, by the names that they give themselves."""
    assert status.current is not None
    tasks = Path(f"/proc/{status.current.pid}/task")
    async with asyncio.timeout(60):
        while sum(name(each).startswith("wrk:worker_") for each in tasks.iterdir()) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def name(task: Path) -> str:
    """Empty when it has ended meanwhile."""
    with contextlib.suppress(OSError):
        return (task / "comm").read_text()
    return ""


@pytest.mark.feature("N62")
async def test_a_successor_has_as_many_threads_as_wanted_but_never_fewer(tmp_path: Path) -> None:
    few, many = spec(tmp_path, max_drain=2), spec(tmp_path, max_drain=2, concurrency=2)
    watch = Watch()
    task = asyncio.ensure_future(Supervisor(few, watch).run())
    before = await watch.until(lambda status: status.state is State.SERVING)
    await has_threads(before, 1)
    task.cancel()
    await asyncio.wait([task])
    second = Watch()
    task = asyncio.ensure_future(Supervisor(many, second).run())
    grown = await second.until(lambda status: status.state is State.DRAINING)
    assert grown.older == before.current
    await has_threads(grown, 2)
    await second.until(lambda status: status.state is State.SERVING)
    task.cancel()
    await asyncio.wait([task])
    async with running(few) as (supervisor, third):
        adopted = await third.until(lambda status: status.state is State.SERVING)
        assert adopted.current == grown.current
        await supervisor.restart()
        await has_threads(supervisor.status, 2)
        assert supervisor.status.current is not None
        supervisor.status.current.signal(signal.SIGKILL)
        live = (State.SERVING, State.DRAINING)
        anew = await third.until(lambda status: status.crashes == 1 and status.state in live)
        await has_threads(anew, 1)


def test_a_long_log_is_kept_aside(tmp_path: Path) -> None:
    log = tmp_path / "envoy.log"
    log.write_bytes(b"x")
    rotate(log)
    assert log.exists()
    os.truncate(log, LOG_LIMIT + 1)
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "envoy.log.1").exists()


async def test_a_bad_bootstrap_is_reported_and_retried(tmp_path: Path) -> None:
    envoy = spec(tmp_path)
    good = envoy.bootstrap.read_text()
    envoy.bootstrap.write_text("nonsense: true\n")
    async with running(envoy) as (supervisor, watch):
        failed = await watch.until(lambda status: status.crashes >= 2)
        assert str(envoy.log) in failed.problem
        with pytest.raises(AmbitError):
            await supervisor.restart()
        envoy.bootstrap.write_text(good)
        await watch.until(lambda status: status.state is State.SERVING)


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    envoy = spec(tmp_path)
    async with running(envoy) as (supervisor, watch):
        await watch.until(lambda status: status.state is State.SERVING)
        current = supervisor.status.current
        assert current is not None
        memory = Path(f"/dev/shm/envoy_shared_memory_{current.base_id * 10}")
        assert memory.exists()
    assert not memory.exists()
    assert not list(envoy.run.glob("restart_*"))


def listener(port: int) -> str:
    """A file of listeners, as Envoy follows it."""
    found = {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "late",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{}],
    }
    return json.dumps({"version_info": "1", "resources": [found]})


async def opened(port: int) -> None:
    """Returns when the port accepts."""
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@pytest.mark.parametrize("end", ["killed", "empty"])
async def test_a_successor_goes_on_when_its_older_generation_has_ended(tmp_path: Path, end: str) -> None:
    """It asks the older one for the socket of every new listener, and waits for the answer on its main thread."""
    envoy, listeners = spec(tmp_path, max_drain=600), tmp_path / "listeners.json"
    listeners.write_text('{"version_info": "0", "resources": []}')
    envoy.bootstrap.write_text(
        envoy.bootstrap.read_text()
        + f"dynamic_resources: {{lds_config: {{path_config_source: {{path: {listeners}}}}}}}\n"
    )
    port = free_port()
    async with running(envoy) as (supervisor, watch):
        first = await watch.until(lambda status: status.state is State.SERVING)
        await supervisor.restart()
        assert first.current is not None
        if end == "killed":
            os.kill(first.current.pid, signal.SIGKILL)
        after = await watch.until(lambda status: status.state is State.SERVING, seconds=60)
        assert after.older is None
        assert not first.current.alive
        following = tmp_path / "listeners.new"
        following.write_text(listener(port))
        following.replace(listeners)
        await opened(port)
        await answered(supervisor, 3)
        assert (await supervisor.admin.server_info()).epoch == 1
        assert supervisor.status.crashes == 0


async def test_a_successor_needs_no_agent(tmp_path: Path) -> None:
    """Its older generation has ended, and nobody of ours runs: it used to abort after ten seconds of asking."""
    envoy, watch = spec(tmp_path, max_drain=600), Watch()
    agent = Supervisor(envoy, watch)
    task = asyncio.ensure_future(agent.run())
    await watch.until(lambda status: status.state is State.SERVING)
    await agent.restart()
    assert agent.status.older is not None
    os.kill(agent.status.older.pid, signal.SIGKILL)
    await watch.until(lambda status: status.state is State.SERVING and status.older is None)
    task.cancel()
    await asyncio.wait([task])
    # Statistics are due every five seconds: the last of these questions is asked after more than ten.
    await answered(agent, 4)
    async with running(envoy) as (_, second):
        adopted = await second.until(lambda status: status.state is State.SERVING)
        assert adopted.current is not None
        assert adopted.current.epoch == 1
        assert adopted.crashes == 0
        assert second.seen[-1].older is None


FORMER_POD = """
import asyncio, pathlib, sys
from tests.node.supervise.test_supervisor import spec
from ambit.node.supervise.supervisor import Supervisor

async def main():
    envoy = spec(pathlib.Path(sys.argv[1]), host_proc=pathlib.Path(sys.argv[2]), max_drain=600)
    task = asyncio.ensure_future(Supervisor(envoy).run())
    await asyncio.to_thread(sys.stdin.read)
    task.cancel()
    await asyncio.wait([task])
    print("the agent has ended", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def host_proc(tmp_path: Path) -> Iterator[Path]:
    """/proc where both pods of a node see it."""
    place = tmp_path / "host-proc"
    place.mkdir()
    subprocess.run(["mount", "--bind", "/proc", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.netns
async def test_the_envoy_of_a_former_pod_is_succeeded_and_ended(tmp_path: Path, host_proc: Path) -> None:
    """It is in another process namespace: seen in the host's /proc, and out of reach of signals."""
    former = await asyncio.create_subprocess_exec(
        *("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"),
        *(sys.executable, "-c", FORMER_POD, tmp_path, host_proc),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert former.stdin is not None
    assert former.stdout is not None
    try:
        envoy = spec(tmp_path, host_proc=host_proc, max_drain=600)
        async with asyncio.timeout(60):
            while (before := records.read(envoy.run / "envoy.json").current) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            former.stdin.close()
            await former.stdout.readline()
        assert before.foreign
        assert before.alive
        async with running(envoy) as (supervisor, watch):
            draining = await watch.until(lambda status: status.state is State.DRAINING, seconds=60)
            assert draining.older == before
            assert not supervisor.inherited
            assert supervisor.status.current is not None
            assert supervisor.status.current.epoch == 1
            after = await watch.until(lambda status: status.state is State.SERVING, seconds=60)
            assert after.older is None
            assert not before.alive
            assert supervisor.status.crashes == 0
    finally:
        if former.returncode is None:
            former.kill()
        await former.wait()
