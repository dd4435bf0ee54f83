"""The node's subscription to the workload API: everything, stored before it is used, acknowledged when applied.

Rules:
1. A response is stored whole or not at all, then given to `applied`; its result decides acknowledgement.
2. The stream is read on while an earlier response is being applied: answers may come later, never earlier.
3. Nothing is forgotten when the stream ends; the next one begins with the versions held.
4. What cannot be written (full disk) is rejected, and the stream is opened anew, with back-off: what was rejected would
   only be sent again when it changes, but to who connects everything is sent that it does not have.
"""

import asyncio
import contextlib
import itertools
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import grpc

from ambit.agent.channel import ControlPlane, describe
from ambit.core.errors import AmbitError, first_failure
from ambit.daemon.memory import give_back
from ambit.node.state.database import StateLost, StateNotWritten
from ambit.node.state.mesh import MeshState, Stored
from ambit.xds.client_session import ClientSession, Update
from ambit.xds.frames import Node, Request, Response
from ambit.xds.messages import TYPES
from ambit.xds.wire import METHOD, decode_response, encode_request

_log = logging.getLogger("ambit.upstream")
_FIRST_DELAY = 0.02
_LAST_DELAY = 15.0
_REJECTED = 0.5
"""Seconds that a rejection gets to reach the control plane before the stream ends."""
_MOST_SHOWN, _SHOWN = 20, 300
"""Problems in one rejection, and characters of a name or reason: nobody fills our log with words of his own."""
_CHUNK = 500
"""Resources stored between two turns of the event loop."""
_LARGE, _GIVE_BACK = 1_000, 0.5
"""After a message with so many resources, and so many seconds, memory is given back."""

Applied = Callable[[Stored], Awaitable[str | None]]
"""Called with what changed; returns when Envoy has what follows from it, with the text of a rejection or
None."""


class Subscription:
    """Runs until cancelled. `complete` is set when the node knows enough to decide (design 6)."""

    def __init__(self, control: ControlPlane, node: Node, state: MeshState, applied: Applied) -> None:
        self._control = control
        self._state = state
        self._applied = applied
        self._session = ClientSession(TYPES, node, state.versions)
        self.complete = asyncio.Event()
        if state.complete:
            self.complete.set()
        self.connected = False
        self.problem = ""
        self.rejections = 0
        self.messages: Counter[str] = Counter()
        self.message_bytes: Counter[str] = Counter()
        """Responses so far, by type URL."""
        self.terminations: Counter[str] = Counter()
        """Ends of streams so far, by ztunnel's reasons."""
        self.completed: Callable[[], None] = lambda: None
        """Told whenever `complete` turns true."""
        self._refused: dict[str, set[str]] = {}
        self._reading: asyncio.Task[None] | None = None

    def begin_anew(self) -> None:
        """What was held is lost: the stream is opened again, and nothing counts as complete until then."""
        self.complete.clear()
        self._refused.clear()
        if self._reading is not None:
            self._reading.cancel()

    async def run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                self._reading = asyncio.ensure_future(self._stream())
                await self._reading
                delay = _FIRST_DELAY
                self.terminations["Complete"] += 1
            except asyncio.CancelledError:
                if self._cancelled():
                    raise
                self.terminations["Reconnect"] += 1
            except grpc.aio.AioRpcError as problem:
                self._failed(describe(problem))
                if self.connected:
                    delay = _FIRST_DELAY
            except StateLost as problem:
                self._failed(problem.message)
                self._state.reopen()
            except AmbitError as problem:
                self._failed(problem.message)
            except ValueError as problem:
                self._failed(f"the control plane broke the protocol: {problem}")
            finally:
                self.connected = False
                self._session.disconnect()
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            delay = min(_LAST_DELAY, delay * 2)

    @staticmethod
    def _cancelled() -> bool:
        """Whether the task that runs this is to end, and not only its stream."""
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def _failed(self, text: str) -> None:
        self.terminations["Error" if self.connected else "ConnectionError"] += 1
        if text != self.problem:
            _log.warning("control plane %s: %s", self._control.address, text)
        self.problem = text

    async def _stream(self) -> None:
        async with self._control.channel() as channel:
            call = channel.stream_stream(METHOD, request_serializer=_encoded)
            requests: asyncio.Queue[Request | None] = asyncio.Queue()
            _put(requests, self._session.connect())
            stream = call(_sending(requests), metadata=tuple(self._control.metadata().items()))
            try:
                await self._read(stream, requests)
            finally:
                stream.cancel()
                requests.put_nowait(
                    None
                )  # a stream that has ended already leaves whoever sends on it waiting

    def _decoded(self, data: bytes) -> Response:
        """Raises ValueError. (From grpc's own deserializer that would come as a message that is None.)"""
        response = decode_response(data)
        self.messages[response.type_url] += 1
        self.message_bytes[response.type_url] += len(data)
        return response

    async def _read(self, stream: grpc.aio.StreamStreamCall, requests: asyncio.Queue[Request | None]) -> None:
        applying: set[asyncio.Task[None]] = set()
        try:
            async with asyncio.TaskGroup() as group:
                while await self._take(stream, group, applying, requests):
                    pass
                for task in applying:
                    task.cancel()
        except BaseExceptionGroup as several:
            raise first_failure(several) from several

    async def _take(
        self,
        stream: grpc.aio.StreamStreamCall,
        group: asyncio.TaskGroup,
        applying: set[asyncio.Task[None]],
        requests: asyncio.Queue[Request | None],
    ) -> bool:
        """The next message; false at the end. A function of its own: what a message needs, which may be the whole mesh,
        does not stay while the next one is waited for."""
        data = await stream.read()
        if data is grpc.aio.EOF:
            return False
        response = self._decoded(data)
        if not self.connected:
            _log.info("connected to the control plane %s", self._control.address)
            self.connected, self.problem = True, ""
        update = self._session.receive(response)
        stored, unwritten = await self._store(update)
        if unwritten is not None:
            group.create_task(_come_again(unwritten))
        task = group.create_task(self._settle(update, stored, unwritten, requests))
        applying.add(task)
        task.add_done_callback(applying.discard)
        if len(update.resources) >= _LARGE:
            task.add_done_callback(_give_back_soon)
        return True

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
        self,
        update: Update,
        stored: Stored,
        unwritten: StateNotWritten | None,
        requests: asyncio.Queue[Request | None],
    ) -> None:
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
        if problems:
            self.rejections += 1
            _log.error("rejected a change of %s: %s", update.type_url.rpartition(".")[2], "; ".join(problems))
            _put(requests, self._session.reject(update, "; ".join(problems)))
        else:
            _put(requests, self._session.accept(update))


def _give_back_soon(done: asyncio.Task[None]) -> None:
    """When nobody has the task, and with it the message, any more."""
    done.get_loop().call_later(_GIVE_BACK, give_back)


async def _come_again(problem: StateNotWritten) -> None:
    """Ends the stream when its rejection has left."""
    await asyncio.sleep(_REJECTED)
    raise problem


def _put(queue: asyncio.Queue[Request | None], requests: list[Request]) -> None:
    for request in requests:
        queue.put_nowait(request)


async def _sending(requests: asyncio.Queue[Request | None]) -> AsyncIterator[list[Request]]:
    """Each request in a list of its own, from which `_encoded` takes it: gRPC keeps what it sent last until it sends
    the next, and the first request names everything that is held."""
    with contextlib.suppress(asyncio.CancelledError):
        while one := [request for request in (await requests.get(),) if request is not None]:
            yield one


def _encoded(one: list[Request]) -> bytes:
    return encode_request(one.pop())
