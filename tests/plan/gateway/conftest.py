"""A gateway at the edge with a real Envoy, told what is compiled from objects, in front of two servers."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ambit.agent.record import End
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.request_policy import RequestPolicy
from ambit.model.view import Snapshot
from ambit.plan.l7 import gateway, waypoint
from ambit.plan.node import node_proxy
from ambit.plan.values import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES, SECRET, NodeSettings
from ambit.proxy.flows.collector import RequestCollector
from tests.ingest.build import Given, pod, service
from tests.ingest.test_mesh import compiler
from tests.plan.dataplane import network as hosts
from tests.plan.dataplane.agent import LogSocket
from tests.plan.dataplane.conftest import Authority, next_base_id
from tests.plan.dataplane.served import ServedEnvoy, until
from tests.plan.waypoint.echo import Answer, Echo, ask

TARGET = 8080
IDENTITY = Identity("cluster.local", "default", "edge-ambit")
_ORDER = (SECRET, CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES)


class Edge(ServedEnvoy):
    """The Envoy of the Gateway `edge`. `apply` compiles these objects, with the services `one` and `two`."""

    def __init__(self, directory: Path, network: hosts.Network) -> None:
        super().__init__(directory, "edge", _ORDER)
        self.requests = RequestCollector(
            proxy="default/edge", node="node1", own=End("", workload_name="edge", identity=IDENTITY.uri)
        )
        self._logs = LogSocket(self.directory / "logs.sock", self._logged)
        self.host = network.host("edge")
        self.client = network.host("client")
        self.authority = Authority()
        self.servers = {name: network.host(name) for name in ("one", "two")}
        self.echoes = {name: Echo(host, name, TARGET) for name, host in self.servers.items()}

    def start(self) -> None:
        self.apply()
        bootstrap = waypoint.bootstrap("edge", run=str(self.directory))
        self.begin(bootstrap, next_base_id(), "ip", "netns", "exec", self.host.netns.name)

    def stop(self) -> None:
        super().stop()
        self._logs.close()

    def _logged(self, message: bytes) -> None:
        with self.lock:
            self.requests.take(message)

    def apply(self, *objects: Given, authorization: Sequence[RequestPolicy] = ()) -> None:
        """Nothing but these, and these policies; waits until Envoy has taken everything."""
        given = [service(name, {"app": name}) for name in self.servers]
        given += [
            pod(name, str(host.four), labels={"app": name}, redirected=False)
            for name, host in self.servers.items()
        ]
        made = compiler(*given, *objects)
        proxy = made.proxies.get("default/edge")
        chain, key = self.authority.certificate(IDENTITY.uri)
        wanted = [
            node_proxy.trust_bundle({"cluster.local": self.authority.root}),
            node_proxy.secret(names.server_secret(IDENTITY), chain_pem=chain, key_pem=key),
        ]
        if proxy is not None:
            routes = {each.listener: each for each in made.listener_routes.values()}
            view = Snapshot(made.workloads.values(), made.services.values())
            shown = made.certificates.get(proxy.key)
            attached = gateway.Attached(
                routes,
                tuple(made.tokens.values()),
                certificates=shown.pairs if shown is not None else (),
                datagrams=made.datagrams,
                telemetry=tuple(made.telemetry.values()),
                authorization=(*made.request_policies.values(), *authorization),
            )
            wanted += gateway.resources(proxy, attached, view, NodeSettings(node=""))
        with self.lock:
            self.replace(wanted)
        until(self.has_all, "a gateway that has all it needs")
        assert not self.rejections, self.rejections

    def get(
        self, host: str = "shop.example.com", path: str = "/", *, port: int = 80, **headers: str
    ) -> Answer:
        """The answer to one request on a connection of its own; `_` in names of headers stands for `-`."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return ask(self.client.connect(self.host.four, port), path, host=host, headers=named)

    def said(self, host: str, path: str = "/", *, port: int = 80) -> str:
        """Who answers: a server, or the gateway with a status."""
        return self.get(host, path, port=port).server


@pytest.fixture(scope="package")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with hosts.Network() as network:
        made = Edge(tmp_path_factory.mktemp("edge"), network)
        try:
            made.start()
            yield made
        finally:
            made.stop()
            for echo in made.echoes.values():
                echo.close()
