"""What policy, identity and mutual TLS refuse, and that the refusal says why."""

import contextlib

import msgspec
import pytest

from ambit.core.identity import Identity
from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Presence, Rule, Scope
from ambit.model.workload import GatewayAddress
from ambit.node.connections import look
from ambit.node.netns import sockets
from tests.plan.dataplane.conftest import Mesh, log_of, service, tunnel_log
from tests.plan.dataplane.network import REFUSED, Host, read_all
from tests.plan.dataplane.served import until

pytestmark = [pytest.mark.netns, pytest.mark.envoy, pytest.mark.usefixtures("way")]
STRICT = Authorization(
    "strict",
    "istio-system",
    Scope.GLOBAL,
    Action.DENY,
    (Rule((Clause((Match(not_principals=(Presence(),)),)),)),),
)


def only(identity: Identity, port: int) -> Authorization:
    match = Match(principals=(Exact(identity.principal),), destination_ports=(port,))
    return Authorization("only", "default", Scope.NAMESPACE, Action.ALLOW, (Rule((Clause((match,)),)),))


@pytest.mark.parametrize("destination", ["far", "near"])
def test_only_one_identity_and_port(mesh: Mesh, destination: str) -> None:
    a, b, server = mesh.pods["a"], mesh.pods["b"], mesh.pods[destination]
    mesh.policies = [only(a.identity, 8100)]
    mesh.update()
    with server.listen(8100), server.listen(8101):
        assert a.ask(server.four, 8100) == f"{a.four} 2"
        assert a.ask(server.six, 8100) == f"{a.six} 2"
        assert b.ask(server.four, 8100) == REFUSED
        assert a.ask(server.four, 8101) == REFUSED
        mesh.policies = [only(b.identity, 8100)]
        mesh.update()
        assert a.ask(server.four, 8100) == REFUSED
        assert b.ask(server.four, 8100) == f"{b.four} 2"


def test_a_deny_names_its_rule(mesh: Mesh, way: str) -> None:
    a, far, near = mesh.pods["a"], mesh.pods["far"], mesh.pods["near"]
    rules = tuple(Rule((Clause((Match(destination_ports=(port,)),)),)) for port in (8110, 8111))
    mesh.policies = [Authorization("no", "default", Scope.NAMESPACE, Action.DENY, rules)]
    mesh.update()
    with far.listen(8111), near.listen(8111):
        assert a.ask(far.four, 8111) == REFUSED
        assert a.ask(near.four, 8111) == REFUSED
    (entry,) = tunnel_log(mesh, far, 8111, count=1)
    assert entry.denied
    assert entry.policy == "default/no[1]"
    assert entry.identity == a.identity.uri
    outbound = log_of(mesh.agents["node1"], "outbound", f"{near.four}:8111")
    assert (outbound.policy, outbound.route, outbound.denied) == ("default/no[1]", "refused", True)
    assert log_of(mesh.agents["node1"], "outbound", f"{far.four}:8111").route == "tunnel"
    log, target = ("tunnel", f"{far.four}:15008") if way == "hop" else ("outbound", f"{far.four}:8111")
    tunnel = log_of(mesh.agents["node1"], log, target)
    assert (tunnel.failure, tunnel.denied, tunnel.client) == ("tunnel_response:401", True, str(a.four))


def test_a_deny_behind_a_service_names_its_rule_too(mesh: Mesh, way: str) -> None:
    virtual = "10.99.0.6" if way == "straight" else "10.99.0.7"
    a = mesh.pods["a"]
    rule = Rule((Clause((Match(destination_ports=(8112,)),)),))
    mesh.policies = [Authorization("no", "default", Scope.NAMESPACE, Action.DENY, (rule,))]
    mesh.services = [service(virtual)]
    mesh.serve(service().key, {"near": 8112})
    with mesh.pods["near"].listen(8112):
        assert a.ask(virtual, 80) == REFUSED
        entry = log_of(mesh.agents["node1"], "outbound", f"{virtual}:80")
        assert (entry.route, entry.policy) == ("refused", "default/no[0]")
        mesh.policies = []
        mesh.update()
        assert a.ask(virtual, 80) == f"{a.four} 2"


@pytest.mark.parametrize("destination", ["far", "near"])
def test_an_unknown_policy_closes_the_pod(mesh: Mesh, outside: Host, destination: str) -> None:
    a, server = mesh.pods["a"], mesh.pods[destination]
    server.workload = msgspec.structs.replace(server.workload, policies=("default/not-there",))
    mesh.update()
    with server.listen(8120):
        assert a.ask(server.four, 8120) == REFUSED
        assert outside.ask(server.four, 8120) == REFUSED


def test_plaintext_permissive_and_strict(mesh: Mesh, outside: Host) -> None:
    a, far = mesh.pods["a"], mesh.pods["far"]
    with far.listen(8130):
        assert outside.ask(far.four, 8130) == f"{outside.four} 2"
        assert outside.ask(far.six, 8130) == f"{outside.six} 2"
        mesh.policies = [STRICT]
        mesh.update()
        assert outside.ask(far.four, 8130) == REFUSED
        assert a.ask(far.four, 8130) == f"{a.four} 2"
    entry = log_of(mesh.agents["node2"], "plaintext", f"{far.four}:8130", "no healthy upstream")
    assert entry.pod == far.local.key


def test_a_denied_client_never_sees_the_banner(mesh: Mesh, outside: Host) -> None:
    b, far, near = mesh.pods["b"], mesh.pods["far"], mesh.pods["near"]
    mesh.policies = [only(mesh.pods["a"].identity, 8140)]
    mesh.update()
    accepted: list[str] = []

    def serve(connection, client: str) -> None:  # type: ignore[no-untyped-def]
        accepted.append(client)
        connection.sendall(b"secret banner")

    with far.listen(8140, serve), near.listen(8140, serve):
        for client, address in ((outside, far.four), (outside, near.four), (b, far.four), (b, near.four)):
            try:
                with client.connect(address, 8140) as connection:
                    assert read_all(connection) == b""
            except ConnectionResetError:
                continue
    assert accepted == []


@pytest.mark.parametrize("port", [15001, 15006, 15053])
def test_ports_of_the_mesh_are_closed_from_outside(mesh: Mesh, outside: Host, port: int) -> None:
    assert outside.ask(mesh.pods["far"].four, port) == REFUSED


def test_the_server_is_pinned_to_its_identity(mesh: Mesh) -> None:
    """A right certificate of the wrong account is refused; the service's other names are accepted."""
    a, far2 = mesh.pods["a"], mesh.pods["far2"]
    far2.agent.pods[far2.local.key] = msgspec.structs.replace(far2.local, workload=far2.workload)
    stranger = Identity("cluster.local", "default", "somebody")
    far2.workload = msgspec.structs.replace(far2.workload, identity=stranger)
    mesh.services = [service("10.99.0.7")]
    mesh.serve(service().key, {"far2": 8150})
    with far2.listen(8150):
        assert a.ask(far2.four, 8150) == REFUSED
        assert a.ask("10.99.0.7", 80) == REFUSED
        mesh.services = [msgspec.structs.replace(mesh.services[0], subject_alt_names=(far2.identity.uri,))]
        mesh.update()
        assert a.ask("10.99.0.7", 80) == f"{a.four} 2"
        assert a.ask(far2.four, 8150) == REFUSED


def test_a_tunnel_for_a_foreign_address_is_refused(mesh: Mesh) -> None:
    """A hop that is no waypoint (here: a pod named as one) answers 400."""
    a, far = mesh.pods["a"], mesh.pods["far"]
    waypoint = GatewayAddress(port=15008, address=far.four)
    mesh.services = [msgspec.structs.replace(service("10.99.0.8"), waypoint=waypoint)]
    mesh.update()
    with far.listen(80):
        assert a.ask("10.99.0.8", 80) == REFUSED
    assert log_of(mesh.agents["node2"], "inbound", "10.99.0.8:80").failure == "answered 400"


@pytest.mark.parametrize("destination", ["far", "near"])
def test_exactly_the_denied_connection_is_cut(mesh: Mesh, destination: str) -> None:
    a, b, server = mesh.pods["a"], mesh.pods["b"], mesh.pods[destination]

    def echo(connection, _: str) -> None:  # type: ignore[no-untyped-def]
        while part := connection.recv(100):
            connection.sendall(part)

    mesh.settle()
    with server.listen(8160, echo), a.connect(server.four, 8160) as cut, b.connect(server.four, 8160) as kept:
        for connection in (cut, kept):
            connection.sendall(b"1")
            assert connection.recv(10) == b"1"
        found = [each for each in look(server.local).delivered if each.destination_port == 8160]
        assert {each.client for each in found} == {a.four, b.four}
        # What a client opens itself is not delivered to it.
        opened = look(a.local)
        assert opened.delivered == ()
        assert [(each.client, each.destination, each.destination_port) for each in opened.outbound] == [
            (a.four, server.four, 8160)
        ]
        doomed = [each.socket for each in found if each.client == a.four]
        assert sockets.destroy(server.local.netns, doomed) == 1
        with contextlib.suppress(ConnectionResetError):
            assert cut.recv(10) == b""
        kept.sendall(b"2")
        assert kept.recv(10) == b"2"


def test_the_same_node_in_tls_when_that_is_wanted(mesh: Mesh) -> None:
    a, near = mesh.pods["a"], mesh.pods["near"]
    near.agent.settings = msgspec.structs.replace(near.agent.settings, same_node_tls=True)
    mesh.services = [service("10.99.0.9")]
    mesh.serve(service().key, {"near": 8170})
    with near.listen(8170):
        assert a.ask(near.four, 8170) == f"{a.four} 2"
        assert a.ask("10.99.0.9", 80) == f"{a.four} 2"
    near.agent.settings = msgspec.structs.replace(near.agent.settings, same_node_tls=False)
    assert {each.identity for each in tunnel_log(mesh, near, 8170, count=2)} == {a.identity.uri}


def test_dry_run_policies_only_speak(mesh: Mesh) -> None:
    a, far = mesh.pods["a"], mesh.pods["far"]
    rule = Rule((Clause((Match(destination_ports=(8180,)),)),))
    mesh.policies = [Authorization("trial", "default", Scope.NAMESPACE, Action.DENY, (rule,), dry_run=True)]
    mesh.update()
    with far.listen(8180):
        assert a.ask(far.four, 8180) == f"{a.four} 2"
    (entry,) = tunnel_log(mesh, far, 8180, count=1)
    assert (entry.policy, entry.dry_run) == ("", "default/trial[0]")


@pytest.mark.feature("N52")
def test_a_mesh_moves_from_one_trust_domain_to_another(mesh: Mesh) -> None:
    """The node of `far` has not followed yet: its pod shows a certificate of the old trust domain."""
    a, far = mesh.pods["a"], mesh.pods["far"]
    old = msgspec.structs.replace(far.identity, trust_domain="old.example")
    far.agent.pods[far.local.key] = msgspec.structs.replace(far.local, identity=old)
    try:
        with far.listen(8190), a.listen(8191):
            _trust(mesh, "old.example")
            until(lambda: a.ask(far.four, 8190) == f"{a.four} 2", "the alias is the server's identity")
            until(lambda: far.ask(a.four, 8191) == f"{far.four} 2", "the alias is a client's")
            assert tunnel_log(mesh, a, 8191, count=1)[-1].identity == old.uri
            _trust(mesh)
            until(lambda: a.ask(far.four, 8190) == REFUSED, "another trust domain is another identity")
            until(lambda: far.ask(a.four, 8191) == REFUSED, "and no peer")
    finally:
        far.agent.pods[far.local.key] = far.local
        _trust(mesh)


def _trust(mesh: Mesh, *aliases: str) -> None:
    for agent in mesh.agents.values():
        agent.settings = msgspec.structs.replace(agent.settings, trust_domain_aliases=aliases)
        agent.roots = dict.fromkeys(agent.settings.trust_domains, mesh.authority.root)
    mesh.update()
