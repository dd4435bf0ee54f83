"""Node agents as far as a control plane can tell: a stream each, which asks for everything and acknowledges it at once.

Rules are a ztunnel's: both types are asked for at once; a stream that comes again says which versions it has; pauses
after a refused connection or an ended stream are doubled from 20 ms to 15 s, and 10 ms after a broken connection.
"""

import asyncio
import contextlib
import functools
import ssl
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from ambit.core.names import DEFAULT_CLUSTER_ID, ROOT_NAMESPACE
from ambit.xds import wire
from ambit.xds.frames import Node, Request, Response
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE
from bench.control.http2 import Call
from bench.control.objects import agent_name

LONG = 1024 * 1024
"""Bytes: longer messages are kept by the first agent only."""
PAUSE_FIRST, PAUSE_MOST, PAUSE_BROKEN = 0.02, 15.0, 0.01
PATIENCE = 30.0
LENGTH_DELIMITED = 2
TYPES = (ADDRESS_TYPE, AUTHORIZATION_TYPE)
_TYPE_FIELDS = {each: b"\x22" + bytes([len(each)]) + each.encode() for each in TYPES}


class Target(msgspec.Struct, frozen=True):
    """The server. `root` is PEM."""

    port: int
    name: str
    root: str


def fields(data: bytes, at: int = 0) -> Iterable[tuple[int, bytes]]:
    """Numbers and values of the length-delimited fields from `at` on; the messages at hand have no others."""
    while at < len(data):
        tag = data[at]
        if tag & 7 != LENGTH_DELIMITED:
            raise ValueError(f"field {tag >> 3} is no text")
        at += 1
        size = shift = 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        yield tag >> 3, data[at : at + size]
        at += size


def type_and_nonce(message: bytes) -> tuple[str, str]:
    """Of a response, without reading its resources: servers write both before them or after them."""
    for kind, mark in _TYPE_FIELDS.items():
        at = message.find(mark, 0, 256)
        if at < 0:
            at = message.rfind(mark)
        if at >= 0:
            for number, value in fields(message, at):
                if number == 5:
                    return kind, value.decode()
    raise ValueError("a response of no known type")


class Agent:
    """One node's stream. Times are of `time.monotonic`."""

    def __init__(self, number: int, token: str, target: Target, context: ssl.SSLContext) -> None:
        self.number = number
        self.first: dict[str, float] = {}
        """When the first answer of each type had arrived."""
        self.kept: list[tuple[float, bytes]] = []
        """Messages since `forget`, with their arrival."""
        self.bytes = self.messages = self.refused = 0
        self.held: dict[str, dict[str, str]] = {kind: {} for kind in TYPES}
        """Names and versions by type, of the first agent only."""
        self.versions: Mapping[str, Mapping[str, str]] = {}
        """What it says that it has when it connects."""
        self.on_news: Callable[[], None] = lambda: None
        self._target = target
        self._context = context
        self._call: Call | None = None
        self._pause = PAUSE_FIRST
        self._task: asyncio.Task[None] | None = None
        self._alive = False
        self._headers = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", wire.METHOD),
            (":authority", target.name),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("authorization", f"Bearer {token}"),
            ("clusterid", DEFAULT_CLUSTER_ID),
        ]

    @property
    def in_sync(self) -> bool:
        """Whether both types were answered since it last connected."""
        return len(self.first) == len(TYPES)

    def start(self) -> None:
        self._alive = True
        self._again(0.0)

    def forget(self) -> None:
        """Everything counted and kept so far."""
        if self.number == 0:
            for _, message in self.kept:
                self._hold(wire.decode_response(message))
        self.kept.clear()
        self.bytes = self.messages = self.refused = 0

    async def stop(self) -> None:
        self._alive = False
        if self._call is not None:
            self._call.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _again(self, pause: float) -> None:
        self.first = {}
        self.on_news()
        self._task = asyncio.create_task(self._connect(pause))

    async def _connect(self, pause: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            try:
                _, call = await loop.create_connection(
                    functools.partial(Call, self._headers, self._received, self._ended),
                    "127.0.0.1",
                    self._target.port,
                    ssl=self._context,
                    server_hostname=self._target.name,
                    local_addr=(f"127.0.1.{self.number % 250 + 1}", 0),  # of its own, as nodes have
                )
            except OSError:
                pause = self._longer()
                continue
            self._call = call
            for kind in TYPES:
                first = Request(
                    type_url=kind,
                    initial_versions=self.versions.get(kind, {}),
                    node=Node(self._identity(), metadata={"NODE_NAME": f"node-{self.number}"}),
                )
                call.send(wire.encode_request(first))
            return

    def _identity(self) -> str:
        name = f"{agent_name(self.number)}.{ROOT_NAMESPACE}"
        return f"ztunnel~10.200.0.{self.number & 255}~{name}~{ROOT_NAMESPACE}.svc.cluster.local"

    def _longer(self) -> float:
        self._pause, pause = min(2 * self._pause, PAUSE_MOST), self._pause
        return pause

    def _received(self, message: bytes) -> None:
        kind, nonce = type_and_nonce(message)
        if self._call is not None:
            self._call.send(wire.encode_request(Request(type_url=kind, nonce=nonce)))
        now = time.monotonic()
        self.bytes += len(message)
        self.messages += 1
        self.first.setdefault(kind, now)
        if len(message) < LONG or self.number == 0:
            self.kept.append((now, message))
        self.on_news()

    def _hold(self, response: Response) -> None:
        held = self.held[response.type_url]
        held.update((each.name, each.version) for each in response.resources)
        for name in response.removed:
            held.pop(name, None)

    def _ended(self, refused: bool) -> None:
        self._call = None
        if not self._alive:
            return
        self.refused += refused
        if refused:
            self._again(self._longer())
        else:
            self._pause = PAUSE_FIRST
            self._again(PAUSE_BROKEN)


class Agents:
    """All of them."""

    def __init__(self, target: Target, tokens: Mapping[int, str]) -> None:
        context = ssl.create_default_context(cadata=target.root)
        context.set_alpn_protocols(["h2"])
        self.all = [Agent(number, token, target, context) for number, token in tokens.items()]
        self._told = asyncio.Event()
        for each in self.all:
            each.on_news = self._told.set

    @property
    def sent(self) -> float:
        """Bytes that each got since `forget`."""
        return sum(each.bytes for each in self.all) / len(self.all)

    @property
    def messages(self) -> float:
        """Responses that each got since `forget`."""
        return sum(each.messages for each in self.all) / len(self.all)

    @property
    def refused(self) -> int:
        """Streams that the server ended since `forget`."""
        return sum(each.refused for each in self.all)

    def start(self) -> float:
        """All at once; returns when."""
        began = time.monotonic()
        for each in self.all:
            each.start()
        return began

    async def stop(self) -> None:
        for each in self.all:
            await each.stop()

    def forget(self) -> None:
        for each in self.all:
            each.forget()

    def keep_versions(self) -> None:
        """Each will say, when it connects again, that it has what the first one has, which is what all have."""
        first = self.all[0]
        first.forget()
        for each in self.all:
            each.versions = {ADDRESS_TYPE: first.held[ADDRESS_TYPE]}

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Until `condition`, looked at when something happens. Raises TimeoutError that says what was waited for."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s") from None

    async def lost(self) -> None:
        """Until all have noticed that the server is gone."""
        await self.until(lambda: not any(each.first for each in self.all), PATIENCE, "connections lost")

    async def synced(self, seconds: float) -> float:
        """When the last of them had everything."""
        await self.until(lambda: all(each.in_sync for each in self.all), seconds, "all streams in sync")
        return max(max(each.first.values()) for each in self.all)

    def arrivals(self, names: Iterable[str]) -> dict[str, list[float]]:
        """For each resource, when it first arrived at each agent that got it since `forget`."""
        found: dict[str, list[float]] = {name: [] for name in names}
        for agent in self.all:
            seen: set[str] = set()
            for when, message in agent.kept:
                for resource in wire.decode_response(message).resources:
                    if resource.name in found and resource.name not in seen:
                        seen.add(resource.name)
                        found[resource.name].append(when)
        return found
