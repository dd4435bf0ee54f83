"""Discovery for L7 proxies: each gets its own resources, and nobody gets another's.

The first request of a stream says which Gateway's proxy it is (`proxy~<namespace>/<gateway>~<pod>`); the token must be
of that Gateway's service account. A Gateway that is not known (yet) refuses, and the agent comes again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import import_module
from typing import Any

import grpc
import msgspec

from ambit.ca.issuance import Caller
from ambit.control.callers import Refused
from ambit.control.metrics import Counters
from ambit.control.plans import Plans
from ambit.control.stream import ANSWERED, PUSHED, STOPPING, Stream
from ambit.daemon.logs import event
from ambit.ingest.mesh import MeshDelta
from ambit.plan.values import CLUSTER, LISTENER
from ambit.xds import wire
from ambit.xds.events import Acknowledged, Asked, Rejected, TypeStatus
from ambit.xds.frames import Request
from ambit.xds.session import ServerSession
from ambit.xds.store import Publication

log = logging.getLogger("ambit.control.proxies")

_PREREQUISITES = {LISTENER: CLUSTER}
_KIND = "proxy"
_BUILDERS = "ambit.plan.waypoint"
"""Takes half a second the first time, in which other streams go on."""


class ProxyStatus(msgspec.Struct, frozen=True):
    """Where one connected proxy stands, by type URL. `gateway` is `<namespace>/<name>`."""

    gateway: str
    pod: str
    caller: str
    types: dict[str, TypeStatus]


class ProxyDiscovery:
    """Single event loop. What is told to `take` is on its way when it returns."""

    def __init__(self, plans: Plans, counters: Counters) -> None:
        self._plans = plans
        self._counters = counters
        self._streams: dict[Stream, tuple[str, str]] = {}
        """Key of the Gateway and name of the pod."""
        self._stopping = False
        self.on_caller: Callable[[str], None] = lambda _: None
        """Called with the other end of a connection whose caller is a proxy."""

    def take(self, delta: MeshDelta) -> None:
        """What a batch of changes means for connected proxies."""
        self._publish(self._plans.take(delta))

    def retrust(self) -> None:
        """The mesh trusts others than before."""
        self._publish(self._plans.retrust())

    def status(self) -> list[ProxyStatus]:
        """All connected proxies."""
        found = [
            ProxyStatus(
                key,
                pod,
                str(stream.caller),
                {each: stream.session.status(each) for each in stream.session.types},
            )
            for stream, (key, pod) in self._streams.items()
        ]
        return sorted(found, key=lambda each: (each.gateway, each.pod))

    def stop(self) -> None:
        """End all streams so that their clients look for another replica."""
        self._stopping = True
        for stream in self._streams:
            stream.end()

    async def serve(self, caller: Caller, requests: AsyncIterator[bytes], context: Any) -> None:
        """A stream of somebody who is no node agent. Raises Refused."""
        first = await _first(requests, caller)
        key, pod = _named(first, caller)
        await asyncio.to_thread(import_module, _BUILDERS)
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
        proxy = self._plans.proxy(key)
        if proxy is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"there is no Gateway {key} with a proxy", caller)
        account = (proxy.identity.namespace, proxy.identity.service_account)
        if (caller.namespace, caller.service_account) != account:
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"Gateway {key} has the service account {'/'.join(account)}",
                caller,
            )
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
                    self._counters.count(ANSWERED, type=response.type_url, answer="ack")
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
                case _:
                    pass

    async def _write(self, stream: Stream, context: Any) -> None:
        """Until the stream ends. Never cancelled by us: grpc cannot end a call in the middle of a write."""
        while not stream.ended:
            await stream.awake.wait()
            stream.awake.clear()
            while stream.outbox and not stream.ended:
                response = stream.outbox.popleft()
                self._counters.count(PUSHED, type=response.type_url)
                await context.write(wire.encode_response(response))


async def _first(requests: AsyncIterator[bytes], caller: Caller) -> Request:
    try:
        return wire.decode_request(await anext(requests))
    except StopAsyncIteration:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "the stream asks for nothing", caller) from None
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
