"""Records of requests that are read at the node that they come from."""

import ipaddress

import msgspec
import pytest

from ambit.agent.record import Flow, Reporter
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.envoy.logs.access_log import HOST, IDENTITY, POLICY, ROUTE, SERVICE, WORKLOAD
from ambit.envoy.logs.request_log import AUTHORITY
from ambit.model.view import Snapshot
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.node.flows.collector import Collector
from ambit.plan.values import LocalPod, LocalPods, NodeSettings
from tests.node.flows.envoy_lines import message
from tests.proxy.flows.test_requests import text

WEB = "shop/web.shop.svc.cluster.local"


def workload(name: str, *addresses: str) -> Workload:
    return Workload(
        uid=f"Kubernetes//Pod/shop/{name}",
        name=name,
        namespace="shop",
        identity=Identity("cluster.local", "shop", name),
        addresses=tuple(map(ipaddress.ip_address, addresses)),
        tunnel=TunnelProtocol.HBONE,
        services={WEB: (Port(80, 8080),)} if name == "server" else {},
    )


CLIENT, SERVER = workload("client", "10.0.0.2", "fd00::2"), workload("server", "10.0.9.1")
POD = LocalPod("uid", "shop", "client", "sandbox", CLIENT.identity, CLIENT.addresses, "/run/netns/x", CLIENT)
USUAL = {
    SERVICE: names.from_pod(POD.key, WEB),
    IDENTITY: CLIENT.identity.uri,
    HOST + AUTHORITY: "10.0.9.1:8080",
    HOST + IDENTITY: SERVER.identity.uri,
    HOST + ROUTE: "tunnel",
    HOST + WORKLOAD: SERVER.uid,
}
NO_SERVER = dict.fromkeys((HOST + AUTHORITY, HOST + IDENTITY, HOST + ROUTE, HOST + WORKLOAD), "")


def told(*pods: LocalPod, **fields: str) -> list[Flow]:
    collector = Collector(Snapshot([CLIENT, SERVER]), lambda: LocalPods(pods), NodeSettings(node="n"))
    collector.take(message(text(**{**USUAL, **fields})))
    return list(collector.newest())


def test_both_ends_are_told() -> None:
    (flow,) = told(POD)
    assert (flow.reporter, flow.hop, flow.mutual_tls, flow.decision) == (
        Reporter.SOURCE,
        "tunnel",
        True,
        "allow",
    )
    assert (flow.source.workload, flow.source.address) == ("client", "10.0.0.2:4711")
    server = flow.destination
    assert (server.workload, server.address, server.service) == ("server", "10.0.9.1:8080", WEB)
    assert flow.request is not None
    assert (flow.request.route, flow.request.attempts) == ("shop/cart/0", 1)


@pytest.mark.parametrize(("said", "own"), [("192.0.2.1", "10.0.0.2:4711"), ("2001:db8::1", "[fd00::2]:4711")])
def test_the_client_is_where_its_pod_is(said: str, own: str) -> None:
    """Whatever a header says."""
    (flow,) = told(POD, client=said)
    assert flow.source.address == own


def test_nothing_is_told_of_pods_that_are_not_here() -> None:
    other = msgspec.structs.replace(POD, sandbox="another")
    assert told() == told(other) == []


def test_who_may_not_connect_on_the_node() -> None:
    refused = {
        HOST + ROUTE: "refused",
        HOST + POLICY: "shop/closed[0]",
        "reason": "UpstreamConnectionFailure",
    }
    (flow,) = told(POD, code="503", **refused)
    assert (flow.decision, flow.policy, flow.error, flow.mutual_tls) == ("deny", "shop/closed[0]", "", False)
    (flow,) = told(POD, **{**refused, HOST + ROUTE: "same-node"})
    assert (flow.decision, flow.policy, flow.error) == ("allow", "", "upstream connection failure")


def test_without_a_server() -> None:
    (flow,) = told(POD, code="404", reason="NoRouteFound", **NO_SERVER)
    assert (flow.hop, flow.error, flow.mutual_tls) == ("answered", "no route found", False)
    assert (flow.destination.address, flow.destination.service) == ("web.shop.svc.cluster.local:80", WEB)


def test_a_server_that_nobody_knows_is_what_was_said_of_it() -> None:
    (flow,) = told(POD, **{HOST + WORKLOAD: "gone"})
    server = flow.destination
    assert (server.workload, server.address, server.identity) == ("", "10.0.9.1:8080", SERVER.identity.uri)
