"""The node's subscription to the workload API: everything, stored before it is used, acknowledged when applied.

Rules:
1. A response is taken in whole or not at all, then given to `applied`; its result decides acknowledgement.
2. What the disk does not take is applied from memory and rejected with the reason. Once it is on disk the stream is
   opened anew: what was rejected would only be sent again when it changes, but the versions of a first request count as
   acknowledged.
3. What cannot be taken into memory either (locked file) is rejected, and the stream is opened anew, with back-off.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from ambit.agent.channel import ControlPlane
from ambit.agent.control_stream import Answer, ControlStream
from ambit.core.errors import AmbitError, first_failure
from ambit.node.state.database import StateLost, StateNotWritten
from ambit.node.state.mesh import MeshState, Stored
from ambit.xds.client_session import ClientSession, Update
from ambit.xds.frames import Node
from ambit.xds.messages import TYPES

_log = logging.getLogger("ambit.upstream")
_MOST_SHOWN, _SHOWN = 20, 300
"""Problems in one rejection, and characters of a name or reason: nobody fills our log with words of his own."""
_FLUSH = 1.0
"""Seconds between attempts to write what is in memory only."""
_CHUNK = 500
"""Resources stored between two turns of the event loop."""

Applied = Callable[[Stored], Awaitable[str | None]]
"""Called with what changed; returns when Envoy has what follows from it, with the text of a rejection or
None."""


class Subscription:
    """Runs until cancelled. `complete` is set when the node knows enough to decide (design 6)."""

    def __init__(self, control: ControlPlane, node: Node, state: MeshState, applied: Applied) -> None:
        self._state = state
        self._applied = applied
        self.stream = ControlStream(
            control, ClientSession(TYPES, node, state.versions), self._take, _log, self._failed
        )
        self.complete = asyncio.Event()
        if state.complete:
            self.complete.set()
        self.rejections = 0
        self.completed: Callable[[], None] = lambda: None
        """Told whenever `complete` turns true."""
        self._refused: dict[str, set[str]] = {}

    def begin_anew(self) -> None:
        """What was held is lost: the stream is opened again, and nothing counts as complete until then."""
        self.complete.clear()
        self._refused.clear()
        self.stream.open_anew()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.stream.run())
                tasks.create_task(self._flush())
        except BaseExceptionGroup as several:
            raise first_failure(several) from several

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH)
            if not self._state.unstored:
                continue
            try:
                if not self._state.flush():
                    continue
                _log.info("the node's state is on disk again")
            except AmbitError as problem:
                _log.error("%s; the control plane sends it again", problem.message)
                self._failed(problem)
            self.stream.open_anew()

    def _failed(self, problem: AmbitError) -> None:
        if isinstance(problem, StateLost):
            self._state.reopen()

    async def _take(self, update: Update) -> Callable[[], Awaitable[Answer]]:
        stored, unwritten = await self._store(update)
        return partial(self._settle, update.type_url, stored, unwritten, self._state.unstored)

    async def _store(self, update: Update) -> tuple[Stored, StateNotWritten | None]:
        """What was stored; of an update that could not be written to its end, the part before."""
        unwritten: StateNotWritten | None = None
        changed: list[str] = []
        refused: dict[str, str] = {}
        touched: set[str] = set()
        for start in range(0, max(len(update.resources), 1), _CHUNK):
            last = start + _CHUNK >= len(update.resources)
            try:
                stored = self._state.apply(
                    update.type_url,
                    update.resources[start : start + _CHUNK],
                    update.removed if last else (),
                )
            except StateNotWritten as problem:
                unwritten = problem
                break
            changed += stored.changed
            refused |= stored.refused
            touched |= stored.touched
            if not last:
                await asyncio.sleep(0)
        if unwritten is None:
            self._note_complete(update, refused)
        return Stored(tuple(changed), refused, frozenset(touched)), unwritten

    def _note_complete(self, update: Update, refused: Mapping[str, str]) -> None:
        """A type is complete when its first answer came and nothing in it, or since, is refused."""
        if self.complete.is_set():
            return
        outstanding = set() if update.first else self._refused.get(update.type_url)
        if outstanding is None:
            return
        sent = {resource.name for resource in update.resources}
        outstanding = (outstanding - sent - set(update.removed)) | refused.keys()
        self._refused[update.type_url] = outstanding
        if not outstanding:
            self._state.mark_complete(update.type_url)
            if self._state.complete:
                self.complete.set()
                self.completed()

    async def _settle(
        self, type_url: str, stored: Stored, unwritten: StateNotWritten | None, unstored: str
    ) -> Answer:
        try:
            text = await self._applied(stored) if stored.changed else None
        except StateLost:
            raise
        except (AmbitError, OSError) as problem:
            text = str(problem)
        problems = [
            f"{name[:_SHOWN]}: {reason[:_SHOWN]}"
            for name, reason in itertools.islice(stored.refused.items(), _MOST_SHOWN)
        ]
        if len(stored.refused) > _MOST_SHOWN:
            problems.append(f"and {len(stored.refused) - _MOST_SHOWN} more")
        if text:
            problems.append(text)
        if unwritten is not None:
            problems.append(unwritten.message)
        if unstored:
            problems.append(
                f"in memory only: {unstored}" if problems else f"in force from memory only: {unstored}"
            )
        if problems:
            self.rejections += 1
            _log.error("rejected a change of %s: %s", type_url.rpartition(".")[2], "; ".join(problems))
        return Answer("; ".join(problems), unwritten)
