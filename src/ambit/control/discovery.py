"""The workload API server: one store, one session per connected node, changes pushed as they are compiled."""

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Any

import grpc
import msgspec

from ambit.ca.issuance import Caller
from ambit.control.addresses import AddressIndex, is_address
from ambit.control.answers import Answer, Progress, Standing, joined
from ambit.control.identity.callers import Authenticator, Refused
from ambit.control.metrics import Counters
from ambit.control.settings import Settings
from ambit.control.stream import (
    ANSWERED,
    PUSHED,
    PUSHED_AS_ISTIOD,
    SHORT_TYPES,
    STOPPING,
    Stream,
    count_push,
)
from ambit.control.turns import Turns
from ambit.daemon.logs import event
from ambit.xds import wire
from ambit.xds.events import Acknowledged, Asked, Rejected, TypeStatus
from ambit.xds.frames import Resource
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE, TYPES
from ambit.xds.session import ServerSession
from ambit.xds.store import Changed, Publication, Store

log = logging.getLogger("ambit.control.discovery")

REFUSED = "ambit_xds_refused_total"
PREREQUISITE_WAIT = 1.0
"""Seconds to wait for a client's question about policies before it gets workloads without them."""

STREAMS_PER_NODE = 16
"""A node has one, and a second one while its agent is exchanged."""

LONG_WRITES, LONG_TURN = 4, 0.25
"""So many long responses are written at once: when all nodes come at the same time, each first answer would otherwise
lie encoded in memory. After so many seconds it is another's turn: nodes behind slow links, or that have stopped
reading, hold nobody up."""


class Update(msgspec.Struct, frozen=True):
    """What changed of one type."""

    type_url: str
    changed: Mapping[str, Resource] = {}
    removed: Sequence[str] = ()


class NodeStatus(msgspec.Struct, frozen=True):
    """Where one connected node stands, by type URL."""

    node: str
    caller: str
    proxy: str
    types: dict[str, TypeStatus]


Others = Callable[[Caller, AsyncIterator[bytes], Any], Awaitable[None]]
"""Serves a stream of this caller, on serialised messages and the call's context. Raises Refused."""


async def _nobody(caller: Caller, requests: AsyncIterator[bytes], context: Any) -> None:
    del requests, context
    raise Refused(grpc.StatusCode.PERMISSION_DENIED, "the caller is no node agent", caller)


class Discovery:
    """Serves `DeltaAggregatedResources` to node agents. Single event loop."""

    def __init__(self, settings: Settings, authenticator: Authenticator, counters: Counters) -> None:
        self.store = Store()
        self._addresses = AddressIndex(self.store)
        self._settings = settings
        self._authenticator = authenticator
        self._counters = counters
        self._streams: set[Stream] = set()
        self._by_node: dict[str, set[Stream]] = {}
        self._stopping = False
        self._encoder = wire.Encoder()
        self._turns = Turns(LONG_WRITES, LONG_TURN)
        self.others: Others = _nobody
        """Serves who is no node agent."""
        self.on_answer: Callable[[str], None] = lambda _: None
        """Called with a node that acknowledged or rejected something."""
        self.on_gone: Callable[[str], None] = lambda _: None
        """Called with the node whose stream has ended."""
        self.on_caller: Callable[[str], None] = lambda _: None
        """Called with the other end of a connection whose caller is a node agent."""
        counters.declare(PUSHED, "Responses sent, by type.")
        counters.declare(PUSHED_AS_ISTIOD, "Responses sent, by type, as istiod counts them.")
        counters.declare(ANSWERED, "Acknowledgements (ack) and rejections (nack) received, by type.")
        counters.declare(REFUSED, "Streams refused, by gRPC status.")

    def publish(self, updates: Sequence[Update]) -> None:
        """Take changes of several types that belong together, in any order, and tell every stream."""
        ordered = sorted(updates, key=lambda update: _rank(update.type_url))
        changes = [each for each in map(self._apply, ordered) if each]
        if changes:
            self._encoder.forget()
            publication = Publication(self.store, changes)
            for stream in self._streams:
                stream.send(stream.session.publish(publication))

    def _apply(self, update: Update) -> Changed:
        changed, removed = update.changed, update.removed
        if update.type_url == ADDRESS_TYPE:
            present, gone = self._addresses.follow(changed, removed)
            changed, removed = {**changed, **present}, (*removed, *gone)
        return self.store.update(update.type_url, changed, removed)

    def status(self) -> list[NodeStatus]:
        """All connected nodes."""
        return sorted(
            (
                NodeStatus(
                    stream.caller.node,
                    str(stream.caller),
                    stream.session.node.id,
                    {kind: stream.session.status(kind) for kind in stream.session.types},
                )
                for stream in self._streams
            ),
            key=lambda status: (status.node, status.caller),
        )

    @property
    def connected(self) -> int:
        """How many streams of node agents are open."""
        return len(self._streams)

    def has_acknowledged(self, type_url: str, revision: int) -> bool:
        """Whether every connected node has."""
        return all(
            stream.session.status(type_url).acknowledged >= revision
            for stream in self._streams
            if type_url in stream.session.types
        )

    def revisions(self) -> dict[str, int]:
        """Of what is served now, by type."""
        return {each: self.store.revision(each) for each in TYPES}

    def standings(self) -> Iterator[Standing]:
        """Where each stream stands."""
        for stream in self._streams:
            session = stream.session
            acknowledged = {each: session.status(each).acknowledged for each in TYPES}
            yield Standing(stream.caller.node, acknowledged, session.rejections(AUTHORIZATION_TYPE))

    def progress(
        self,
        revisions: Mapping[str, int],
        names: Collection[str],
        expected: Collection[str] = (),
        others: Iterable[Answer] = (),
    ) -> Progress:
        """Where nodes stand: whether they have acknowledged each type up to its revision, and which of these
        policies they rejected. `others` are connected to other replicas. An `expected` node that is connected to none
        lags."""
        return joined(chain(self._answers(revisions, names), others), expected)

    def _answers(self, revisions: Mapping[str, int], names: Collection[str]) -> Iterator[Answer]:
        for stream in self._streams:
            session = stream.session
            behind = any(session.status(each).acknowledged < revision for each, revision in revisions.items())
            errors = filter(None, (session.rejection(AUTHORIZATION_TYPE, name) for name in names))
            yield Answer(stream.caller.node, behind, next(errors, ""))

    def answers(self, name: str, revision: int, nodes: AbstractSet[str]) -> Iterator[Answer]:
        """What streams of these nodes say of the address of this name, which was published with this revision."""
        for node in nodes & self._by_node.keys():
            for stream in self._by_node[node]:
                behind = stream.session.status(ADDRESS_TYPE).acknowledged < revision
                yield Answer(node, behind, stream.session.rejection(ADDRESS_TYPE, name))

    def stop(self) -> None:
        """End all streams so that their clients look for another replica."""
        self._stopping = True
        for stream in self._streams:
            stream.end()

    async def serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """The bidirectional method on serialised messages. `context` is a `grpc.aio.ServicerContext`."""
        try:
            caller = await self._authenticator.caller(context.invocation_metadata() or (), context.peer())
            if (caller.namespace, caller.service_account) not in self._settings.node_accounts:
                await self.others(caller, requests, context)
                return
            stream = self._open(caller)
        except Refused as refusal:
            status = refusal.status.name.lower()
            self._counters.count(REFUSED, status=status)
            event(
                log,
                logging.WARNING,
                "stream refused",
                reason=refusal.reason,
                caller=refusal.caller or "unknown",
                status=status,
            )
            await context.abort(refusal.status, refusal.reason)
            return
        self.on_caller(context.peer())
        event(log, logging.INFO, "node connected", node=stream.caller.node, caller=stream.caller)
        self._streams.add(stream)
        self._by_node.setdefault(stream.caller.node, set()).add(stream)
        reader = asyncio.create_task(self._read(stream, requests))
        release = asyncio.get_running_loop().call_later(
            PREREQUISITE_WAIT, lambda: stream.send(stream.session.release())
        )
        try:
            await self._write(stream, context)
        finally:
            self._forget(stream)
            self.on_gone(stream.caller.node)
            release.cancel()
            reader.cancel()
            event(log, logging.INFO, "node disconnected", node=stream.caller.node, caller=stream.caller)
        if stream.failure is not None:
            status, reason = stream.failure
            event(log, logging.WARNING, "stream ended", node=stream.caller.node, reason=reason)
            await context.abort(status, reason)
        if self._stopping:
            await context.abort(*STOPPING)

    def _forget(self, stream: Stream) -> None:
        self._streams.discard(stream)
        left = self._by_node[stream.caller.node]
        left.discard(stream)
        if not left:
            del self._by_node[stream.caller.node]

    def _open(self, caller: Caller) -> Stream:
        if self._stopping:
            raise Refused(*STOPPING, caller)
        if len(self._by_node.get(caller.node, ())) >= STREAMS_PER_NODE:
            reason = f"node {caller.node} has {STREAMS_PER_NODE} streams already"
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, caller)
        session = ServerSession(self.store, prerequisites={ADDRESS_TYPE: AUTHORIZATION_TYPE})
        return Stream(caller, session)

    async def _read(self, stream: Stream, requests: AsyncIterator[bytes]) -> None:
        try:
            async for data in requests:
                stream.send(stream.session.receive(wire.decode_request(data)))
                self._note(stream)
        except ValueError as error:
            # Nonsense, or a protocol violation, which is one too.
            stream.failure = (grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception:
            log.exception("a request of %s failed", stream.caller)
            stream.failure = (grpc.StatusCode.INTERNAL, "the control plane failed on this request")
        finally:
            stream.end()

    def _note(self, stream: Stream) -> None:
        """What the last request meant."""
        for happened in stream.session.take_events():
            match happened:
                case Asked(type_url, names):
                    self._answer(stream, type_url, names)
                case Acknowledged(response):
                    self._counters.count(ANSWERED, type=response.type_url, answer="ack")
                    if response.type_url == AUTHORIZATION_TYPE:
                        # What one policy did wrong may have held up others, which the node refused with it.
                        stream.send(stream.session.retry(AUTHORIZATION_TYPE))
                    self.on_answer(stream.caller.node)
                case Rejected(response, error):
                    self._counters.count(ANSWERED, type=response.type_url, answer="nack")
                    event(
                        log,
                        logging.ERROR,
                        "node rejected configuration",
                        node=stream.caller.node,
                        type=response.type_url,
                        error=error,
                    )
                    self.on_answer(stream.caller.node)
                case _:
                    pass

    def _answer(self, stream: Stream, type_url: str, names: Sequence[str]) -> None:
        """Names that were not in the store when they were asked for."""
        if type_url == ADDRESS_TYPE and (addresses := [name for name in names if is_address(name)]):
            change = self.store.update(ADDRESS_TYPE, self._addresses.ask(addresses))
            for each in self._streams if change else ():
                each.send(each.session.notify(change))
        # The store is complete: what is not in it does not exist.
        stream.send(stream.session.refuse(type_url, names))

    async def _write(self, stream: Stream, context: Any) -> None:
        """Write until the stream ends. Never cancelled by us: grpc cannot end a call in the middle of a write."""
        while True:
            await stream.awake.wait()
            stream.awake.clear()
            while stream.outbox and not stream.ended:
                response = stream.outbox.popleft()
                count_push(self._counters, response.type_url)
                self._counters.count(PUSHED_AS_ISTIOD, type=SHORT_TYPES.get(response.type_url, ""))
                if len(response.resources) < wire.LONG:
                    await context.write(wire.encode_response(response))
                    continue
                async with self._turns.turn():
                    await context.write(self._encoder.encode(response))
            if stream.ended:
                return


def _rank(type_url: str) -> int:
    return TYPES.index(type_url) if type_url in TYPES else len(TYPES)
