"""Which open connections a policy denies: by the identity that they were accepted with."""

import ipaddress

import msgspec
import pytest

from ambit.core.identity import Identity
from ambit.model import request_policy
from ambit.model.inline_rules import InlineRules
from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Presence, Rule, Scope
from ambit.model.service import AppProtocol, Service
from ambit.model.view import Snapshot
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.node.connections import Connection, Open
from ambit.node.cut import NOT_READ, denied, unread
from ambit.node.netns.sockets import Socket
from ambit.plan.values import LocalPod, LocalPods, NodeSettings

CLIENT, SERVER = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("10.0.0.2")
WHO = {name: Identity("cluster.local", name, "default") for name in ("client", "server")}
POD = LocalPod("uid", "server", "server", "s", WHO["server"], (SERVER,), "/run/netns/s")
CONNECTION = Connection(CLIENT, 40000, SERVER, 80, Socket(SERVER, 80, CLIENT, 40000, 2, b""))


def workload(name: str, address: object, tunnel: TunnelProtocol, network: str = "") -> Workload:
    return Workload(
        uid=f"Kubernetes//Pod/{name}/{name}",
        name=name,
        namespace=name,
        identity=WHO[name],
        addresses=(address,),  # type: ignore[arg-type]
        tunnel=tunnel,
        network=network,
    )


def is_cut_at(service: Service, *, port: int = 80, known: bool = True, older: bool = False) -> bool:
    """Of a connection to a pod that serves it."""
    server = msgspec.structs.replace(
        workload("server", SERVER, TunnelProtocol.HBONE), services={service.key: service.ports}
    )
    clients = [workload("client", CLIENT, TunnelProtocol.HBONE)] if known else []
    asked = msgspec.structs.replace(CONNECTION, destination_port=port)
    found = Open(pre_mesh_inbound=(asked,)) if older else Open(delivered=(asked,))
    view = Snapshot([server, *clients], [service])
    return bool(denied(POD, found, view, LocalPods([POD]), NodeSettings(node="n")))


def policy(action: Action = Action.DENY, **fields: object) -> Authorization:
    rules = (Rule((Clause((Match(**fields),)),)),)  # type: ignore[arg-type]
    return Authorization("p", "server", Scope.NAMESPACE, action, rules)


def is_cut(asked: Authorization, *clients: Workload, plain: bool = False) -> bool:
    server = workload("server", SERVER, TunnelProtocol.HBONE)
    view = Snapshot([server, *clients], (), [asked])
    found = Open(plaintext=(CONNECTION,)) if plain else Open(delivered=(CONNECTION,))
    refused = denied(POD, found, view, LocalPods([POD]), NodeSettings(node="n"))
    assert all(each.plain is plain for each in refused)
    return bool(refused)


BY_NAMESPACE = policy(namespaces=(Exact("client"),))
BY_ANOTHER = policy(namespaces=(Exact("another"),))
STRICT = policy(not_principals=(Presence(),))


@pytest.mark.parametrize("tunnel", [TunnelProtocol.HBONE, TunnelProtocol.NONE])
def test_a_client_that_left_the_mesh_had_an_identity(tunnel: TunnelProtocol) -> None:
    client = workload("client", CLIENT, tunnel)
    assert is_cut(BY_NAMESPACE, client)
    assert not is_cut(BY_ANOTHER, client)
    assert not is_cut(STRICT, client)


def test_a_client_that_is_not_found_is_cut_where_somebody_would_be() -> None:
    elsewhere = workload("client", CLIENT, TunnelProtocol.HBONE, "elsewhere")
    for clients in ((), (elsewhere,)):
        assert is_cut(BY_NAMESPACE, *clients)
        assert is_cut(BY_ANOTHER, *clients)
        assert not is_cut(STRICT, *clients), "it came through a tunnel"
        assert not is_cut(policy(destination_ports=(81,)), *clients)


def test_nobody_has_an_identity_in_plain_text() -> None:
    client = workload("client", CLIENT, TunnelProtocol.HBONE)
    assert not is_cut(BY_NAMESPACE, client, plain=True)
    assert is_cut(STRICT, client, plain=True)


def ruled(*values: str, protocol: AppProtocol = AppProtocol.TCP) -> Service:
    """Without a proxy between; only who is of one of these namespaces may."""
    namespaces = request_policy.Condition(
        request_policy.Attribute.NAMESPACE, tuple(Exact(each) for each in values)
    )
    rule = request_policy.Rule((request_policy.Clause((request_policy.Match((namespaces,)),)),))
    allow = request_policy.RequestPolicy("p", "server", request_policy.RequestAction.ALLOW, (), (rule,))
    return Service(
        "web",
        "server",
        "web.server.svc.cluster.local",
        ports=(Port(8000, 80),),
        app_protocols={8000: protocol},
        inline=(),
        rules=InlineRules((allow,)),
    )


def test_rules_about_requests_hold_for_bytes() -> None:
    assert not is_cut_at(ruled("client"))
    assert is_cut_at(ruled("another"))
    assert not is_cut_at(ruled("another"), port=81)
    assert is_cut_at(ruled("client"), known=False)


def test_where_requests_are_read_each_is_decided_about() -> None:
    """But not what is older than the enrolment, which nobody reads."""
    http = ruled("another", protocol=AppProtocol.HTTP11)
    assert not is_cut_at(http)
    assert not is_cut_at(http, known=False)
    assert is_cut_at(http, older=True)
    assert not is_cut_at(http, older=True, port=81)


def test_what_was_opened_before_requests_were_read() -> None:
    other = msgspec.structs.replace(CONNECTION, destination_port=81)
    open_now = Open(delivered=(CONNECTION, other), plaintext=(CONNECTION,), outbound=(CONNECTION,))
    found = unread(open_now, {80})
    assert [(each.connection, each.plain) for each in found] == [(CONNECTION, False), (CONNECTION, True)]
    assert {each.policy for each in found} == {NOT_READ}
