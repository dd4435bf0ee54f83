"""Random policies: a real Envoy, configured by `plan`, decides every connection exactly as `policy.decide`.

One namespace holds all addresses; HBONE questions are CONNECT streams of real certificates, plaintext questions
real connections. So the compiler, Envoy's matchers and the written semantics are held together.
"""

import contextlib
import random
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.core.address import Address, host_port
from ambit.core.identity import Identity
from ambit.model.policy import Authorization
from ambit.model.view import Snapshot
from ambit.model.workload import Workload
from ambit.node.netns.enter import in_namespace
from ambit.plan.node_proxy import LocalPod, NodeSettings
from ambit.policy.decide import ConnectionFacts, decide
from tests.plan.dataplane.agent import Agent
from tests.plan.dataplane.conftest import Authority, next_base_id
from tests.plan.dataplane.connect_client import ConnectClient
from tests.plan.dataplane.network import Network, ip, listener
from tests.policy.strategies import DESTINATIONS, IDENTITIES, PORTS, SOURCES, random_policies

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
ROUNDS = 30
SERVER = Identity("cluster.local", "team-a", "server")
PAIRS = [(src, dst) for src in SOURCES for dst in DESTINATIONS if src.version == dst.version]
REDIRECT = """table inet lab {
  chain leaving {
    type nat hook output priority -100;
    meta mark & 0xfff == 0x539 return
    tcp dport { 80, 443, 8080 } redirect to :15006
  }
}
"""


class Lab:
    """One pod with one Envoy, and clients of every identity and address."""

    def __init__(self, directory: Path, network: Network) -> None:
        self._authority = Authority()
        self._directory = directory
        host = network.host("lab")
        self._netns = host.netns
        for address in (*SOURCES, *DESTINATIONS):
            ip("-n", host.netns.name, "addr", "add", f"{address}/{address.max_prefixlen}", "dev", "lo")
        subprocess.run(
            ["nsenter", f"--net={host.netns}", "nft", "-f", "-"], input=REDIRECT, text=True, check=True
        )
        self._servers = [in_namespace(host.netns, lambda port=port: listener(port)) for port in PORTS]
        self._workload = Workload(
            uid="w", name="server", namespace="team-a", identity=SERVER, addresses=DESTINATIONS, node="lab"
        )
        self._agent = Agent(
            directory,
            NodeSettings(node="lab"),
            {"cluster.local": self._authority.root},
            self._authority.certificate,
        )
        pod = LocalPod("u", "team-a", "server", "s", SERVER, DESTINATIONS, str(host.netns))
        self._agent.pods = {pod.key: pod}
        self._agent.view = Snapshot([self._workload])
        self._agent.start(next_base_id())
        self._clients = {
            (identity, *pair): ConnectClient(self._dial(*pair, 15008), self._context(identity))
            for identity in IDENTITIES
            for pair in PAIRS
        }

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        for server in self._servers:
            server.close()
        self._agent.stop()

    def apply(self, policies: tuple[Authorization, ...], missing: tuple[str, ...]) -> None:
        workload = Workload(
            **{name: getattr(self._workload, name) for name in self._workload.__struct_fields__}
        )
        self._agent.view = Fixed(workload, policies, missing)
        self._agent.sync()

    def is_allowed(self, facts: ConnectionFacts) -> bool:
        if facts.identity is not None:
            client = self._clients[facts.identity, facts.source, facts.destination]
            return client.is_allowed(host_port(facts.destination, facts.destination_port))
        server = self._servers[PORTS.index(facts.destination_port)]
        _forget_waiting(server)
        with self._dial(facts.source, facts.destination, facts.destination_port) as connection:
            return self._is_delivered(connection, server)

    def _is_delivered(self, connection: socket.socket, server: socket.socket) -> bool:
        """Either the server gets the connection, or the client's ends."""
        server.settimeout(0.002)
        connection.settimeout(0.002)
        while True:
            try:
                server.accept()[0].close()
            except TimeoutError:
                pass
            else:
                return True
            try:
                assert connection.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionResetError:
                return False
            return False

    def _dial(self, source: Address, destination: Address, port: int) -> socket.socket:
        return in_namespace(
            self._netns,
            lambda: socket.create_connection((str(destination), port), 10, source_address=(str(source), 0)),
        )

    def _context(self, identity: Identity) -> ssl.SSLContext:
        chain, key = self._authority.certificate(identity.uri)
        path = self._directory / "client.pem"
        path.write_text(key + chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self._authority.root)
        context.load_cert_chain(path)
        context.set_alpn_protocols(["h2"])
        return context


def _forget_waiting(server: socket.socket) -> None:
    """Connections that allowed tunnels left behind."""
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()


class Fixed(Snapshot):
    """A view of one workload to which exactly these policies apply."""

    def __init__(
        self, workload: Workload, policies: tuple[Authorization, ...], missing: tuple[str, ...]
    ) -> None:
        super().__init__([workload])
        self._answer = (tuple(sorted(policies, key=lambda policy: policy.key)), missing)

    def policies_for(self, workload: Workload) -> tuple[tuple[Authorization, ...], tuple[str, ...]]:
        return self._answer


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"), network)
    yield lab
    lab.close()


def test_envoy_decides_as_written(lab: Lab) -> None:
    seed = random.randrange(1 << 32)
    source = random.Random(seed)
    outcomes = set()
    for number in range(ROUNDS):
        policies = random_policies(source)
        missing = ("team-a/unknown",) if source.random() < 0.03 else ()
        lab.apply(policies, missing)
        asked = [
            ConnectionFacts(src, dst, port, identity)
            for src, dst in PAIRS
            for port in PORTS
            for identity in (*IDENTITIES, None)
        ]
        for facts in source.sample(asked, 30):
            wanted = decide(policies, facts, missing).allowed
            # Envoy acknowledges before its worker thread has taken the change.
            settled = any(lab.is_allowed(facts) == wanted for _ in range(20))
            assert settled, f"seed {seed}, round {number}: {facts} under {policies}"
            outcomes.add((wanted, facts.identity is None))
    assert len(outcomes) == 4
