"""Discovery for L7 proxies: each gets its own resources, and nobody gets another's.

The first request of a stream says which Gateway's proxy it is (`proxy~<namespace>/<gateway>~<pod>`); the token must be
of that Gateway's service account. A Gateway that is not known (yet) refuses, and the agent comes again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from importlib import import_module
from typing import Any

import grpc
import msgspec

from ambit.ca.issuance import Caller
from ambit.control.answers import Answer
from ambit.control.identity.callers import Refused
from ambit.control.identity.first_message import FirstMessages
from ambit.control.l7.plans import Plans
from ambit.control.metrics import Counters
from ambit.control.statuses.policy_answers import PolicyAnswers
from ambit.control.statuses.ruled_nodes import Find, RuledNodes
from ambit.control.statuses.status_fields import ACKNOWLEDGED
from ambit.control.stream import ANSWERED, STOPPING, Stream, count_push
from ambit.core.finding import ObjectRef
from ambit.daemon.logs import event
from ambit.ingest.gateway.conditions import no
from ambit.ingest.istio.tokens import KIND as TOKEN_KIND
from ambit.ingest.mesh import MeshDelta
from ambit.ingest.statuses.policy_statuses import KIND as POLICY_KIND
from ambit.model.jwt import KeySource
from ambit.model.status import RouteStatus, Status
from ambit.plan.values import CLUSTER, EXTENSION, LISTENER
from ambit.xds import wire
from ambit.xds.events import Acknowledged, Asked, Rejected, TypeStatus
from ambit.xds.frames import Request
from ambit.xds.session import ServerSession
from ambit.xds.store import Publication

log = logging.getLogger("ambit.control.proxies")

_PREREQUISITES = {LISTENER: CLUSTER}
_KIND = "proxy"
FIRST_BYTES = 1 << 20
"""Of a stream's first request, which names the proxy and what Envoy has of one type."""
STREAMS_PER_POD = 4
"""A proxy has one."""
_BUILDERS = ("ambit.plan.l7.waypoint", "ambit.plan.l7.gateway")
"""They take half a second the first time, in which other streams go on."""


class ProxyStatus(msgspec.Struct, frozen=True):
    """Where one connected proxy stands, by type URL. `gateway` is `<namespace>/<name>`."""

    gateway: str
    pod: str
    caller: str
    types: dict[str, TypeStatus]


class ProxyDiscovery:
    """Single event loop. What is told to `take` is on its way when it returns. `nodes` has what nodes say that enforce
    policies for requests, too."""

    def __init__(self, plans: Plans, counters: Counters, nodes: Find = lambda *_: iter(())) -> None:
        self._plans = plans
        self._counters = counters
        self._streams: dict[Stream, tuple[str, str]] = {}
        """Key of the Gateway and name of the pod."""
        self._stopping = False
        self.messages = FirstMessages(())
        """Reads the first message of each stream."""
        self.before: Callable[[], Awaitable[None]] = _nothing
        """Awaited before a stream begins."""
        self._refused: dict[ObjectRef, str] = {}
        self.ruled = RuledNodes(plans.inputs.view, nodes)
        self._policies = PolicyAnswers(self._answers, self.ruled.answers)
        self.elsewhere: Callable[[ObjectRef], str | None] = lambda _: None
        """Why proxies of another replica have refused a route."""
        self.on_refused: Callable[[ObjectRef], None] = lambda _: None
        """Called with routes and policies whose status `amended` may see otherwise now."""
        self.on_caller: Callable[[str], None] = lambda _: None
        """Called with the other end of a connection whose caller is a proxy."""

    def take(self, delta: MeshDelta) -> None:
        """What a batch of changes means for connected proxies."""
        self._publish(self._plans.take(delta))
        self._policies.changed(
            POLICY_KIND, {*delta.request_policies.upserts, *delta.request_policies.removals}
        )
        self._policies.changed(TOKEN_KIND, {*delta.tokens.upserts, *delta.tokens.removals})
        self._tell()

    def release(self, places: Collection[tuple[str, str]]) -> None:
        """Waypoints at these Services keep less than before."""
        self._publish(self._plans.release(places))

    def mark(self, place: tuple[str, str]) -> Mapping[str, int]:
        """How new what the pods of a waypoint here are told is; nothing while none is connected."""
        return next(iter(self._plans.revisions(place).values()), {})

    def has_taken(self, place: tuple[str, str], mark: Mapping[str, int], pods: Collection[str]) -> bool:
        """Whether these pods of a waypoint are connected here and have acknowledged all of `mark`."""
        keys = self._plans.revisions(place)
        streams = {pod: stream for stream, (key, pod) in self._streams.items() if key in keys}
        return bool(mark) and all(
            pod in streams and _has_taken(streams[pod].session, mark) for pod in {*pods, *streams}
        )

    def rekey(self, keys: Mapping[KeySource, str]) -> None:
        """These are the keys of tokens now."""
        self._publish(self._plans.rekey(keys))

    def retrust(self) -> None:
        """The mesh trusts others than before."""
        self._publish(self._plans.retrust())

    def status(self) -> list[ProxyStatus]:
        """All connected proxies."""
        found = [
            ProxyStatus(key, pod, str(stream.caller), self._types(stream, key))
            for stream, (key, pod) in self._streams.items()
        ]
        return sorted(found, key=lambda each: (each.gateway, each.pod))

    def _types(self, stream: Stream, key: str) -> dict[str, TypeStatus]:
        """What was refused counts also while something else stands for it."""
        found = {each: stream.session.status(each) for each in stream.session.types}
        for (type_url, name), refusal in self._plans.refused(key).items():
            if type_url in found and not found[type_url].error:
                error = f"{name}: {refusal.error}"
                found[type_url] = msgspec.structs.replace(found[type_url], error=error)
        return found

    def stop(self) -> None:
        """End all streams so that their clients look for another replica."""
        self._stopping = True
        for stream in self._streams:
            stream.end()

    async def serve(self, caller: Caller, requests: AsyncIterator[bytes], context: Any) -> None:
        """A stream of somebody who is no node agent. Raises Refused."""
        first = _first(await self.messages.read(caller, context, FIRST_BYTES), caller)
        key, pod = _named(first, caller)
        for each in _BUILDERS:
            await asyncio.to_thread(import_module, each)
        await self.before()
        stream = self._open(caller, key)
        self._streams[stream] = (key, pod)
        self.on_caller(context.peer())
        event(log, logging.INFO, "proxy connected", gateway=key, caller=caller)
        self._take(stream, key, first)
        reader = asyncio.create_task(self._read(stream, key, requests))
        try:
            await self._write(stream, context)
        finally:
            reader.cancel()
            del self._streams[stream]
            self._policies_taken(EXTENSION)
            if key not in {each for each, _ in self._streams.values()}:
                self._plans.close(key)
            event(log, logging.INFO, "proxy disconnected", gateway=key, caller=caller)
        if stream.failure is not None:
            await context.abort(*stream.failure)
        if self._stopping:
            await context.abort(*STOPPING)

    def _open(self, caller: Caller, key: str) -> Stream:
        if self._stopping:
            raise Refused(*STOPPING, caller)
        proxy = self._plans.inputs.proxy(key)
        if proxy is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"there is no Gateway {key} with a proxy", caller)
        account = (proxy.identity.namespace, proxy.identity.service_account)
        if (caller.namespace, caller.service_account) != account:
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"Gateway {key} has the service account {'/'.join(account)}",
                caller,
            )
        if sum(each.caller.pod_uid == caller.pod_uid for each in self._streams) >= STREAMS_PER_POD:
            reason = f"pod {caller.pod} has {STREAMS_PER_POD} streams already"
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, caller)
        return Stream(caller, ServerSession(self._plans.open(proxy), prerequisites=_PREREQUISITES))

    def _publish(self, publications: Mapping[str, Publication]) -> None:
        for stream, (key, _) in self._streams.items():
            if key in publications:
                stream.send(stream.session.publish(publications[key]))

    async def _read(self, stream: Stream, key: str, requests: AsyncIterator[bytes]) -> None:
        try:
            async for data in requests:
                self._take(stream, key, wire.decode_request(data))
        except ValueError as error:
            stream.failure = (grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            stream.end()

    def _take(self, stream: Stream, key: str, request: Request) -> None:
        stream.send(stream.session.receive(request))
        for happened in stream.session.take_events():
            match happened:
                case Asked(type_url, names):
                    # All there is for this proxy is in the store.
                    stream.send(stream.session.refuse(type_url, names))
                case Acknowledged(response):
                    self._policies_taken(response.type_url)
                    self._counters.count(ANSWERED, type=response.type_url, answer="ack")
                    publications = self._plans.acknowledged(key, response)
                    if publications is not None:
                        self._publish(publications)
                        self._tell()
                case Rejected(response, error):
                    self._counters.count(ANSWERED, type=response.type_url, answer="nack")
                    event(
                        log,
                        logging.ERROR,
                        "proxy rejected configuration",
                        gateway=key,
                        type=response.type_url,
                        error=error,
                    )
                    self._publish(self._plans.rejected(key, response, error))
                    self._policies_taken(response.type_url)
                    self._tell()
                case _:
                    pass

    def amended(self, status: Status) -> Status:
        """What a route's status says when Envoys have refused it, and a policy's of the proxies that enforce it."""
        status = self._policies.amended(status)
        text = self._refused.get(status.version.origin) or self.elsewhere(status.version.origin)
        if text is None or not isinstance(status, RouteStatus):
            return status
        refused = no(ACKNOWLEDGED, "Rejected", text)
        parents = tuple(
            msgspec.structs.replace(each, conditions=(*each.conditions, refused)) for each in status.parents
        )
        return msgspec.structs.replace(status, parents=parents)

    @property
    def refused_routes(self) -> Mapping[ObjectRef, str]:
        """Why Envoys that are connected here have refused a route."""
        return self._refused

    def _answers(self, origin: ObjectRef) -> Iterator[Answer]:
        """Of each proxy that enforces this policy: whether it has its policies as they are now."""
        keys = self._plans.enforcing(origin)
        for stream, (key, pod) in self._streams.items():
            if key in keys:
                session = stream.session
                wanted = self._plans.revision(key, EXTENSION)
                errors = session.rejections(EXTENSION).values()
                yield Answer(
                    pod, bool(wanted and session.status(EXTENSION).acknowledged < wanted), "; ".join(errors)
                )

    def _policies_taken(self, type_url: str) -> None:
        """Statuses of policies that wait for such answers are looked at again."""
        for each in self._policies.waiting if type_url == EXTENSION else ():
            self.on_refused(each)

    def node_answered(self, node: str) -> None:
        """It acknowledged or rejected something, or is gone: it may be the last one that a policy waits for."""
        for each in self.ruled.answered(node, self._policies.waiting):
            self.on_refused(each)

    def _tell(self) -> None:
        """Statuses of routes whose table is refused, or is not any more, are looked at again."""
        refused = self._plans.refused_routes()
        changed = {
            each
            for each in refused.keys() | self._refused.keys()
            if refused.get(each) != self._refused.get(each)
        }
        self._refused = refused
        for each in changed:
            self.on_refused(each)

    async def _write(self, stream: Stream, context: Any) -> None:
        """Until the stream ends. Never cancelled by us: grpc cannot end a call in the middle of a write."""
        while not stream.ended:
            await stream.awake.wait()
            stream.awake.clear()
            while stream.outbox and not stream.ended:
                response = stream.outbox.popleft()
                count_push(self._counters, response.type_url)
                await context.write(wire.encode_response(response))


def _has_taken(session: ServerSession, mark: Mapping[str, int]) -> bool:
    """A type of which nothing was ever sent has nothing to be acknowledged."""
    return all(
        session.status(type_url).acknowledged >= revision for type_url, revision in mark.items() if revision
    )


def _first(message: bytes, caller: Caller) -> Request:
    try:
        return wire.decode_request(message)
    except ValueError as error:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error), caller) from None


def _named(request: Request, caller: Caller) -> tuple[str, str]:
    """Key of the Gateway and name of the pod. Raises Refused for who is no proxy at all."""
    kind, _, rest = (request.node.id if request.node is not None else "").partition("~")
    key, _, pod = rest.partition("~")
    if kind != _KIND or not key:
        raise Refused(
            grpc.StatusCode.PERMISSION_DENIED, "the caller is neither a node agent nor a proxy", caller
        )
    return key, pod


async def _nothing() -> None:
    """Nothing has to be waited for."""
