"""The control plane process: loads the root, watches, compiles, serves, until told to stop.

Nothing is served before the first complete view of the mesh: an answer that lacks policies would let traffic in. Nodes
that come earlier are let in and wait, so that a restart costs them no pauses between attempts.
"""

import asyncio
import datetime as dt
import gc
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import grpc.aio
import msgspec

from ambit import __version__
from ambit.ca.authority import Authority
from ambit.ca.trust import Trust, TrustState
from ambit.control.discovery import Discovery
from ambit.control.gateways.controller import GatewayKeeper
from ambit.control.identity.callers import Authenticator
from ambit.control.identity.certificates import CertificateService
from ambit.control.identity.first_message import FirstMessages
from ambit.control.identity.guard import ConnectionGuard
from ambit.control.identity.pods import PodIndex
from ambit.control.identity.publication import RootPublisher
from ambit.control.identity.roots import load_state
from ambit.control.identity.trust import TrustKeeper, acknowledged
from ambit.control.l7.handing_over import HandingOver
from ambit.control.l7.plans import Plans
from ambit.control.l7.proxies import ProxyDiscovery
from ambit.control.leader import Leadership
from ambit.control.memory_keeper import MemoryKeeper
from ambit.control.mesh import MeshFeed
from ambit.control.metrics import Counters, family
from ambit.control.server import ServerCertificate, listen_plain, listen_tls, make_server
from ambit.control.settings import Settings
from ambit.control.statuses import object_status
from ambit.control.statuses.allocation import AddressWriter
from ambit.control.statuses.object_status import ObjectStatusWriter
from ambit.control.statuses.reporter import Reporter
from ambit.control.statuses.status import StatusWriter
from ambit.control.token_keys.fetch import KeyFetcher
from ambit.control.token_keys.grants import KeyGrants
from ambit.control.token_keys.keys import KeyKeeper
from ambit.control.token_keys.own_address import is_own_address
from ambit.control.token_keys.places import Limits, Places
from ambit.core.errors import Unreachable, first_failure
from ambit.core.finding import ObjectRef
from ambit.core.names import CONTROL_LEASE
from ambit.daemon.http import PROMETHEUS_TEXT, Handler, Request, Response, json_response, port_of, serve
from ambit.daemon.logs import event
from ambit.ingest.mesh import Change, MeshDelta
from ambit.kube.client import Client
from ambit.kube.errors import ApiError
from ambit.kube.resource import GATEWAYS, PEER_AUTHENTICATIONS
from ambit.model.jwt import KeySource
from ambit.model.status import Status
from ambit.objects.kube import Pod
from ambit.plan.values import NodeSettings
from ambit.xds.messages import ADDRESS_TYPE, TYPES

T = TypeVar("T")

log = logging.getLogger("ambit.control")

STOP_GRACE = 1.0
"""Seconds that calls under way get when the process stops."""
RETRY_FIRST = 0.05
RETRY_MAX = 5.0
"""Seconds between attempts to begin."""


class Ports(msgspec.Struct, frozen=True):
    """Where a running control plane listens; 0 for what is off."""

    tls: int
    plain: int
    debug: int


def wall_clock() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class ControlPlane:
    """One replica. `run` is its whole life."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        *,
        on_ready: Callable[[Ports], None] = lambda _: None,
        wall: Callable[[], dt.datetime] = wall_clock,
    ) -> None:
        self._client = client
        self._settings = settings
        self._on_ready = on_ready
        self._wall = wall
        self._counters = counters = Counters()
        self._feed = MeshFeed(client, settings, counters)
        informers = self._feed.informers
        self._pods = PodIndex(client, informers["pods"].items, informers["namespaces"].items)
        informers["pods"].subscribe(self._pods.update)
        self._authenticator = Authenticator(client, self._pods, time.monotonic)
        self._discovery = Discovery(settings, self._authenticator, counters)
        self._leadership: Leadership | None = None
        self._keeper: TrustKeeper | None = None
        plans = Plans(_plan_settings(settings), self._trusted)
        self._proxies = ProxyDiscovery(plans, counters, self._discovery.answers)
        self._discovery.others = self._proxies.serve
        self._guard = ConnectionGuard(time.monotonic)
        self._memory = MemoryKeeper(settings.memory_limit)
        self._status = StatusWriter(
            client, self._discovery, lambda: self._pods.capturing_nodes, self._leading, wall
        )
        self._addresses = AddressWriter(client, self._leading)
        informers["serviceentries.networking.istio.io"].subscribe(self._addresses.observed)
        self._waypoints = GatewayKeeper(
            client,
            settings.proxy_pods,
            informers[GATEWAYS.qualified].items,
            lambda: self._feed.proxies,
            self._leading,
        )
        informers["services"].subscribe(self._waypoints.service_changed)
        granted = informers["referencegrants.gateway.networking.k8s.io"]
        grants = KeyGrants(granted.items, lambda namespaces: self._keys.look_again(namespaces))
        granted.subscribe(grants.observed)
        places = Places(
            plans.inputs.view,
            Limits(
                networks=settings.key_networks,
                domain=settings.cluster_domain,
                root_namespace=settings.root_namespace,
                system_namespace=settings.system_namespace,
                is_granted=grants.is_granted,
                is_own=is_own_address,
            ),
        )
        self._keys = KeyKeeper(
            KeyFetcher(places.why_not, places.dialled, places.discloses).fetch,
            counters,
            random.random,
            self._rekeyed,
            lambda origin: self._objects.look_again(origin),
        )
        self._proxies.before = self._keys.ready
        self._proxies.messages = FirstMessages(settings.node_accounts)
        self._proxies.messages.is_short = lambda: self._memory.is_short
        self._feed.keyed = self._keys.keyed
        self._objects = ObjectStatusWriter(client, self._leading, self._amended, wall)
        for kind, of in object_status.KINDS.items():
            if of.qualified in informers:
                informers[of.qualified].on_seen = partial(self._seen, kind)
        informers[PEER_AUTHENTICATIONS.qualified].on_seen = partial(self._seen, PEER_AUTHENTICATIONS.kind)
        self._proxies.on_refused = self._refused
        self._waypoints.on_blocked = self._objects.look_again
        self._pods.on_nodes = self._status.answered
        self._reporter = Reporter(
            client,
            settings,
            self._discovery,
            self._feed,
            lambda: self._leadership,
            self._status.answered,
            lambda: self._proxies.refused_routes,
            self._objects.look_again_at,
        )
        self._proxies.elsewhere = self._reporter.refused_route
        informers["pods"].subscribe(self._reporter.pod_changed)
        self._status.others = self._reporter.answers
        self._discovery.on_gone = self._gone
        self._discovery.on_answer = self._answered
        self._handing_over = HandingOver(plans.inputs.view, self._discovery, self._proxies)
        plans.inputs.kept = self._handing_over.kept
        self._feed.publish_to(self._discovery.publish, self._compiled, self._handing_over.at_once)
        self._ready = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises AmbitError when it cannot start."""
        life = asyncio.create_task(self._live(stop))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({life, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not self._ready:
                life.cancel()
            await life
        except asyncio.CancelledError:
            life.cancel()
            if not stop.is_set():
                raise
        except BaseExceptionGroup as several:
            raise first_failure(several) from several
        finally:
            stopping.cancel()

    async def _live(self, stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            debug_port = 0
            if self._settings.debug_port is not None:
                debug = await serve("127.0.0.1", self._settings.debug_port, self._routes())
                stack.callback(debug.close)
                debug_port = port_of(debug)
            if self._settings.metrics_addresses and self._settings.debug_port is not None:
                addresses = list(self._settings.metrics_addresses)
                scraped: dict[str, Handler] = {"/metrics": self._metrics}
                stack.callback((await serve(addresses, self._settings.debug_port, scraped)).close)
            if self._settings.readiness_port is not None:
                routes = {"/ready": self._readiness, "/live": lambda _: Response(b"live\n")}
                readiness = await serve("", self._settings.readiness_port, routes)
                stack.callback(readiness.close)
            background = [group.create_task(each.run()) for each in self._feed.informers.values()]
            try:
                await self._serve(group, background, debug_port, stop)
            finally:
                self._ready = False
                for task in background:
                    task.cancel()

    async def _serve(
        self,
        group: asyncio.TaskGroup,
        background: list[asyncio.Task[None]],
        debug_port: int,
        stop: asyncio.Event,
    ) -> None:
        begin = time.monotonic()
        state = await _patiently(lambda: load_state(self._client, self._settings, self._wall))
        keeper, publisher, leadership = self._writers(state)
        self._keeper, self._leadership = keeper, leadership
        background += [group.create_task(each.run()) for each in publisher.maps.values()]
        background += [group.create_task(each.run()) for each in keeper.informers]
        background += [group.create_task(each.run()) for each in self._waypoints.informers]
        background.append(group.create_task(self._reporter.informer.run()))
        await _patiently(lambda: publisher.publish(self._settings.system_namespace))
        complete = asyncio.Event()
        server, ports = await self._listen(keeper.signer, complete, debug_port)
        try:
            await self._feed.start()
            background.append(group.create_task(self._guard.run(ports.tls)))
            background.append(group.create_task(self._memory.run()))
            background.append(group.create_task(keeper.run()))
            background.append(group.create_task(publisher.run()))
            background.append(group.create_task(self._status.run()))
            background.append(group.create_task(self._addresses.run()))
            background.append(group.create_task(self._objects.run()))
            background.append(group.create_task(self._keys.run()))
            background.append(group.create_task(self._waypoints.run()))
            background.append(group.create_task(leadership.run()))
            background.append(group.create_task(self._reporter.run()))
            if self._feed.verifies_at_pods:
                # Else nodes would take keys away that the replica before had given them.
                await self._keys.ready()
            # What was loaded lives as long as the process: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            complete.set()
            self._ready = True
            event(log, logging.INFO, "ready", port=ports.tls, seconds=f"{time.monotonic() - begin:.2f}")
            self._on_ready(ports)
            await self._until(stop)
        finally:
            self._ready = False
            event(log, logging.INFO, "stopping")
            self._discovery.stop()
            self._proxies.stop()
            await server.stop(STOP_GRACE if complete.is_set() else None)
        if self._feed.failed.done():
            self._feed.failed.result()

    async def _until(self, stop: asyncio.Event) -> None:
        """Until told to stop, or the feed has failed."""
        stopping: asyncio.Future[object] = asyncio.ensure_future(stop.wait())
        ends: set[asyncio.Future[object]] = {stopping, self._feed.failed}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()

    async def _listen(
        self, authority: Callable[[], Authority], complete: asyncio.Event, debug_port: int
    ) -> tuple[grpc.aio.Server, Ports]:
        settings = self._settings
        signing = CertificateService(
            settings,
            authority,
            self._authenticator,
            self._pods,
            self._counters,
            self._proxies.messages,
            clock=time.monotonic,
            wall=self._wall,
        )
        self._authenticator.on_stranger = self._guard.distrust
        self._discovery.on_caller = self._proxies.on_caller = signing.on_caller = self._guard.admit
        server = make_server(self._discovery, signing, complete)
        certificate = ServerCertificate(authority, settings.server_names, self._wall)
        tls = listen_tls(server, settings.tls_address, settings.tls_port, certificate.credentials())
        plain = listen_plain(server, settings.plain_port) if settings.plain_port is not None else 0
        await server.start()
        return server, Ports(tls, plain, debug_port)

    def _writers(self, state: TrustState) -> tuple[TrustKeeper, RootPublisher, Leadership]:
        namespaces = self._feed.informers["namespaces"]
        keeper = TrustKeeper(
            self._client,
            self._settings,
            state,
            lambda: acknowledged(self._pods.trusts(self._settings.node_accounts), self._pods.capturing_nodes),
            leading=self._leading,
            clock=time.monotonic,
            wall=self._wall,
            changed=lambda: self._retrusted(publisher),
        )
        publisher = RootPublisher(self._client, lambda: keeper.trust, namespaces.items, self._leading)

        def on_start() -> None:
            publisher.look_again()
            keeper.wake()
            self._status.started_leading(self._feed.authorizations.values())
            self._reporter.wake()
            self._addresses.started_leading()
            self._objects.started_leading()
            self._waypoints.started_leading()

        leadership = Leadership(
            self._client,
            self._settings.system_namespace,
            CONTROL_LEASE,
            self._settings.instance,
            clock=time.monotonic,
            wall=self._wall,
            on_start=on_start,
        )
        namespaces.subscribe(publisher.namespace_changed)
        self._feed.informers["pods"].subscribe(lambda _, old, new: self._pod_changed(keeper, old, new))
        return keeper, publisher, leadership

    def _trusted(self) -> Trust | None:
        return self._keeper.trust if self._keeper is not None else None

    def _retrusted(self, publisher: RootPublisher) -> None:
        publisher.look_again()
        self._proxies.retrust()

    def _pod_changed(self, keeper: TrustKeeper, old: Pod | None, new: Pod | None) -> None:
        """A node may have acknowledged, or be gone."""
        pod = new or old
        if pod is not None and (pod.metadata.namespace, pod.service_account) in self._settings.node_accounts:
            keeper.wake()

    def _answered(self, node: str) -> None:
        self._status.answered()
        self._proxies.node_answered(node)
        self._reporter.wake()

    def _refused(self, origin: ObjectRef) -> None:
        self._objects.look_again(origin)
        self._reporter.wake()

    def _gone(self, node: str) -> None:
        """A node that moved to another replica is waited for there. All are gone when this process ends."""
        if self._ready:
            self._answered(node)

    def _seen(self, kind: str, key: tuple[str, str], version: str) -> None:
        origin = ObjectRef(kind, *key)
        self._objects.seen(origin, version)
        self._status.seen(origin, version)

    def _compiled(self, changes: Sequence[Change], delta: MeshDelta) -> None:
        self._proxies.take(delta)
        self._proxies.ruled.compiled(delta, self._discovery.store.revision(ADDRESS_TYPE))
        self._handing_over.compiled()
        self._keys.compiled(delta.tokens)
        self._reporter.compiled(changes)
        self._status.compiled(changes, delta)
        self._objects.compiled(delta)
        self._waypoints.compiled(changes, delta)

    def _rekeyed(self, sources: Collection[KeySource]) -> None:
        self._proxies.rekey(self._keys.keys)
        self._feed.rekeyed(sources)

    def _amended(self, status: Status) -> Status:
        return self._keys.amended(self._proxies.amended(self._waypoints.amended(status)))

    def _leading(self) -> bool:
        return self._leadership is not None and self._leadership.leading

    def _routes(self) -> dict[str, Handler]:
        return {
            "/metrics": self._metrics,
            "/healthz/ready": self._readiness,
            "/version": lambda _: json_response({"version": __version__}),
            "/debug/syncz": lambda _: json_response(self._discovery.status()),
            "/debug/proxies": lambda _: json_response(self._proxies.status()),
            "/debug/trust": self._trust,
            "/debug/findings": lambda _: json_response(
                {
                    "findings": sorted((*self._feed.findings, *self._keys.findings)),
                    "undecodable": self._feed.undecodable,
                    "refused": self._feed.refused,
                }
            ),
        }

    def _readiness(self, _: Request) -> Response:
        if self._ready:
            return Response(b"ready\n")
        waiting = [name for name, each in self._feed.informers.items() if not each.is_synced]
        text = f"not ready, waiting for: {', '.join(waiting) or 'its own start'}\n"
        return Response(text.encode(), 503)

    def _trust(self, _: Request) -> Response:
        if self._keeper is None:
            return Response(b"not loaded yet\n", 503)
        return json_response(self._keeper.status())

    def _metrics(self, _: Request) -> Response:
        store = self._discovery.store
        lines = family(
            "ambit_xds_resources",
            "gauge",
            "Resources served, by type.",
            [((("type", kind),), len(store.resources(kind))) for kind in TYPES],
        )
        lines += family("ambit_xds_nodes", "gauge", "Connected nodes.", [((), self._discovery.connected)])
        lines += family(
            "ambit_connections_ended_total",
            "counter",
            "Connections to the TLS port ended because nobody showed a valid token on them.",
            [((), self._guard.ended)],
        )
        lines += self._keeper.metrics() if self._keeper is not None else []
        text = "\n".join([*lines, self._counters.render()])
        return Response(text.encode(), content_type=PROMETHEUS_TEXT)


def _plan_settings(settings: Settings) -> NodeSettings:
    return NodeSettings(
        node="",
        network=settings.network,
        trust_domain=settings.trust_domain,
        trust_domain_aliases=settings.trust_domain_aliases,
        cluster_id=settings.cluster_id,
    )


async def _patiently(action: Callable[[], Awaitable[T]]) -> T:
    """What `action` returns, tried again while the API server is away or refuses (it may still be starting)."""
    delay = RETRY_FIRST
    while True:
        try:
            return await action()
        except (ApiError, Unreachable) as error:
            event(log, logging.WARNING, "the API server does not answer as needed", reason=error.message)
        await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        delay = min(RETRY_MAX, delay * 2)
