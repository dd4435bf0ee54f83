"""A waypoint with a real Envoy in front of two versions of a service, or none and both nodes do what it would; and
clients on another node."""

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ambit.agent.record import Flow
from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.core.names import INLINE_CLASS
from ambit.envoy import names
from ambit.model.http import Entry, Host
from ambit.model.proxy import Proxy, ProxyKind, ServiceRoutes
from ambit.model.service import AppProtocol, Service, VirtualAddress
from ambit.model.view import Snapshot
from ambit.model.workload import GatewayAddress, Port, TunnelProtocol, Workload
from ambit.plan.l7 import waypoint
from ambit.plan.node import node_proxy
from ambit.plan.node.node_proxy import NodeSettings
from ambit.plan.values import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES, SECRET, PlannedResource
from ambit.proxy.flows.collector import RequestCollector
from tests.plan.collector import GRPC_PORT, HTTP_PORT, Collector
from tests.plan.dataplane import network as hosts
from tests.plan.dataplane.agent import LogSocket
from tests.plan.dataplane.conftest import Mesh, Pod, next_base_id
from tests.plan.dataplane.served import ServedEnvoy, until
from tests.plan.waypoint.echo import Answer, Echo, ask
from tests.plan.waypoint.placements import INLINE, WAYPOINT, make_bound, make_inline

PORT, PLAIN_PORT, TCP_PORT = 80, 81, 82
"""Of the service: HTTP, HTTP without a tunnel to the endpoint, bytes."""
TARGET = 8080
IDENTITY = Identity("cluster.local", "default", "waypoint")
_ORDER = (SECRET, CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES)


def service(name: str, number: int, *, bound: bool = True, **more: object) -> Service:
    """A service with ports PORT (HTTP) and TCP_PORT."""
    waypoint_of = GatewayAddress(15008, namespace="default", hostname="waypoint.default.svc.cluster.local")
    fields: dict[str, object] = {
        "name": name,
        "namespace": "default",
        "hostname": f"{name}.default.svc.cluster.local",
        "addresses": (VirtualAddress("", ipaddress.ip_address(f"10.96.1.{number}")),),
        "ports": (Port(PORT, TARGET), Port(TCP_PORT, 9000)),
        "app_protocols": {PORT: AppProtocol.HTTP11, TCP_PORT: AppProtocol.TCP},
        "waypoint": waypoint_of if bound else None,
        "canonical": True,
    }
    return Service(**{**fields, **more})  # type: ignore[arg-type]


WEB = service("web", 1)
V1, V2 = service("web-v1", 2, bound=False), service("web-v2", 3, bound=False)
EMPTY = service("empty", 4)
OUTSIDE = service("outside", 5)
BOUND = (WEB, EMPTY, OUTSIDE)
STANDING = service("standing", 10, bound=False, ports=(Port(PORT, 9),), inline=())
"""Never asked. For its sake tunnels into both pods always go by a table, so that no change of placement drains them."""
WAYPOINT_SERVICE = Service(
    "waypoint",
    "default",
    "waypoint.default.svc.cluster.local",
    addresses=(VirtualAddress("", ipaddress.ip_address("10.96.1.9")),),
    ports=(Port(15008, 15008),),
)
COLLECTOR = Service(
    "collector",
    "default",
    "collector.default.svc.cluster.local",
    addresses=(VirtualAddress("", ipaddress.ip_address("10.96.1.30")),),
    ports=(Port(GRPC_PORT, GRPC_PORT), Port(HTTP_PORT, HTTP_PORT)),
    canonical=True,
)
PROXY = Proxy(
    "default/waypoint",
    ProxyKind.WAYPOINT,
    IDENTITY,
    WAYPOINT_SERVICE.hostname,
    ObjectRef("Gateway", "default", "waypoint"),
)


class Waypoint(ServedEnvoy):
    """The Envoy of a waypoint in a namespace of its own."""

    def __init__(self, directory: Path, mesh: Mesh, host: hosts.Host) -> None:
        super().__init__(directory, "waypoint", _ORDER)
        self.requests = RequestCollector(proxy=PROXY.key, node="node1")
        """Of all requests since the start."""
        self._logs = LogSocket(self.directory / "logs.sock", self._logged)
        self.mesh = mesh
        self.host = host
        self.workload = Workload(
            uid="Kubernetes//Pod/default/waypoint",
            name="waypoint",
            namespace="default",
            identity=IDENTITY,
            addresses=host.addresses,
            services={WAYPOINT_SERVICE.key: (Port(15008, 15008),)},
            tunnel=TunnelProtocol.NONE,
        )

    def start(self) -> None:
        self.sync(waypoint.Bound())
        bootstrap = waypoint.bootstrap("waypoint", run=str(self.directory))
        self.begin(bootstrap, next_base_id(), "ip", "netns", "exec", self.host.netns.name)

    def stop(self) -> None:
        super().stop()
        self._logs.close()

    def told(self) -> list[Flow]:
        """Records of all requests, newest first."""
        with self.lock:
            return list(self.requests.newest())

    def _logged(self, message: bytes) -> None:
        with self.lock:
            self.requests.take(message)

    def sync(self, bound: waypoint.Bound) -> None:
        workloads = [*(pod.workload for pod in self.mesh.pods.values()), *self.mesh.others]
        view = Snapshot(workloads, self.mesh.services)
        self.give(waypoint.resources(PROXY, bound, view, NodeSettings(node="")))

    def give(self, resources: Iterable[PlannedResource]) -> None:
        """Exactly these, and the waypoint's certificate; waits until Envoy has taken all of them."""
        chain, key = self.mesh.certificates(IDENTITY.uri)
        wanted = [
            node_proxy.trust_bundle({"cluster.local": self.mesh.authority.root}),
            node_proxy.secret(names.server_secret(IDENTITY), chain_pem=chain, key_pem=key),
            *resources,
        ]
        with self.lock:
            self.replace(wanted)
        until(self.has_all, "a waypoint that has all it needs")
        assert not self.rejections, self.rejections


class Scene:
    """All of it. `route` gives the service `web` a table; `get` asks it from the client. `placement` is where requests
    are read."""

    def __init__(self, mesh: Mesh, waypoint: Waypoint) -> None:
        self.placement = WAYPOINT
        self.mesh = mesh
        self.waypoint = waypoint
        self.client = mesh.pods["client"]
        self.echoes = {name: Echo(mesh.pods[name], name, TARGET) for name in ("v1", "v2")}
        plain = mesh.network.host("plain")
        self.outside = plain
        """No pod, so nothing captures what it sends."""
        self.echoes["plain"] = Echo(plain, "plain", TARGET)
        mesh.pods["v1"].listen(9000)
        for host in (mesh.pods["v1"], plain):
            host.listen(9001)
        keys = {"v1": [WEB, V1, STANDING], "v2": [V2, STANDING]}
        for name, services in keys.items():
            pod = mesh.pods[name]
            ports = {each.key: each.ports for each in services}
            pod.workload = msgspec.structs.replace(pod.workload, services=ports)
        for name, pod in mesh.pods.items():
            pod.workload = msgspec.structs.replace(
                pod.workload,
                workload_name=f"{name}-deployment",
                canonical_name=name,
                canonical_revision="one",
            )
        outside = Workload(
            uid="Kubernetes/networking.istio.io/WorkloadEntry/default/plain",
            name="plain",
            namespace="default",
            identity=Identity("cluster.local", "default", "default"),
            addresses=plain.addresses,
            services={OUTSIDE.key: OUTSIDE.ports},
        )
        mesh.others = [waypoint.workload, outside]
        mesh.services = [WEB, V1, V2, EMPTY, OUTSIDE, WAYPOINT_SERVICE, STANDING]

    def bind(self, *routes: ServiceRoutes, workloads: tuple[Workload, ...] = (), **policies: Any) -> None:
        """`policies` are further fields of what is bound."""
        bound = waypoint.Bound(BOUND, {each.key: each for each in routes}, workloads, **policies)
        if self.placement == INLINE:
            make_inline(self.mesh, bound)
        else:
            self.waypoint.sync(bound)

    def settle(self) -> None:
        """Waits until what is asked next comes in where all is as it was bound last."""
        self.waypoint.settle()
        self.mesh.settle()

    @property
    def of_class(self) -> str:
        """Of the waypoint's Gateway."""
        return INLINE_CLASS if self.placement == INLINE else "istio-waypoint"

    def place(self, placement: str) -> None:
        """From now on requests are read there."""
        if placement == self.placement:
            return
        self.placement = placement
        if placement == WAYPOINT:
            make_bound(self.mesh, BOUND)
            return
        self.bind()
        # Who has asked for something once has the listener that reads it.
        for name in ("client", "other", "v2"):
            for each in BOUND:
                until(lambda name=name, each=each: self._is_answered(name, each), "an answer")  # type: ignore[misc]

    def _is_answered(self, name: str, service: Service) -> bool:
        try:
            return self.get(to=service, source=self.mesh.pods[name]).status in (200, 503)
        except OSError:
            return False

    def bind_workload(self, name: str) -> Iterator[Workload]:
        """A pod, or what is no pod, passes through the waypoint when it is called by its own address."""
        address = WEB.waypoint
        pod = self.mesh.pods.get(name)
        before = (
            pod.workload if pod is not None else next(each for each in self.mesh.others if each.name == name)
        )
        workload = msgspec.structs.replace(before, waypoint=address)
        others = self.mesh.others
        if pod is not None:
            pod.workload = workload
        else:
            self.mesh.others = [workload if each is before else each for each in others]
        self.mesh.update()
        self.bind(workloads=(workload,))
        try:
            yield workload
        finally:
            self.mesh.others = others
            if pod is not None:
                pod.workload = before
            self.mesh.update()

    def route(self, *entries: Entry, domains: tuple[str, ...] = ("*",)) -> None:
        """Requests to `web` are answered by these entries."""
        self.bind(ServiceRoutes(WEB.key, PORT, (Host(domains, entries),)))

    def get(
        self,
        path: str = "/",
        *,
        to: Service | Workload = WEB,
        port: int = PORT,
        source: Pod | None = None,
        method: str = "GET",
        host: str = "web",
        body: bytes | None = None,
        **headers: str,
    ) -> Answer:
        """The answer to one request on a connection of its own; `_` in names of headers stands for `-`. A workload is
        called by its own address."""
        address = to.addresses[0].address if isinstance(to, Service) else to.addresses[0]
        sock = (source or self.client).connect(address, port)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return ask(sock, path, method=method, host=host, headers=named, body=body)


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("mesh")
    with hosts.Network() as network:
        mesh = Mesh(directory, network)
        for name in ("node1", "node2"):
            mesh.node(name)
        for name, node in (("client", "node1"), ("other", "node1"), ("v1", "node2"), ("v2", "node2")):
            mesh.pod(name, node, name)
        proxy = Waypoint(directory, mesh, network.host("wp"))
        scene = Scene(mesh, proxy)
        try:
            mesh.update()
            for agent in mesh.agents.values():
                agent.start(next_base_id())
            proxy.start()
            yield scene
        finally:
            proxy.stop()
            mesh.close()
            for echo in scene.echoes.values():
                echo.close()


@pytest.fixture(scope="module", params=[WAYPOINT, INLINE])
def placement(running: Scene, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where requests are read: `at_waypoints_only` is for what cannot be at both."""
    running.place(request.param)
    yield request.param
    running.place(WAYPOINT)


@pytest.fixture
def scene(running: Scene, placement: str) -> Scene:
    """Nothing but the bound services, without routes."""
    running.bind()
    for echo in running.echoes.values():
        echo.seen.clear()
    return running


@pytest.fixture(scope="module")
def collector(running: Scene) -> Iterator[Collector]:
    """Behind the pod `other`, in the mesh."""
    pod, services = running.mesh.pods["other"], running.mesh.services
    before = pod.workload
    pod.workload = msgspec.structs.replace(before, services={COLLECTOR.key: COLLECTOR.ports})
    running.mesh.services = [*services, COLLECTOR]
    running.mesh.update()
    made = Collector(pod)
    try:
        yield made
    finally:
        made.close()
        pod.workload, running.mesh.services = before, services
        running.mesh.update()
