"""Random policies: a real Envoy, configured by `plan`, decides every connection exactly as `policy.decide`.

One namespace holds all addresses; HBONE questions are CONNECT streams of real certificates, plaintext questions
real connections, and same-node questions connections of captured pods. So the compiler, Envoy's matchers and the
written semantics are held together.
"""

import asyncio
import contextlib
import random
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from ambit.core.address import Address, host_port
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.policy import Authorization
from ambit.model.view import Snapshot
from ambit.model.workload import Workload
from ambit.node.capture import apply, ruleset
from ambit.node.netns.enter import in_namespace
from ambit.plan.node.node_proxy import LocalPod, NodeSettings
from ambit.policy.decide import ConnectionFacts, decide, rule_name
from tests.plan.dataplane.agent import Agent
from tests.plan.dataplane.conftest import Authority, next_base_id
from tests.plan.dataplane.connect_client import ConnectClient
from tests.plan.dataplane.network import Network, ip, listener
from tests.plan.dataplane.served import until
from tests.policy.deciding import CHANGES, ENOUGH, deciding
from tests.policy.strategies import DESTINATIONS, IDENTITIES, PORTS, SOURCES, TRUST_DOMAINS, random_policies

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
PATIENCE = 60.0
ROUNDS = 120
QUESTIONS = 3
"""Per round and path: more than a thousand cases in all."""
HBONE, PLAINTEXT, SAME_NODE = "hbone", "plaintext", "same node"
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


CLIENTS = {
    (identity, four, six): f"{place}-{number}"
    for place, identity in enumerate(IDENTITIES)
    for number, (four, six) in enumerate(zip(SOURCES[:2], SOURCES[2:], strict=True))
}
"""Captured pods on the node, by identity and addresses. Some share an address: they lie in namespaces of their own."""


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
            NodeSettings(node="lab", trust_domain_aliases=TRUST_DOMAINS.aliases),
            dict.fromkeys(TRUST_DOMAINS, self._authority.root),
            self._authority.certificate,
        )
        pod = LocalPod("u", "team-a", "server", "s", SERVER, DESTINATIONS, str(host.netns))
        self._near: dict[tuple[Identity, Address], Path] = {}
        self._agent.pods = {pod.key: pod}
        for (identity, *addresses), name in CLIENTS.items():
            self._client(network, name, identity, (addresses[0], addresses[1]))
        self._agent.view = Snapshot([self._workload])
        self._agent.start(next_base_id())
        self._clients: dict[tuple[Identity, Address, Address], ConnectClient] = {}

    def _client(
        self, network: Network, name: str, identity: Identity, addresses: tuple[Address, Address]
    ) -> None:
        netns = network.host(name).netns
        for address in addresses:
            ip("-n", netns.name, "addr", "add", f"{address}/{address.max_prefixlen}", "dev", "lo")
            self._near[identity, address] = netns
        pod = LocalPod(name, identity.namespace, name, name, identity, addresses, str(netns))
        self._agent.pods[pod.key] = pod
        asyncio.run(apply.redirect(str(netns), ruleset.Capture(dns=False)))

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

    def settled(self, path: str, facts: ConnectionFacts, wanted: bool) -> tuple[int, int]:
        """When it was asked and answered as wanted; 0 when it was not. Envoy acknowledges before its worker thread has
        taken a change, so it may take several questions."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            begin = time.time_ns()
            if self.is_allowed(path, facts) == wanted:
                return begin, time.time_ns()
        return 0, 0

    def dry_run(self, trial: "Trial") -> str | None:
        """What Envoy logged about it, once it has."""
        authority = host_port(trial.facts.destination, trial.facts.destination_port)
        return next(
            (
                about.dry_run
                for about, line in self._agent.log
                if trial.begin <= line[0] <= trial.end
                and about.kind == names.LOG_INBOUND
                and about.destination == authority
            ),
            None,
        )

    def is_allowed(self, path: str, facts: ConnectionFacts) -> bool:
        if path == HBONE and facts.identity is not None:
            return self._is_tunnelled(facts.identity, facts)
        netns = self._netns if facts.identity is None else self._near[facts.identity, facts.source]
        server = self._servers[PORTS.index(facts.destination_port)]
        _forget_waiting(server)
        with _dial(netns, facts.source, facts.destination, facts.destination_port) as connection:
            return self._is_delivered(connection, server)

    def _is_tunnelled(self, identity: Identity, facts: ConnectionFacts) -> bool:
        ends = (identity, facts.source, facts.destination)
        authority = host_port(facts.destination, facts.destination_port)
        if ends in self._clients:
            # Envoy ends a connection whose client does not answer its pings, as an idle one here.
            with contextlib.suppress(OSError, AssertionError):
                return self._clients[ends].is_allowed(authority)
            self._clients[ends].close()
        dialled = _dial(self._netns, facts.source, facts.destination, 15008)
        self._clients[ends] = ConnectClient(dialled, self._context(identity))
        return self._clients[ends].is_allowed(authority)

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


def _dial(netns: Path, source: Address, destination: Address, port: int) -> socket.socket:
    return in_namespace(
        netns, lambda: socket.create_connection((str(destination), port), 60, source_address=(str(source), 0))
    )


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


def questions(path: str) -> list[ConnectionFacts]:
    """All that can be asked on this path."""
    identities = [None] if path == PLAINTEXT else [*IDENTITIES]
    return [
        ConnectionFacts(source, destination, port, identity)
        for source, destination in PAIRS
        for port in PORTS
        for identity in identities
    ]


class Trial(NamedTuple):
    """A tunnel that was allowed between these times (nanoseconds since 1970), and what dry-run policies would have
    denied it, by the policies of then and, as Envoy's worker may have decided by them still, by those before."""

    facts: ConnectionFacts
    begin: int
    end: int
    wanted: str
    former: str


def would_deny(policies: Sequence[Authorization], facts: ConnectionFacts) -> str:
    """The rule of dry-run policies that would deny a connection which is allowed."""
    trial = decide(policies, facts).dry_run
    return rule_name(trial) if trial is not None and not trial.allowed else ""


KNOWN = 6
"""A seed in which everything decides often enough."""


@pytest.mark.timeout(900)
@pytest.mark.feature("F12", "N7")
@pytest.mark.parametrize("seed", [KNOWN, random.randrange(1 << 32)], ids=["known", "new"])
def test_envoy_decides_as_written(lab: Lab, seed: int) -> None:
    source = random.Random(seed)
    outcomes: Counter[tuple[str, bool]] = Counter()
    decided: Counter[str] = Counter()
    trials: list[Trial] = []
    policies: tuple[Authorization, ...] = ()
    for number in range(ROUNDS):
        former, policies = policies, random_policies(source)
        missing = ("team-a/unknown",) if source.random() < 0.03 else ()
        lab.apply(policies, missing)
        for path in (HBONE, PLAINTEXT, SAME_NODE):
            for facts in source.sample(questions(path), QUESTIONS):
                wanted = decide(policies, facts, missing).allowed
                begin, end = lab.settled(path, facts, wanted)
                assert end, f"seed {seed}, round {number}: {path} {facts} under {policies}"
                outcomes[path, wanted] += 1
                decided.update(deciding(policies, facts))
                if path == HBONE and wanted:
                    trials.append(
                        Trial(facts, begin, end, would_deny(policies, facts), would_deny(former, facts))
                    )
    assert outcomes.total() >= 1000
    assert len(outcomes) == 6, outcomes
    until(lambda: None not in map(lab.dry_run, trials), "all tunnels are logged")
    for trial in trials:
        assert lab.dry_run(trial) in (trial.wanted, trial.former), f"seed {seed}: {trial}"
    if seed == KNOWN:
        assert {name for name in CHANGES if decided[name] < ENOUGH * outcomes.total()} == set(), decided
        assert sum(bool(trial.wanted) and trial.wanted != trial.former for trial in trials) >= 5
