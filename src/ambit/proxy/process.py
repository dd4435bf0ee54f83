"""The agent of an L7 proxy: its parts, made and joined, from start to the end of the pod."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING

from ambit import __version__
from ambit.agent import connection_metrics, datagram_metrics
from ambit.agent import request_metrics as metrics
from ambit.agent.authority import Authority
from ambit.agent.binary import envoy_binary
from ambit.agent.certificates import Certificates
from ambit.agent.channel import ControlPlane
from ambit.agent.csr import Certificate
from ambit.agent.envoy_server import EnvoyServer
from ambit.agent.logs import LogServer
from ambit.agent.record import End
from ambit.core.errors import BadInput, Unreachable, first_failure
from ambit.core.names import DNS_PORT
from ambit.daemon.http import PROMETHEUS_TEXT, Handler, Request, Response, json_response, serve
from ambit.envoy import names
from ambit.model.metrics import MetricsNote
from ambit.model.server_names import NamesNote
from ambit.plan.authority import AuthorityNote
from ambit.plan.l7 import waypoint
from ambit.plan.node import node_proxy
from ambit.plan.values import SECRET
from ambit.proxy.envoy import Command, Envoy
from ambit.proxy.flows.collector import RequestCollector
from ambit.proxy.last_good import LastGood
from ambit.proxy.relay import Notes, Relay
from ambit.proxy.settings import ProxySettings
from ambit.xds.frames import Node, Resource

if TYPE_CHECKING:
    from ambit.proxy.resolver import Resolver

_log = logging.getLogger("ambit.proxy")


class ProxyAgent:
    """`run` is its whole life."""

    def __init__(self, settings: ProxySettings) -> None:
        self._settings = settings
        control = ControlPlane(
            settings.control,
            settings.root_cert,
            settings.token,
            settings.cluster_id,
            settings.server_name,
        )
        self._authority = Authority(control, settings.certificate_lifetime)
        self._last_good = LastGood(settings.run / "last-good.db")
        self._certificates = Certificates(self._authority.sign, self._last_good, self._certified)
        self._server = EnvoyServer(settings.run / "xds.sock", lambda *_: None, waypoint.refused_policy)
        self.requests = RequestCollector(
            proxy=f"{settings.namespace}/{settings.gateway}", node=settings.node_name, own=_own(settings)
        )
        self._logs = LogServer(settings.run / "logs.sock", self.requests.take)
        node = Node(id=settings.node, cluster=settings.gateway, metadata={"VERSION": __version__})
        self._envoy = Envoy(
            Command(envoy_binary(), settings.run / "bootstrap.pb", settings.concurrency),
            settings.run,
        )
        self._overrides = MetricsNote()
        self._resolver: Resolver | None = None
        notes = Notes(self._noted, self._counted, self._named)
        self._relay = Relay(control, node, self._server, self._last_good, notes, self._envoy.warm)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set and requests under way have ended. Raises AmbitError when it cannot work."""
        settings = self._settings
        settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(settings.run, 0o700)
        self._last_good.open()
        (settings.run / "bootstrap.pb").write_bytes(waypoint.bootstrap(settings.node, run=str(settings.run)))
        counted: Mapping[str, Handler] = {"/stats/prometheus": self._metrics, "/metrics": self._metrics}
        servers = [
            await serve("", settings.readiness_port, {"/healthz/ready": self._ready}),
            await serve("", settings.metrics_port, counted),
            await serve("127.0.0.1", settings.admin_port, {**counted, **self._debug()}),
        ]
        await self._logs.start()
        adopted = self._envoy.adopt()
        self._certificates.want(settings.identity)
        if self._relay.restore():
            _log.info("serving what the former agent of this pod kept, until the control plane answers")
        try:
            async with asyncio.TaskGroup() as tasks:
                work = (
                    self._relay.run(),
                    self._certificates.run(),
                    self._envoy.run(),
                    self._serve_envoy(adopted),
                )
                running = [tasks.create_task(each) for each in work]
                _log.info("the agent of %s/%s runs", settings.namespace, settings.gateway)
                await stop.wait()
                _log.info("stopping when requests under way have ended, in %g s at most", settings.drain)
                await self._envoy.drain(settings.drain, settings.least_drain)
                for task in running:
                    task.cancel()
            await self._envoy.stop()
        except BaseExceptionGroup as several:
            raise first_failure(several) from several
        finally:
            for server in servers:
                server.close()
            if self._resolver is not None:
                self._resolver.close()
            self._logs.stop()
            await self._authority.close()
            await self._server.stop()
            self._last_good.close()

    async def _serve_envoy(self, adopted: bool) -> None:
        """Serves Envoy its configuration. An adopted Envoy has one, and would drop what is not known here yet."""
        if adopted:
            await self._relay.complete.wait()
        await self._server.start()

    async def unready(self) -> list[str]:
        """What is missing before it can serve; empty when nothing is."""
        missing = []
        if self._certificates.get(self._settings.identity) is None:
            (state,) = self._certificates.states()
            missing.append(f"no certificate: {state.problem or 'asked for'}")
        if not self._relay.complete.is_set():
            missing.append(
                f"no configuration from the control plane: {self._relay.stream.problem or 'asked for'}"
            )
        elif not await self._envoy.is_live():
            missing.append("Envoy does not serve yet")
        return missing

    def _certified(self, certificate: Certificate) -> None:
        secret = node_proxy.secret(
            names.server_secret(certificate.identity),
            chain_pem=certificate.chain.decode(),
            key_pem=certificate.key.decode(),
        )
        resource = Resource(
            name=secret.name, version=secret.version, body=secret.body, on_demand=secret.on_demand
        )
        self._server.publish([(SECRET, resource)])

    def _counted(self, note: MetricsNote) -> None:
        self._overrides = note

    def _named(self, note: NamesNote) -> None:
        """Before Envoy is given what asks for names. What resolves them is imported where there are any."""
        if self._resolver is None and note.patterns:
            from ambit.proxy.resolver import Resolver

            resolver = Resolver()
            try:
                resolver.start("127.0.0.1", DNS_PORT)
            except (OSError, BadInput) as problem:
                _log.error("nobody answers for names of clients' hellos: port %d: %s", DNS_PORT, problem)
                return
            self._resolver = resolver
        if self._resolver is not None:
            self._resolver.note = note

    def _noted(self, note: AuthorityNote) -> None:
        """The one certificate is renewed at once: nodes stop believing the former authority when they have done so."""
        self._certificates.follow(note.signer)
        serials = {int(each) for each in note.revoked}
        held = self._certificates.get(self._settings.identity)
        if held is not None and held.signer != note.signer:
            serials.add(held.serial)
        self._certificates.replace(serials)

    async def _ready(self, _: Request) -> Response:
        missing = await self.unready()
        if missing:
            return Response(f"not ready, pending: {'; '.join(missing)}\n".encode(), 503)
        return Response(b"ready\n")

    async def _metrics(self, _: Request) -> Response:
        try:
            told = await self._envoy.admin.get("/stats/prometheus")
        except Unreachable as problem:
            return Response(f"{problem.message}\n".encode(), 503)
        own = (
            ("ambit_proxy_connected", "gauge", int(self._relay.stream.connected)),
            ("ambit_proxy_envoy_restarts_total", "counter", self._envoy.restarts),
            (
                "ambit_metric_series",
                "gauge",
                len(self.requests.series)
                + len(self.requests.connections.series)
                + len(self.requests.sessions.series),
            ),
        )

        async def stream() -> AsyncGenerator[bytes, None]:
            for name, kind, value in own:
                yield f"# TYPE {name} {kind}\n{name} {value}\n".encode()
            for part in metrics.render(self.requests.series, self._overrides):
                yield part.encode()
            for line in connection_metrics.render(self.requests.connections.series, self._overrides):
                yield f"{line}\n".encode()
            for line in datagram_metrics.render(self.requests.sessions.series):
                yield f"{line}\n".encode()
            yield told

        return Response(content_type=PROMETHEUS_TEXT, stream=stream())

    def _debug(self) -> Mapping[str, Handler]:
        return {
            "/flows": self.requests.answer,
            "/version": self._versions,
        }

    async def _versions(self, _: Request) -> Response:
        try:
            envoy = (await self._envoy.admin.server_info()).release
        except Unreachable:
            envoy = ""
        return json_response({"version": __version__, "envoy": envoy})


def _own(settings: ProxySettings) -> End:
    """This proxy, as metrics call it."""
    return End(
        "",
        workload=settings.pod,
        workload_name=settings.service_account,
        namespace=settings.namespace,
        identity=settings.identity.uri,
        canonical_service=settings.gateway,
        canonical_revision="latest",
        cluster=settings.cluster_id,
    )
