"""The stream of configuration from the control plane, opened anew whenever it ends; what it brings is for a `Taker`.

Rules:
1. Updates are taken one after the other, in their order. The stream is read on while they are being settled: answers
   may come later, never earlier, and one update may be what another waits for.
2. Nothing is forgotten when the stream ends: the next one begins with the versions that the session tells.
3. Between two streams there is a pause, longer each time until a stream has brought something.
4. What a message needs, which may be the whole mesh, does not stay while the next one is waited for.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import grpc

from ambit.agent.channel import ControlPlane, describe
from ambit.core.errors import AmbitError, first_failure
from ambit.daemon.memory import give_back
from ambit.xds.client_session import ClientSession, Update
from ambit.xds.frames import Request, Response
from ambit.xds.wire import METHOD, decode_response, encode_request

# A pod can be ready as soon as its own node's agent is connected again; agents that wait longer do not know it yet.
_FIRST_DELAY, _LAST_DELAY = 0.02, 2.0
_REJECTED = 0.5
"""Seconds that a rejection gets to reach the control plane before its stream ends."""
_LARGE, _GIVE_BACK = 1_000, 0.5
"""After a message with so many resources, and so many seconds, memory is given back."""


class Answer(NamedTuple):
    """To one update: accepted, or rejected with what was the `problem`. `ends` ends the stream, which is opened anew
    and begins with all that is not held."""

    problem: str = ""
    ends: AmbitError | None = None


Taker = Callable[[Update], Awaitable[Callable[[], Awaitable[Answer]]]]
"""Takes an update in, and returns what settles it, which is called once and runs beside later updates. Either may raise
AmbitError, which ends the stream."""


def _nothing(_problem: AmbitError) -> None:
    pass


class ControlStream:
    """Runs until cancelled. `messages` and `message_bytes` count responses by type URL, `terminations` the ends of
    streams by ztunnel's reasons."""

    def __init__(
        self,
        control: ControlPlane,
        session: ClientSession,
        take: Taker,
        log: logging.Logger,
        failed: Callable[[AmbitError], None] = _nothing,
    ) -> None:
        """`failed` is told why a stream ended, when that was an error of our own."""
        self._control = control
        self._session = session
        self._take = take
        self._log = log
        self._ended_by = failed
        self.connected = False
        self.on_connected: Callable[[], None] = lambda: None
        """Called with the first message of each stream."""
        self.problem = ""
        self.messages: Counter[str] = Counter()
        self.message_bytes: Counter[str] = Counter()
        self.terminations: Counter[str] = Counter()
        self._reading: asyncio.Task[None] | None = None

    def open_anew(self) -> None:
        """Ends the stream that is there, if any."""
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
                if _cancelled():
                    raise
                self.terminations["Reconnect"] += 1
            except grpc.aio.AioRpcError as problem:
                self._failed(describe(problem))
                if self.connected:
                    delay = _FIRST_DELAY
            except AmbitError as problem:
                self._failed(problem.message)
                self._ended_by(problem)
            except ValueError as problem:
                self._failed(f"the control plane broke the protocol: {problem}")
            finally:
                self.connected = False
                self._session.disconnect()
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            delay = min(_LAST_DELAY, delay * 2)

    def _failed(self, text: str) -> None:
        self.terminations["Error" if self.connected else "ConnectionError"] += 1
        if text != self.problem:
            self._log.warning("control plane %s: %s", self._control.address, text)
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
                # A stream that has ended already leaves whoever sends on it waiting.
                requests.put_nowait(None)

    async def _read(self, stream: grpc.aio.StreamStreamCall, requests: asyncio.Queue[Request | None]) -> None:
        settling: set[asyncio.Task[None]] = set()
        try:
            async with asyncio.TaskGroup() as group:
                while await self._next(stream, group, settling, requests):
                    pass
                for task in settling:
                    task.cancel()
        except BaseExceptionGroup as several:
            raise first_failure(several) from several

    async def _next(
        self,
        stream: grpc.aio.StreamStreamCall,
        group: asyncio.TaskGroup,
        settling: set[asyncio.Task[None]],
        requests: asyncio.Queue[Request | None],
    ) -> bool:
        """One message; false at the end. A function of its own, so that nothing of the message outlives it here."""
        data = await stream.read()
        if data is grpc.aio.EOF:
            return False
        update = self._session.receive(self._decoded(data))
        if not self.connected:
            self._log.info("connected to the control plane %s", self._control.address)
            self.connected, self.problem = True, ""
            self.on_connected()
        settle = await self._take(update)
        task = group.create_task(self._answer(update, settle, requests))
        settling.add(task)
        task.add_done_callback(settling.discard)
        if len(update.resources) >= _LARGE:
            task.add_done_callback(_give_back_soon)
        return True

    def _decoded(self, data: bytes) -> Response:
        """Raises ValueError. (From grpc's own deserializer that would come as a message that is None.)"""
        response = decode_response(data)
        self.messages[response.type_url] += 1
        self.message_bytes[response.type_url] += len(data)
        return response

    async def _answer(
        self, update: Update, settle: Callable[[], Awaitable[Answer]], requests: asyncio.Queue[Request | None]
    ) -> None:
        answer = await settle()
        if answer.problem:
            _put(requests, self._session.reject(update, answer.problem))
        else:
            _put(requests, self._session.accept(update))
        if answer.ends is not None:
            await asyncio.sleep(_REJECTED)
            raise answer.ends


def _cancelled() -> bool:
    """Whether the task that runs this is to end, and not only its stream."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _give_back_soon(done: asyncio.Task[None]) -> None:
    """When nobody has the task, and with it the message, any more."""
    done.get_loop().call_later(_GIVE_BACK, give_back)


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
