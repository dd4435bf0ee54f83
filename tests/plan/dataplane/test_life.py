"""What changes while traffic flows: certificates, roots, policies, pods. Nothing that is allowed is cut."""

import socket

import msgspec
import pytest

from ambit.core.address import Address
from ambit.model.policy import Action, Authorization, Clause, Match, Rule, Scope
from ambit.model.workload import TunnelProtocol
from tests.plan.dataplane.agent import Agent
from tests.plan.dataplane.conftest import Authority, Mesh, log_of, service
from tests.plan.dataplane.network import REFUSED, Host
from tests.plan.dataplane.served import until

pytestmark = [pytest.mark.netns, pytest.mark.envoy]


def echo(connection: socket.socket, _: str) -> None:
    while part := connection.recv(100):
        connection.sendall(part)


def alive(connection: socket.socket) -> bool:
    connection.sendall(b"ping")
    return connection.recv(100) == b"ping"


def deny(port: int) -> Authorization:
    rule = Rule((Clause((Match(destination_ports=(port,)),)),))
    return Authorization("closed", "default", Scope.NAMESPACE, Action.DENY, (rule,))


@pytest.mark.parametrize("destination", ["far", "near"])
def test_open_connections_outlive_every_change(mesh: Mesh, destination: str) -> None:
    """Policies, services and endpoints change; listeners drain for one second, so a drained one would be cut."""
    a, server = mesh.pods["a"], mesh.pods[destination]
    mesh.services = [service("10.99.0.30")]
    mesh.serve(service().key, {destination: 8200})
    mesh.settle()
    with (
        server.listen(8200, echo),
        a.connect("10.99.0.30", 80) as through,
        a.connect(server.four, 8200) as direct,
    ):
        assert alive(through)
        assert alive(direct)
        mesh.policies = [deny(8201)]
        mesh.update()
        mesh.serve(service().key, {"far2": 8200})
        mesh.services = []
        mesh.update()
        mesh.policies = [deny(8201), deny(8202)]
        mesh.update()
        for _ in range(15):
            assert a.ask(server.four, 8201) == REFUSED
            assert alive(through)
            assert alive(direct)
            mesh.pause(0.1)


def test_new_certificates_and_a_new_root(mesh: Mesh) -> None:
    """Union of roots, then leaves of the new root, then the old root goes: every connection works throughout."""
    a, far, fresh_pod = mesh.pods["a"], mesh.pods["far"], mesh.pods["twin"]
    old, new = mesh.authority, Authority()
    mesh.settle()
    with far.listen(8210, echo), a.connect(far.four, 8210) as kept:
        assert alive(kept)
        for roots, authority in (
            (old.root + new.root, old),
            (old.root + new.root, new),
            (new.root, new),
        ):
            mesh.trust(roots, authority)
            with a.connect(far.four, 8210) as fresh:
                assert alive(fresh)
        assert alive(kept)
        mesh.trust(old.root, new)
        until(lambda: fresh_pod.ask(far.four, 8210) == REFUSED, "an untrusted certificate to be refused")
        mesh.trust(old.root, old)
        with fresh_pod.connect(far.four, 8210) as fresh:
            assert alive(fresh)


def connects(host: Host, address: Address, port: int) -> bool:
    try:
        with host.connect(address, port, timeout=1):
            return True
    except OSError:
        return False


def test_a_pod_that_leaves_takes_its_listeners_with_it(mesh: Mesh) -> None:
    """Its destinations are forgotten too; the names never come back, so that is safe."""
    b, far = mesh.pods["b"], mesh.pods["far"]
    with far.listen(8220):
        assert b.ask(far.four, 8220) == f"{b.four} 2"
        b.agent.pods.pop(b.local.key)
        b.agent.forget(b.local.key)
        mesh.update()
        until(lambda: not connects(b, far.four, 8220), "the listener to be gone")
        reborn = msgspec.structs.replace(b.local, sandbox="s-b2")
        b.agent.pods[reborn.key] = reborn
        mesh.update()
        until(lambda: b.ask(far.four, 8220) == f"{b.four} 2", "the new sandbox to work")
        b.agent.pods.pop(reborn.key)
        b.agent.pods[b.local.key] = b.local


def test_a_pod_with_too_many_destinations_keeps_those_it_has(mesh: Mesh, outside: Host) -> None:
    """Nothing new is asked for, nothing open is cut, and the log says why; the way out of the mesh stays open."""
    a, far, agent = mesh.pods["a"], mesh.pods["far"], mesh.agents["node1"]
    mesh.settle()
    with far.listen(8230, echo), far.listen(8231), outside.listen(8232), a.connect(far.four, 8230) as kept:
        assert alive(kept)
        agent.only = {a.local.key: [(far.four, 8230), (far.six, 8230)]}
        agent.sync()
        try:
            before = len(agent.asked)
            for _ in range(12):
                assert alive(kept)
                assert a.ask(far.four, 8231) == REFUSED
                mesh.pause(0.1)
            assert a.ask(outside.four, 8232) == REFUSED
            assert len(agent.asked) == before
            entry = log_of(agent, "outbound", f"{far.four}:8231")
            assert entry.failure == "the pod has too many destinations"
            with a.connect(far.four, 8230) as again, a.connect(far.six, 8230) as six:
                assert alive(again)
                assert alive(six)
        finally:
            agent.only = {}
            agent.sync()
        assert a.ask(far.four, 8231) == f"{a.four} 2"


def _straight(agent: Agent, destination: str) -> int:
    """How many connections to it went straight into a tunnel, since its cluster was last changed."""
    return sum(
        int(line.rpartition("::")[2])
        for line in agent.admin("/clusters").splitlines()
        if line.startswith("tun|") and f"|{destination}::" in line and "::rq_total::" in line
    )


def test_of_a_mixed_service_only_what_is_far_goes_straight(mesh: Mesh) -> None:
    """By weight; and every change of an endpoint's kind is followed without a connection refused or cut."""
    a, near, far, far2 = (mesh.pods[name] for name in ("a", "near", "far", "far2"))
    mesh.services = [service("10.99.0.31")]
    count = 240
    with (
        near.listen(8240),
        far.listen(8240),
        far2.listen(8240),
        far.listen(8241, echo),
        a.connect(far.four, 8241) as held,
    ):
        assert alive(held)
        for wanted, serving in (
            (2 / 3, ("near", "far", "far2")),
            (1, ("far", "far2")),
            (0, ("near",)),
            (1 / 2, ("near", "far")),
        ):
            mesh.serve(service().key, dict.fromkeys(serving, 8240))
            before = _straight(a.agent, "10.99.0.31:80")
            assert {a.ask("10.99.0.31", 80) for _ in range(count)} == {f"{a.four} 2"}
            straight = _straight(a.agent, "10.99.0.31:80") - before
            assert abs(straight - count * wanted) <= (0 if wanted in (0, 1) else count / 5)
        assert alive(held)


def test_a_pod_whose_tunnel_ends_is_reached_plainly(mesh: Mesh) -> None:
    """And the other way round."""
    a, far = mesh.pods["a"], mesh.pods["far"]
    for tunnel in (TunnelProtocol.HBONE, TunnelProtocol.NONE, TunnelProtocol.HBONE):
        with far.listen(8250):
            far.workload = msgspec.structs.replace(far.workload, tunnel=tunnel)
            mesh.update()
            before = _straight(a.agent, f"{far.four}:8250")
            assert a.ask(far.four, 8250) == f"{a.four} 2"
            straight = _straight(a.agent, f"{far.four}:8250") - before
            assert straight == (tunnel is TunnelProtocol.HBONE)
