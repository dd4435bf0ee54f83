"""The agent's ports: 15000 on loopback for people, 15020 for metrics, 15021 for readiness."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from ambit import __version__
from ambit.core.dns import Malformed
from ambit.core.errors import AmbitError
from ambit.daemon.http import PROMETHEUS_TEXT, Handler, Request, Response, json_response, port_of, serve
from ambit.model.service import Service
from ambit.node.connections import Open, look
from ambit.node.dns.explain import compare, explain
from ambit.node.process import NodeAgent
from ambit.node.serve import dump, metrics
from ambit.node.serve.open_connections import OpenConnections, open_connections, reported
from ambit.node.serve.settings_view import settings_view
from ambit.node.serve.status import node_view
from ambit.node.serve.udp import udp_of


class Endpoints:
    """Serves one agent's state until cancelled."""

    def __init__(self, agent: NodeAgent) -> None:
        self._agent = agent
        self.ports: tuple[int, ...] = ()
        """IPv4 ports for people, metrics and readiness, once they are served."""

    async def run(self) -> None:
        """Raises EnvironmentProblem when a port is taken."""
        settings = self._agent.settings
        ready: dict[str, Handler] = {"/healthz/ready": self._ready}
        counted: dict[str, Handler] = {"/metrics": self._metrics, "/stats/prometheus": self._metrics}
        servers = [
            await serve("127.0.0.1", settings.admin_port, {**self._debug(), **ready, **counted}),
            await serve("", settings.metrics_port, counted),
            await serve("", settings.readiness_port, ready),
        ]
        self.ports = tuple(port_of(server) for server in servers)
        try:
            async with asyncio.TaskGroup() as tasks:
                for server in servers:
                    tasks.create_task(server.serve_forever())
        finally:
            for server in servers:
                server.close()

    def _debug(self) -> Mapping[str, Handler]:
        return {
            "/config_dump": self._config_dump,
            "/connections": self._connections,
            "/certs": self._certs,
            "/dns": self._dns,
            "/flows": self._agent.flows.answer,
            "/status": self._status,
            "/version": lambda _: json_response(self._versions()),
            "/restart": self._restart,
        }

    def _ready(self, _: Request) -> Response:
        missing = self._agent.unready()
        if missing:
            return Response(f"not ready, pending: {', '.join(missing)}\n".encode(), 503)
        return Response(b"ready\n")

    async def _metrics(self, _: Request) -> Response:
        pods = tuple(self._agent.configuration.pods)
        udp = metrics.udp(pods, await udp_of(pods))
        text = "\n".join([*metrics.render(self._agent, __version__), *udp]) + "\n"
        return Response(text.encode(), content_type=PROMETHEUS_TEXT)

    async def _status(self, _: Request) -> Response:
        return json_response(await node_view(self._agent))

    async def _restart(self, request: Request) -> Response:
        """POST: hands over to a new Envoy; `?force=1` even when the older one still has connections."""
        if request.method != "POST":
            return Response(b"POST /restart\n", 405)
        try:
            await self._agent.supervisor.restart(force=request.query.get("force") == "1")
        except AmbitError as problem:
            return json_response({"error": problem.message, "hint": problem.hint}, 503)
        return json_response(await node_view(self._agent))

    def _certs(self, _: Request) -> Response:
        now = time.time()
        return json_response([dump.certificate_view(each, now) for each in self._agent.certificates.states()])

    async def _config_dump(self, _: Request) -> Response:
        agent = self._agent
        open_now = await self._open_now()
        pods: dict[str, Any] = {
            pod.uid: {
                "state": "Up",
                "info": {
                    "name": pod.name,
                    "namespace": pod.namespace,
                    "serviceAccount": pod.identity.service_account,
                },
                "connections": open_now[pod.key],
            }
            for pod in agent.configuration.pods
            if pod.key in open_now
        }
        config = msgspec.to_builtins(settings_view(agent))
        states = agent.certificates.states()
        parts = dump.config_dump(agent.state, states, pods, config, self._versions(), time.time())

        async def stream() -> AsyncGenerator[bytes, None]:
            for part in parts:
                yield part

        return Response(content_type="application/json", stream=stream())

    async def _dns(self, request: Request) -> Response:
        """`?pod=NAMESPACE/NAME&name=…`: why that pod gets the answer that it gets; without a name, how the answers of
        the mesh and of the pod's nameservers compare."""
        agent = self._agent
        asked = request.query.get("pod", "")
        pod = next(
            (each for each in agent.configuration.pods if f"{each.namespace}/{each.name}" == asked), None
        )
        proxy = agent.names.of(pod.uid) if pod is not None else None
        if proxy is None:
            why = (
                "keeps its DNS to itself" if pod is not None else f"is not captured on {agent.settings.node}"
            )
            return json_response({"error": f"pod {asked} {why}"}, 404)
        name = request.query.get("name", "")
        try:
            if name:
                return json_response(await explain(name, proxy, map(str, proxy.addresses)))
            services = (each for each in agent.state.addresses() if isinstance(each, Service))
            return json_response(await compare(proxy, services))
        except Malformed as problem:
            return json_response({"error": str(problem)}, 400)

    def _versions(self) -> dict[str, str]:
        return {"version": __version__, "envoy": self._agent.supervisor.version}

    async def _connections(self, _: Request) -> Response:
        """Everything that is open now, per pod."""
        return json_response(await self._open_now())

    async def _open_now(self) -> dict[str, OpenConnections]:
        agent = self._agent
        known = reported(agent.flows.open.values())
        found: dict[str, OpenConnections] = {}
        for pod in tuple(agent.configuration.pods):
            try:
                open_now = await asyncio.to_thread(look, pod, agent.pre_mesh.of(pod))
            except OSError:  # its namespace is just going
                open_now = Open()
            table = agent.configuration.table
            found[pod.key] = open_connections(pod, open_now, known, agent.state, table, agent.planned)
        return found
