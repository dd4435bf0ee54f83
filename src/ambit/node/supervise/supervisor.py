"""Keeps the node's Envoy running: starts, adopts, hands over, restarts. The shell around `table`.

The agent may come and go. What runs is written to `<run>/envoy.json`, and a process found there is adopted
when its pid, start time and admin answer agree. Cancelling `run` leaves Envoy alone. One that a former pod of the node
started (on Kubernetes: `foreign`) is handed over at once, because it ends with that pod.
"""

import asyncio
import contextlib
import logging
import secrets
import signal
import time
from collections.abc import Awaitable, Callable

import msgspec

from ambit.agent.admin import Admin
from ambit.agent.binary import restart_version
from ambit.agent.supervise import records
from ambit.agent.supervise.generation import Generation, number_in, own_space, spawn
from ambit.agent.supervise.records import Record
from ambit.core.errors import AmbitError, BadInput, EnvironmentProblem, Unreachable
from ambit.node.supervise.spec import EnvoySpec
from ambit.node.supervise.stand_in import Place, release, take, terminate
from ambit.node.supervise.table import Action, Event, State, back_off, step

_log = logging.getLogger("ambit.envoy")
_STEADY_SECONDS = 30.0
"""A generation that served this long resets the back-off."""
_EMPTY_SECONDS = 11.0
"""An older generation that carried nothing for so long, which is twice Envoy's interval of statistics, is ended."""
_LOOK_SECONDS = 1.0
_SILENCES = 2
"""Questions in a row that Envoy's admin interface leaves unanswered when its main thread stands still."""
_TRY_AGAIN = 10.0
"""Seconds between attempts to take over from the Envoy of a former pod."""


class EnvoyStatus(msgspec.Struct, frozen=True):
    """What `ambit node status` shows of Envoy."""

    state: State
    current: Generation | None
    older: Generation | None
    older_connections: int | None
    crashes: int
    problem: str
    is_outdated: bool
    """The program or its bootstrap changed after the current generation was started, or more threads are wanted."""


class Supervisor:
    """One per node. `run` until cancelled; `restart` and `stop` from other tasks."""

    def __init__(self, spec: EnvoySpec, changed: Callable[[EnvoyStatus], None] | None = None) -> None:
        self.spec = spec
        self.admin = Admin(spec.admin)
        self._file = spec.run / "envoy.json"
        self.state = State.ABSENT
        self.version = ""
        """Envoy's version, once one was live."""
        self._changed = changed
        self._current: Generation | None = None
        self._older: Generation | None = None
        self._next: Generation | None = None
        self._older_connections: int | None = None
        self._taken: Place | None = None
        """Where somebody stands in for an older generation."""
        self._taking = asyncio.Lock()
        self._ending: Generation | None = None
        """An older generation that is told to end: the stand-in is in its place already."""
        self._events: asyncio.Queue[tuple[Event, Generation | None]] = asyncio.Queue(maxsize=64)
        self._serving = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._crashes = 0
        self._failures = 0
        self._live_since = 0.0
        self._problem = ""
        self._restart_done: asyncio.Future[None] | None = None

    @property
    def status(self) -> EnvoyStatus:
        return EnvoyStatus(
            self.state,
            self._current,
            self._older,
            self._older_connections,
            self._crashes,
            self._problem,
            self._current is not None and self._is_outdated(self._current),
        )

    async def serving(self) -> None:
        """Returns when a generation is live."""
        await self._serving.wait()

    async def run(self) -> None:
        """Adopts what runs or starts Envoy, and keeps it running until cancelled."""
        self.spec.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._begin()
            while not await self._handle(*await self._events.get()):
                pass

    async def restart(self, force: bool = False) -> None:
        """Hands over to a successor; returns when it serves.

        Raises BadInput when the older generation still has connections (unless `force`), AmbitError when
        the successor did not come up: then nothing has changed.
        """
        if self.state not in (State.SERVING, State.DRAINING):
            raise BadInput(f"Envoy is {self.state}, it cannot be restarted now")
        if self._restart_done is not None:
            raise BadInput("a restart is under way")
        held = await self._held() if self._older is not None else 0
        if held != 0 and not force:
            count = "1 connection" if held == 1 else f"{held or 'an unknown number of'} connections"
            raise BadInput(
                f"the older Envoy (pid {self._older.pid if self._older else 0}) still carries {count}",
                "wait for them, or --force to cut them",
            )
        self._restart_done = asyncio.get_running_loop().create_future()
        try:
            self._post(Event.RESTART)
            await self._restart_done
        finally:
            self._restart_done = None

    async def stop(self) -> None:
        """Ends every generation and makes `run` return."""
        self._post(Event.STOP)

    async def end(self) -> None:
        """Ends every generation after `run` was cancelled."""
        await self._act(Action.STOP_ALL)

    def _post(self, event: Event, generation: Generation | None = None) -> None:
        self._events.put_nowait((event, generation))

    async def _begin(self) -> None:
        record = records.read(self._file)
        self._older = record.older if record.older is not None and record.older.alive else None
        if record.current is not None and record.current.alive:
            self._current = record.current
            _log.info("adopted Envoy pid=%d epoch=%d", record.current.pid, record.current.epoch)
            await self._handle(Event.ADOPTED, None)
            self._watch(record.current, Event.CURRENT_ENDED)
            self._start(self._await_live(record.current))
            if record.current.foreign or self._is_outdated(record.current):
                self._start(self._hand_over(record.current))
        else:
            await self._handle(Event.START, None)
        if self._older is not None:
            self._watch(self._older, Event.OLDER_ENDED)
            self._start(self._end_when_empty(self._older))

    def _is_outdated(self, generation: Generation) -> bool:
        try:
            build = self.spec.build()
        except OSError:  # being installed just now
            return False
        return generation.build != build or generation.concurrency < self.spec.concurrency

    async def _handle(self, event: Event, generation: Generation | None) -> bool:
        """Takes one event; true when the supervisor is done."""
        event = self._meaning(event, generation)
        try:
            state, actions = step(self.state, event)
        except KeyError:
            return False
        if state != self.state:
            _log.info("Envoy %s -> %s (%s)", self.state, state, event)
        before, self.state = self.state, state
        for action in actions:
            await self._act(action)
        if event is Event.LIVE:
            self._live_since = time.monotonic()
            self._problem = ""
            if self._older is not None and self.state is State.SERVING:
                self.state = State.DRAINING
        if before is State.HANDING_OVER and self._restart_done is not None:
            self._finish_restart(event)
        if self.state in (State.SERVING, State.DRAINING, State.HANDING_OVER):
            self._serving.set()
        else:
            self._serving.clear()
        await self._keep_stand_in()
        records.write(self._file, Record(self._current, self._older))
        if self._changed is not None:
            self._changed(self.status)
        return event is Event.STOP

    async def _keep_stand_in(self) -> bool:
        """A successor whose older generation is gone, for whatever reason, finds somebody in its place. False when
        nobody could be put there: it is tried again."""
        async with self._taking:
            current = self._current
            if current is None or current.epoch == 0 or self._older not in (None, self._ending):
                self._taken = None
                return True
            place = self._place(current.base_id, current.epoch - 1)
            if place == self._taken:
                return True
            try:
                await take(place, current, self.spec.log, lives=self._older is not None)
            except (EnvironmentProblem, OSError) as problem:
                _log.error("nobody answers Envoy for its older generation: %s", problem)
                self._start(self._keep_stand_in_later())
                return False
            self._taken = place
            if self._older is None:
                self._start(self._released(place))
            return True

    async def _keep_stand_in_later(self) -> None:
        await asyncio.sleep(_LOOK_SECONDS)
        await self._keep_stand_in()

    async def _released(self, place: Place) -> None:
        """Its successor may wait for an answer of the older generation that died: then it answers nobody else."""
        for _ in range(_SILENCES):
            with contextlib.suppress(Unreachable):
                await self.admin.server_info()
                return
        if place == self._taken:
            _log.warning(
                "Envoy waits for an answer of the older generation, which is gone: answered in its place"
            )
            release(place)

    def _place(self, base_id: int, epoch: int) -> Place:
        return Place(self.spec.run, base_id, epoch)

    def _meaning(self, event: Event, generation: Generation | None) -> Event:
        """A process that ended means different things by the role it has now; one that was never started has none."""
        if generation is None or event not in (Event.CURRENT_ENDED, Event.OLDER_ENDED, Event.NEXT_ENDED):
            return event
        if generation == self._next:
            return Event.NEXT_ENDED
        return Event.CURRENT_ENDED if generation == self._current else Event.OLDER_ENDED

    def _finish_restart(self, event: Event) -> None:
        if self._restart_done is None or self._restart_done.done():
            return
        if event is Event.LIVE:
            self._restart_done.set_result(None)
        elif event is not Event.OLDER_ENDED:
            self._restart_done.set_exception(
                AmbitError(f"the new Envoy did not take over: {event}", f"see {self.spec.log}")
            )

    async def _act(self, action: Action) -> None:
        match action:
            case Action.SPAWN_FIRST:
                await self._spawn_first()
            case Action.SPAWN_NEXT:
                await self._spawn_next()
            case Action.PROMOTE:
                self._promote()
            case Action.FORGET_OLDER:
                self._older = None
                self._older_connections = None
            case Action.DISCARD_CURRENT:
                self._signal(self._current, signal.SIGKILL)
                self._current = None
            case Action.DISCARD_NEXT:
                self._signal(self._next, signal.SIGKILL)
                self._next = None
            case Action.ORPHAN_OLDER:
                if self._older is not None:
                    self._start(self._end_later(self._older))
            case Action.BACK_OFF:
                self._schedule_retry()
            case Action.STOP_ALL:
                for generation in (self._next, self._current, self._older):
                    self._signal(generation, signal.SIGTERM)
                await self._ended_or_killed()
                self._next = self._current = self._older = None

    def _promote(self) -> None:
        self._older, self._current, self._next = self._current, self._next, None
        self._older_connections = None
        if self._older is not None:
            self._start(self._end_when_empty(self._older))

    async def _spawn_first(self) -> None:
        base_id = secrets.randbits(26)
        records.sweep(self.spec.run, keep=self._older)
        self._current = await self._spawn(0, base_id, self.spec.concurrency)
        if self._current is None:
            self._post(Event.CURRENT_ENDED, None)
            return
        self._watch(self._current, Event.CURRENT_ENDED)
        self._start(self._await_live(self._current))

    async def _spawn_next(self) -> None:
        current = self._current
        assert current is not None
        # What waits in the sockets of workers that the successor does not have would be refused (tried).
        concurrency = max(current.concurrency, self.spec.concurrency)
        if concurrency > self.spec.concurrency:
            _log.info(
                "Envoy keeps %d worker threads, not %d, until it is started anew",
                concurrency,
                self.spec.concurrency,
            )
        self._next = await self._spawn(current.epoch + 1, current.base_id, concurrency)
        if self._next is None:
            self._post(Event.NEXT_ENDED, None)
            return
        self._watch(self._next, Event.NEXT_ENDED)
        self._start(self._await_live(self._next))

    async def _spawn(self, epoch: int, base_id: int, concurrency: int) -> Generation | None:
        argv = self.spec.argv(epoch, base_id, concurrency)
        try:
            build = self.spec.build()
            pid, began = await spawn(argv, self.spec.log)
        except (EnvironmentProblem, OSError) as failure:
            problem = failure if isinstance(failure, AmbitError) else EnvironmentProblem(str(failure))
            self._problem = problem.message
            _log.error("%s", problem.message)
            return None
        return Generation(pid, began, epoch, base_id, concurrency, build, own_space(), *self._seen(pid))

    def _seen(self, pid: int) -> tuple[str, int]:
        """Where the next pod of this node will see the process."""
        if self.spec.host_proc is None:
            return "", 0
        try:
            return str(self.spec.host_proc), number_in(str(self.spec.host_proc), pid)
        except (OSError, ValueError, StopIteration) as problem:
            _log.error(
                "Envoy cannot be handed to another pod: it is not seen in %s: %s",
                self.spec.host_proc,
                problem,
            )
            return "", 0

    def _schedule_retry(self) -> None:
        served = time.monotonic() - self._live_since if self._live_since else 0.0
        self._failures = 1 if served > _STEADY_SECONDS else self._failures + 1
        self._crashes += 1
        self._problem = f"Envoy ended unexpectedly ({self._crashes} times); see {self.spec.log}"
        _log.error("%s", self._problem)
        delay = back_off(self._failures)
        asyncio.get_running_loop().call_later(delay, self._post, Event.RETRY)

    async def _await_live(self, generation: Generation) -> None:
        """Posts LIVE when this generation, and not another epoch, says so on the admin socket."""
        deadline = time.monotonic() + self.spec.live_timeout
        while time.monotonic() < deadline:
            if generation not in (self._current, self._next):
                return
            with contextlib.suppress(Unreachable):
                info = await self.admin.server_info()
                if info.epoch == generation.epoch and info.state == "LIVE":
                    self.version = info.release
                    self._post(Event.LIVE)
                    return
            await asyncio.sleep(0.02)
        self._post(Event.TIMED_OUT)

    async def _hand_over(self, adopted: Generation) -> None:
        """The adopted Envoy is of another release, has another bootstrap, or ends with a former pod of the node: a
        successor takes over."""
        await self._serving.wait()
        while adopted == self._current:
            if adopted.foreign and not await self._can_succeed():
                _log.warning(
                    "the Envoy of the node's former pod is too different to be taken over: it is ended"
                )
                self._signal(adopted, signal.SIGTERM)
                return
            while self._older is not None:  # noqa: ASYNC110 - at most two generations
                await asyncio.sleep(_LOOK_SECONDS)
            _log.info("the running Envoy is not the one wanted: handing over")
            try:
                await self.restart()
            except AmbitError as problem:
                self._problem = problem.message
                _log.error("%s", problem.message)
                if not adopted.foreign:
                    return
                await asyncio.sleep(_TRY_AGAIN)

    async def _can_succeed(self) -> bool:
        """Whether our Envoy speaks the hot-restart protocol of the running one; in doubt it is tried."""
        try:
            running = (await self.admin.get("/hot_restart_version")).decode().strip()
            ours = await restart_version(self.spec.binary)
        except (Unreachable, EnvironmentProblem) as problem:
            _log.warning("%s", problem.message)
            return True
        return running == ours

    async def _end_when_empty(self, older: Generation) -> None:
        """An older generation that carries nothing any more need not wait for its time to be over. Its successor asks
        the stand-in from then on, and what it asked before is answered, before it is told to end."""
        await self._empty(older)
        while older == self._older:
            self._ending = older
            is_answered = await self._keep_stand_in()
            await asyncio.sleep(_LOOK_SECONDS)
            if is_answered:
                with contextlib.suppress(OSError):
                    terminate(self._place(older.base_id, older.epoch))

    async def _empty(self, older: Generation) -> None:
        """Returns when it has carried nothing for some time, or is gone."""
        empty_since: float | None = None
        while older == self._older:
            if await self._held() != 0:
                empty_since = None
            elif empty_since is None:
                empty_since = time.monotonic()
            elif time.monotonic() - empty_since > _EMPTY_SECONDS:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _signal(self, generation: Generation | None, number: signal.Signals) -> None:
        """A signal, or what reaches an Envoy of another pod."""
        if generation is not None and generation.foreign:
            with contextlib.suppress(OSError):
                terminate(self._place(generation.base_id, generation.epoch))
        elif generation is not None:
            generation.signal(number)

    def _watch(self, generation: Generation, event: Event) -> None:
        async def wait() -> None:
            await generation.ended()
            self._post(event, generation)

        self._start(wait())

    def _start(self, work: Awaitable[None]) -> None:
        assert self._tasks is not None
        self._tasks.create_task(_run(work))

    async def _end_later(self, generation: Generation) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.spec.max_drain):
                await generation.ended()
        self._signal(generation, signal.SIGTERM)

    async def _ended_or_killed(self) -> None:
        for generation in (self._next, self._current, self._older):
            if generation is None:
                continue
            try:
                async with asyncio.timeout(5):
                    await generation.ended()
            except TimeoutError:
                generation.signal(signal.SIGKILL)
        records.sweep(self.spec.run, keep=None)

    async def _held(self) -> int | None:
        """Connections the older generation still carries; None when that cannot be learnt."""
        try:
            self._older_connections = await self.admin.stat("server.parent_connections")
        except Unreachable:
            self._older_connections = None
        return self._older_connections

    @property
    def inherited(self) -> bool:
        """Whether what serves is still the Envoy of a former pod of this node."""
        return self._current is not None and self._current.foreign

    async def refresh(self) -> EnvoyStatus:
        """The status with the older generation's connections counted now."""
        if self._older is not None:
            await self._held()
        return self.status


async def _run(work: Awaitable[None]) -> None:
    await work
