"""The gRPC server on the agent's Unix socket: delta discovery for its Envoy.

Resources live in one store; during a hot restart two Envoys read it. The socket's directory is closed to
everybody else, so whoever connects is our Envoy.

A policy (of a pod, of a service's requests) that Envoy refuses would leave the former one in force, and with it every
later one out. So one that denies everything takes its place, until what is published is another than the refused one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import grpc
import msgspec

from ambit.agent.publication import SINGLY, Publication, StreamProgress
from ambit.core.errors import EnvironmentProblem
from ambit.envoy import names
from ambit.plan.node import node_proxy
from ambit.plan.values import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, PlannedResource
from ambit.xds.events import Acknowledged, Asked, ProtocolViolation, Rejected
from ambit.xds.frames import Request, Resource, Response
from ambit.xds.session import ServerSession
from ambit.xds.store import Changed, Store
from ambit.xds.wire import METHOD_NAME, SERVICE, decode_request, encode_once

_log = logging.getLogger("ambit.ads")
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)

_GRACE = 1.0
"""Seconds that streams get to end when the server stops; they need one turn of the event loop."""
_PREREQUISITES = {LISTENER: CLUSTER}
"""A listener names clusters: when answers to many questions hold clusters up, listeners wait for them too."""
FOLLOWERS = {CLUSTER: ENDPOINTS}
"""Endpoints that come separately go with their cluster."""

AskedFor = Callable[[str, tuple[str, ...]], None]
"""Told of names of a type that Envoy asked for and that do not exist yet."""
Closed = Callable[[str], PlannedResource]
"""From the name of a policy to one of the same name that denies everything."""


class EnvoyServer:
    """Serves until `stop`."""

    def __init__(self, path: Path, asked: AskedFor, closed: Closed = node_proxy.refused_policy) -> None:
        """`closed` makes what takes the place of a policy."""
        self.store = Store()
        self._path = path
        self._asked = asked
        self._closed = closed
        self._streams: dict[_Stream, None] = {}
        self._publications: list[Publication] = []
        self.on_rejected: Callable[[str, str, str, str], None] = lambda *_: None
        """Called with type, name, version and Envoy's reason of each rejected resource, however long after `publish`:
        Envoy subscribes to tables and policies when it has the listeners that name them."""
        self._refused: dict[str, _Refusal] = {}
        """By name of the policy that was published."""
        self._server: grpc.aio.Server | None = None
        self._stopping = asyncio.Event()

    @property
    def connected(self) -> int:
        """How many Envoys read configuration now."""
        return len(self._streams)

    @property
    def rejections(self) -> dict[str, str]:
        """What Envoy last rejected and did not replace, by type."""
        found: dict[str, str] = {}
        for stream in self._streams:
            found |= stream.progress.rejections
        for refusal in self._refused.values():
            found[EXTENSION] = refusal.error
        return found

    @property
    def closed(self) -> tuple[str, ...]:
        """Keys of pods that accept no tunnel, because Envoy refused their policy."""
        return tuple(sorted(names.pod_of(name) or name for name in self._refused))

    async def start(self) -> None:
        """Listens. Raises EnvironmentProblem when the socket cannot be made."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    SERVICE,
                    {
                        METHOD_NAME: grpc.stream_stream_rpc_method_handler(
                            self._discovery, decode_request, encode_once
                        )
                    },
                ),
            )
        )
        try:
            server.add_insecure_port(f"unix:{self._path}")
            await server.start()
        except RuntimeError as problem:
            raise EnvironmentProblem(f"cannot listen on {self._path}: {problem}") from problem
        self._server = server

    async def stop(self) -> None:
        """Ends the streams; Envoy keeps what it has and looks for the next agent. They end by themselves, because of a
        call that grpc cancels it writes a traceback."""
        if self._server is not None:
            self._stopping.set()
            await self._server.stop(_GRACE)

    def publish(
        self, changed: Iterable[tuple[str, Resource]], removed: Iterable[tuple[str, str]] = ()
    ) -> Publication:
        """Stores resources and removals, tells every stream, and returns what can be awaited.

        `changed` is (type URL, resource) in the order in which types must arrive.
        """
        wanted = list(changed)
        changes = self._update(wanted, removed)
        publication = Publication(
            {change.type_url: self.store.revision(change.type_url) for change in changes},
            {change.type_url: frozenset(change.before) for change in changes},
            {
                (type_url, resource.name): self._refused[resource.name].error
                for type_url, resource in wanted
                if type_url == EXTENSION and resource.name in self._refused
            },
        )
        if not publication.check(stream.progress for stream in self._streams):
            self._publications.append(publication)
        return publication

    def answer(self, found: Iterable[tuple[str, Resource]]) -> None:
        """As `publish`, for answers to questions, which nobody awaits: there can be thousands under way."""
        self._update(found, ())

    def is_asked_for(self, type_url: str, name: str) -> bool:
        """Whether any Envoy wants this by its name."""
        return any(stream.session.wants(type_url, name) for stream in self._streams)

    def latest(self, type_url: str) -> Publication:
        """What was published of a type so far, to be awaited as a whole."""
        names = frozenset(self.store.resources(type_url))
        publication = Publication({type_url: self.store.revision(type_url)}, {type_url: names})
        if not publication.check(stream.progress for stream in self._streams):
            self._publications.append(publication)
        return publication

    def refuse(self, type_url: str, names: Iterable[str]) -> None:
        """Tells every stream that these do not exist: it drops them, and never asks for them again."""
        wanted = tuple(names)
        for stream in self._streams:
            stream.send(stream.session.refuse(type_url, wanted))

    def _update(
        self, changed: Iterable[tuple[str, Resource]], removed: Iterable[tuple[str, str]]
    ) -> list[Changed]:
        puts: dict[str, dict[str, Resource]] = {}
        gone: dict[str, set[str]] = {}
        for type_url, resource in changed:
            puts.setdefault(type_url, {})[resource.name] = self._taken(type_url, resource)
        for type_url, name in removed:
            if type_url == EXTENSION:
                self._refused.pop(name, None)
            gone.setdefault(type_url, set()).add(name)
            puts.setdefault(type_url, {})
        changes = [
            change
            for type_url, resources in puts.items()
            if (change := self.store.update(type_url, resources, gone.get(type_url, ())))
        ]
        if changes:
            for stream in self._streams:
                stream.send(stream.session.notify_all(changes))
        return changes

    def _taken(self, type_url: str, resource: Resource) -> Resource:
        """The resource, or what stands for it because Envoy refused it."""
        if type_url != EXTENSION or resource.name not in self._refused:
            return resource
        refusal = self._refused[resource.name]
        if refusal.version == resource.version:
            return refusal.instead
        del self._refused[resource.name]
        _log.info("%s changed, and is tried again", resource.name)
        return resource

    def _close(self, resource: Resource, error: str) -> None:
        """Lets nobody in where Envoy refused the policy; not if another one is there meanwhile."""
        there = self.store.get(EXTENSION, resource.name)
        planned = self._closed(resource.name)
        if there is None or there.version != resource.version or planned.version == resource.version:
            return
        _, instead = framed(planned)
        self._refused[resource.name] = _Refusal(resource.version, error, instead)
        _log.error("%s is replaced by one that denies everything", resource.name)
        self._update([(EXTENSION, resource)], ())

    def _check(self) -> None:
        self._publications = [
            publication
            for publication in self._publications
            if not publication.check(stream.progress for stream in self._streams)
        ]

    async def _discovery(self, _: object, context: grpc.aio.ServicerContext) -> None:
        session = ServerSession(
            self.store, prerequisites=_PREREQUISITES, singly=SINGLY, isolate=True, followers=FOLLOWERS
        )
        stream = _Stream(session)
        self._streams[stream] = None
        _log.info("Envoy connected")
        reader = asyncio.ensure_future(self._read(stream, context))
        writer = asyncio.ensure_future(stream.write(context))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({reader, writer, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
            elif stopping.done():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the agent stops")
            else:
                # The stream ends here, and Envoy asks again on a new one: it must not wait for lost answers.
                _log.error("answers to Envoy cannot be sent: %r", writer.exception())
        except ProtocolViolation as problem:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(problem))
        finally:
            reader.cancel()
            writer.cancel()
            stopping.cancel()
            del self._streams[stream]
            self._check()
            _log.info("Envoy disconnected")

    async def _read(self, stream: "_Stream", context: grpc.aio.ServicerContext) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            self._take(stream, request)

    def _take(self, stream: "_Stream", request: Request) -> None:
        stream.send(stream.session.receive(request))
        for event in stream.session.take_events():
            stream.progress.take(event)
            match event:
                case Asked(type_url, names):
                    self._asked(type_url, names)
                case Acknowledged():
                    for publication in self._publications:
                        publication.acknowledged(event, stream)
                case Rejected(response, error):
                    _log.error("Envoy rejected %s: %s", response.type_url.rpartition(".")[2], error)
                    for publication in self._publications:
                        publication.rejected(event, stream)
                    for resource in response.resources:
                        self.on_rejected(response.type_url, resource.name, resource.version, error)
                    for resource in response.resources if response.type_url == EXTENSION else ():
                        self._close(resource, error)
                case _:
                    pass
        self._check()


def framed(planned: PlannedResource) -> tuple[str, Resource]:
    """A planned resource as `EnvoyServer.publish` takes it."""
    resource = Resource(
        name=planned.name, version=planned.version, body=planned.body, on_demand=planned.on_demand
    )
    return planned.type_url, resource


class _Refusal(msgspec.Struct, frozen=True):
    """A policy that Envoy did not take: its version, why, and what it has instead."""

    version: str
    error: str
    instead: Resource


class _Stream:
    def __init__(self, session: ServerSession) -> None:
        self.session = session
        self.progress = StreamProgress(session)
        self._queue: asyncio.Queue[Response] = asyncio.Queue()

    def send(self, responses: list[Response]) -> None:
        """Queues responses; the session's window bounds how many there can be."""
        for response in responses:
            self._queue.put_nowait(response)

    async def write(self, context: grpc.aio.ServicerContext) -> None:
        while True:
            await context.write(await self._queue.get())
