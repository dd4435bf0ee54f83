"""Two nodes with a real Envoy each, and pods in network namespaces."""

import asyncio
import datetime as dt
import ipaddress
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.core.address import Address
from ambit.core.identity import Identity
from ambit.model.policy import Authorization
from ambit.model.service import Service, VirtualAddress
from ambit.model.view import Snapshot
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.node.capture import apply, ruleset
from ambit.node.flows.entry import About
from ambit.plan.node.node_proxy import LocalPod, NodeSettings
from tests.plan.dataplane.agent import Agent
from tests.plan.dataplane.network import TIMEOUT, Host, Network
from tests.plan.dataplane.served import until


def next_base_id() -> int:
    """A number for Envoy's shared memory that no other Envoy of this machine has."""
    return secrets.randbits(26)


class Authority:
    """Signs SPIFFE certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "test")])
        builder = self._builder(self._key.public_key(), self._name, authority=True)
        self.root = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def certificate(self, *names: str) -> tuple[str, str]:
        """Chain and key, for URIs and DNS names."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = (x509.UniformResourceIdentifier(each) if ":" in each else x509.DNSName(each) for each in names)
        extension = x509.SubjectAlternativeName(made)
        builder = self._builder(key.public_key(), x509.Name([]), authority=False).add_extension(
            extension, True
        )
        chain = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return chain, private.decode()

    def _builder(
        self, key: ec.EllipticCurvePublicKey, subject: x509.Name, *, authority: bool
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        hour = dt.timedelta(hours=1)
        usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - hour)
            .not_valid_after(now + hour)
            .add_extension(x509.BasicConstraints(authority, None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
        )


class Pod(Host):
    """An enrolled pod, captured without NAT: a host with a workload on a node."""

    def __init__(self, host: Host, agent: Agent, name: str, account: str) -> None:
        super().__init__(host.netns, host.four, host.six)
        self.agent = agent
        self.identity = Identity("cluster.local", "default", account)
        self.workload = Workload(
            uid=f"Kubernetes//Pod/default/{name}",
            name=name,
            namespace="default",
            identity=self.identity,
            addresses=self.addresses,
            tunnel=TunnelProtocol.HBONE,
            node=agent.settings.node,
        )
        self.local = LocalPod(
            uid=f"uid-{name}",
            namespace="default",
            name=name,
            sandbox=f"s-{name}",
            identity=self.identity,
            addresses=self.addresses,
            netns=str(host.netns),
            transparent=True,
        )

    def connect(self, address: Address | str, port: int, *, timeout: float = TIMEOUT) -> socket.socket:
        """As that of any host, after the way there was prepared."""
        self.agent.prepare(self.local.key, ipaddress.ip_address(str(address)), port)
        return super().connect(address, port, timeout=timeout)


class Mesh:
    """The whole of it. `update` makes both nodes see a new state of the mesh."""

    def __init__(self, directory: Path, network: Network) -> None:
        self.network = network
        self._directory = directory
        self.authority = Authority()
        self.certificates = cache(self.authority.certificate)
        self.agents: dict[str, Agent] = {}
        self.pods: dict[str, Pod] = {}
        self.others: list[Workload] = []
        self.services: list[Service] = []
        self.policies: list[Authorization] = []

    def node(self, name: str) -> Agent:
        self.agents[name] = Agent(
            self._directory,
            NodeSettings(node=name),
            {"cluster.local": self.authority.root},
            lambda uri: self.certificates(uri),
        )
        return self.agents[name]

    def pod(self, name: str, node: str, account: str) -> Pod:
        pod = Pod(self.network.host(name), self.agents[node], name, account)
        self.pods[name] = pod
        pod.agent.pods[pod.local.key] = pod.local
        capture = ruleset.Capture(dns=False, transparent=True, addresses=pod.local.addresses)
        asyncio.run(apply.redirect(pod.local.netns, capture))
        return pod

    def update(self) -> None:
        workloads = [*(pod.workload for pod in self.pods.values()), *self.others]
        view = Snapshot(workloads, self.services, self.policies)
        for agent in self.agents.values():
            agent.view = view
            agent.sync()

    def serve(self, service_key: str, targets: Mapping[str, int]) -> None:
        """Exactly these pods are endpoints of a service, each on its port."""
        for name, pod in self.pods.items():
            services = {service_key: (Port(80, targets[name]),)} if name in targets else {}
            pod.workload = msgspec.structs.replace(pod.workload, services=services)
        self.update()

    def trust(self, roots: str, authority: Authority) -> None:
        """Both nodes trust `roots` and get certificates of `authority`."""
        self.certificates = cache(authority.certificate)
        for agent in self.agents.values():
            agent.roots = {"cluster.local": roots}
        self.update()

    def settle(self) -> None:
        """As `ServedEnvoy.settle`, of every node."""
        for agent in self.agents.values():
            agent.settle()

    def pause(self, seconds: float) -> None:
        """Lets real time pass, where the absence of an event is what is tested."""
        threading.Event().wait(seconds)

    def close(self) -> None:
        for agent in self.agents.values():
            agent.stop()


def tunnel_log(mesh: Mesh, server: Pod, port: int, *, count: int) -> list[About]:
    """What an HBONE listener logged about tunnels to this port of `server`, when there is as much as expected."""

    def entries() -> list[About]:
        return [
            about
            for about, _ in server.agent.log
            if about.kind == "inbound"
            and about.destination.endswith(f":{port}")
            and about.pod == server.local.key
        ]

    until(lambda: len(entries()) >= count, f"{count} entries about port {port}")
    return entries()


def log_of(agent: Agent, kind: str, target: str, failure: str = "") -> About:
    """The newest entry of a TCP listener about this original destination."""

    def entries() -> list[About]:
        return [
            about
            for about, _ in agent.log
            if about.kind == kind and about.destination == target and failure in about.failure
        ]

    until(lambda: bool(entries()), f"an entry about {target}")
    return entries()[-1]


class WebService(Service, frozen=True):
    """A service on port 80."""

    def ports_of(self, target: int) -> dict[str, tuple[Port, ...]]:
        """What a workload says that serves it on `target`."""
        return {self.key: (Port(80, target),)}


def service(*addresses: str) -> WebService:
    return WebService(
        name="web",
        namespace="default",
        hostname="web.default.svc.cluster.local",
        addresses=tuple(VirtualAddress("", ipaddress.ip_address(each)) for each in addresses),
        ports=(Port(80, 0),),
    )


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path_factory.mktemp("mesh"), network)
    for name in ("node1", "node2"):
        mesh.node(name)
    for name, node, account in (
        ("a", "node1", "client"),
        ("b", "node1", "other"),
        ("twin", "node1", "client"),
        ("near", "node1", "server"),
        ("far", "node2", "server"),
        ("far2", "node2", "server2"),
    ):
        mesh.pod(name, node, account)
    try:
        mesh.update()
        for agent in mesh.agents.values():
            agent.start(next_base_id())
        yield mesh
    finally:
        mesh.close()


@pytest.fixture
def mesh(running: Mesh) -> Iterator[Mesh]:
    """The running mesh, put back afterwards to one without services and policies."""
    yield running
    running.services, running.policies, running.others = [], [], []
    for pod in running.pods.values():
        pod.workload = msgspec.structs.replace(pod.workload, identity=pod.identity, policies=())
    running.serve("", {})


@pytest.fixture(params=["straight", "hop"])
def way(running: Mesh, request: pytest.FixtureRequest) -> Iterator[str]:
    """How connections get into their tunnel: both ways must be right, whichever a connection takes."""
    _hop(running, request.param == "hop")
    yield request.param
    _hop(running, False)


def _hop(mesh: Mesh, is_hopping: bool) -> None:
    for agent in mesh.agents.values():
        agent.is_hopping = is_hopping
        agent.log.clear()
    mesh.update()


@pytest.fixture(scope="module")
def outside(network: Network) -> Host:
    """A host that is no pod of the mesh."""
    return network.host("outside")
