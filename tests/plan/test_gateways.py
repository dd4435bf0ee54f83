"""Waypoints and gateways of other networks: who stands for them, and that nothing ever goes round them."""

import ipaddress
from typing import Any

import msgspec
import pytest

from ambit.envoy import names
from ambit.model.service import (
    BalancingMode,
    LoadBalancing,
    Service,
    VirtualAddress,
    WeightedWaypoint,
)
from ambit.model.view import Snapshot
from ambit.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    NetworkMode,
    Port,
    TunnelledAs,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
)
from ambit.plan.gateways import network_gateway, parts, waypoint
from ambit.plan.node.destinations import answer
from ambit.plan.values import LocalPods, NodeSettings
from tests.plan.cases import CLIENT, pod, workload

SETTINGS = NodeSettings(node="node1", network="west")
WAYPOINT = Service(
    name="waypoint",
    namespace="default",
    hostname="waypoint.default.svc.cluster.local",
    addresses=(VirtualAddress("west", ipaddress.ip_address("10.96.0.40")),),
    ports=(Port(15008, 15008),),
)
BY_NAME = GatewayAddress(15008, namespace="default", hostname=WAYPOINT.hostname)
BY_ADDRESS = GatewayAddress(15008, network="west", address=ipaddress.ip_address("10.96.0.40"))
BY_POD = GatewayAddress(15008, network="west", address=ipaddress.ip_address("10.244.2.40"))
UNKNOWN = [
    GatewayAddress(15008, namespace="default", hostname="nobody.test"),
    GatewayAddress(15008, network="west", address=ipaddress.ip_address("10.96.0.99")),
    GatewayAddress(15009, namespace="default", hostname=WAYPOINT.hostname),
    GatewayAddress(15008, network="west"),
]


def one(name: str, *addresses: str, **more: object) -> Workload:
    return workload(name, *addresses, **{"network": "west", **more})


def proxy(name: str = "wp", address: str = "10.244.2.40", **more: object) -> Workload:
    return one(name, address, **{"services": {WAYPOINT.key: (Port(15008, 15008),)}, **more})


CALLER = msgspec.structs.replace(CLIENT, network="west")
FAR = one("far", "10.244.2.3", services={"default/web.default.svc": (Port(80, 8080),)})
WEB = Service(
    name="web",
    namespace="default",
    hostname="web.default.svc",
    addresses=(VirtualAddress("west", ipaddress.ip_address("10.96.0.20")),),
    ports=(Port(80, 8080),),
)


def ask(address: str, port: int, *values: Workload | Service, source: Workload = CALLER) -> Any:
    """The cluster of a connection from `source` to this address."""
    workloads = [each for each in values if isinstance(each, Workload)]
    services = [each for each in values if isinstance(each, Service)]
    local = pod(source)
    name = names.destination(local.key, ipaddress.ip_address(address), port)
    return answer(name, Snapshot([source, *workloads], services), LocalPods([local]), SETTINGS)


def hops(cluster: Any) -> set[tuple[str, str, str]]:
    """Internal listener, where it goes, and what it asks for there."""
    found = set()
    for locality in cluster.load_assignment.endpoints:
        for each in locality.lb_endpoints:
            listener = each.endpoint.address.envoy_internal_address.server_listener_name
            metadata = each.metadata.filter_metadata
            hop = metadata["envoy.filters.listener.original_dst"]["local"]
            found.add((listener, hop, metadata["ambit"]["authority"]))
    return found


def weights(cluster: Any) -> dict[str, int]:
    return {
        each.metadata.filter_metadata["ambit"]["workload"].rpartition("/")[
            2
        ]: each.load_balancing_weight.value
        for locality in cluster.load_assignment.endpoints
        for each in locality.lb_endpoints
    }


@pytest.mark.parametrize("gateway", [BY_NAME, BY_ADDRESS, BY_POD])
def test_a_services_connections_go_to_its_waypoint_for_the_address_that_was_dialled(
    gateway: GatewayAddress,
) -> None:
    bound = msgspec.structs.replace(WEB, waypoint=gateway)
    found = ask("10.96.0.20", 80, bound, FAR, WAYPOINT, proxy())
    assert hops(found) == {(names.CONNECT_ORIGINATE, "10.244.2.40:15008", "10.96.0.20:80")}


@pytest.mark.parametrize("gateway", [BY_NAME, BY_ADDRESS, BY_POD])
def test_a_workloads_connections_go_to_its_waypoint(gateway: GatewayAddress) -> None:
    bound = msgspec.structs.replace(FAR, waypoint=gateway)
    found = ask("10.244.2.3", 8080, bound, WAYPOINT, proxy())
    assert hops(found) == {(names.CONNECT_ORIGINATE, "10.244.2.40:15008", "10.244.2.3:8080")}


@pytest.mark.parametrize("node", ["node1", "node2"])
@pytest.mark.parametrize("tunnel", TunnelProtocol)
def test_who_asks_for_a_service_does_not_meet_its_endpoints_waypoints(
    node: str, tunnel: TunnelProtocol
) -> None:
    """A waypoint for workloads is for who asks for their addresses (Istio: `istio.io/waypoint-for`)."""
    bound = msgspec.structs.replace(FAR, waypoint=BY_NAME, node=node, tunnel=tunnel)
    found = hops(ask("10.96.0.20", 80, WEB, bound, WAYPOINT, proxy()))
    tunnelled = (names.CONNECT_ORIGINATE, "10.244.2.3:15008", "10.244.2.3:8080")
    plain = (names.DIRECT_ORIGINATE, "10.244.2.3:8080", "10.244.2.3:8080")
    assert found == {tunnelled if tunnel is TunnelProtocol.HBONE else plain}


@pytest.mark.parametrize("gateway", UNKNOWN)
def test_what_cannot_go_through_its_waypoint_is_refused(gateway: GatewayAddress) -> None:
    passing = LoadBalancing(mode=BalancingMode.PASSTHROUGH)
    for service in (
        msgspec.structs.replace(WEB, waypoint=gateway),
        msgspec.structs.replace(WEB, waypoint=gateway, load_balancing=passing),
        msgspec.structs.replace(WEB, weighted_waypoints=(WeightedWaypoint(gateway, 1),)),
        msgspec.structs.replace(WEB, weighted_waypoints=(WeightedWaypoint(BY_NAME, 0),)),
    ):
        assert_refused(ask("10.96.0.20", 80, service, FAR, WAYPOINT, proxy()))
    for tunnel in TunnelProtocol:
        bound = msgspec.structs.replace(FAR, waypoint=gateway, tunnel=tunnel)
        assert_refused(ask("10.244.2.3", 8080, bound, WAYPOINT, proxy()))


@pytest.mark.parametrize(
    ("waypoints", "reason"),
    [
        (["web.default.no-waypoint.invalid"], "closed by a policy that no waypoint enforces"),
        (["way.v2.default.not-allowed.invalid"], "waypoint default/way.v2 is not usable"),
        (["nobody.test"], "waypoint default/nobody.test is not ready"),
        (
            ["nobody.test", "way.default.not-allowed.invalid"],
            "waypoint default/nobody.test is not ready; waypoint default/way is not usable",
        ),
    ],
)
def test_records_say_why_it_is_refused_and_no_name_that_nobody_has(waypoints: list[str], reason: str) -> None:
    places = [GatewayAddress(15008, namespace="default", hostname=each) for each in waypoints]
    parted = tuple(WeightedWaypoint(each, 1) for each in places)
    bound = msgspec.structs.replace(
        WEB, waypoint=places[0], weighted_waypoints=parted if len(parted) > 1 else ()
    )
    cluster = ask("10.96.0.20", 80, bound, FAR, WAYPOINT, proxy())
    assert cluster.metadata.filter_metadata["ambit"]["reason"] == reason


@pytest.mark.parametrize(
    "broken",
    [
        {"status": WorkloadStatus.UNHEALTHY},
        {"network": "east"},
        {"addresses": ()},
        {"addresses": (), "hostname": "wp.test", "tunnel": TunnelProtocol.NONE},
        {"capacity": 0},
        {"services": {}},
    ],
)
def test_a_waypoint_without_a_workload_that_can_be_used_refuses(broken: dict[str, object]) -> None:
    bound = msgspec.structs.replace(WEB, waypoint=BY_NAME)
    assert_refused(ask("10.96.0.20", 80, bound, FAR, WAYPOINT, proxy(**broken)))


def test_a_service_without_a_usable_endpoint_is_never_reached_at_an_address_that_it_names() -> None:
    """Also where everything about it is odd."""
    odd = one(
        "odd", "10.244.2.5", services=FAR.services, network_mode=NetworkMode.HOST_NETWORK, network="east"
    )
    assert_refused(ask("10.96.0.20", 80, WEB, odd))


def test_a_waypoints_own_workload_reaches_what_is_behind_it() -> None:
    bound = msgspec.structs.replace(FAR, waypoint=BY_NAME)
    itself = proxy("client", "10.244.1.2", node="node1")
    found = ask("10.244.2.3", 8080, bound, WAYPOINT, source=itself)
    assert hops(found) == {(names.CONNECT_ORIGINATE, "10.244.2.3:15008", "10.244.2.3:8080")}


def test_connections_are_shared_out_by_weight_and_capacity() -> None:
    other = msgspec.structs.replace(WAYPOINT, name="other", hostname="other.test", addresses=())
    second = GatewayAddress(15008, namespace="default", hostname="other.test")
    bound = msgspec.structs.replace(
        WEB,
        waypoint=BY_NAME,
        weighted_waypoints=(WeightedWaypoint(BY_NAME, 90), WeightedWaypoint(second, 10)),
    )
    of_other = {"services": {other.key: (Port(15008, 15008),)}}
    workloads = [proxy("a", "10.244.2.41"), proxy("b", "10.244.2.42", capacity=2)]
    more = proxy("c", "10.244.2.43", **of_other)
    found = weights(ask("10.96.0.20", 80, bound, FAR, WAYPOINT, other, *workloads, more))
    assert found == {"a": 30, "b": 60, "c": 10}
    alone = weights(ask("10.96.0.20", 80, bound, FAR, WAYPOINT, other, more))
    assert alone == {"c": 10}, "a waypoint that is not ready leaves its part to the other"
    none = msgspec.structs.replace(bound, weighted_waypoints=(WeightedWaypoint(second, 0),))
    assert set(weights(ask("10.96.0.20", 80, none, FAR, WAYPOINT, other, *workloads, more))) == {"a", "b"}


def test_parts_stay_whole_numbers_that_envoy_takes() -> None:
    waypoints = tuple(WeightedWaypoint(BY_NAME, 2**32 - 1 - each) for each in range(3))
    stands = [proxy(f"p{each}", f"10.244.3.{each}", capacity=2**32 - 1 - each) for each in range(3)]
    found = parts(waypoints, 4, Snapshot(stands, [WAYPOINT]), SETTINGS)
    assert len(found) == 9
    assert all(0 < part < 1 << 16 for _, part in found)


def test_a_waypoint_behind_a_node_proxy_needs_no_port_of_its_service() -> None:
    """Its node's proxy takes the tunnel and hands on what is in it."""
    bare = msgspec.structs.replace(WAYPOINT, ports=())
    behind = proxy(
        services={WAYPOINT.key: ()}, application_tunnel=ApplicationTunnel(TunnelledAs.PROXY, 15088)
    )
    (found,) = waypoint(BY_NAME, 4, Snapshot([behind], [bare]), SETTINGS)
    assert (found.choice.workload, getattr(found.choice, "port", 0)) == (behind, 15008)
    plain = msgspec.structs.replace(behind, application_tunnel=None)
    assert waypoint(BY_NAME, 4, Snapshot([plain], [bare]), SETTINGS) == ()
    assert network_gateway(BY_NAME, 4, Snapshot([behind], [bare]), SETTINGS) == ()


EAST = Service(name="east", namespace="gw", hostname="east.test", ports=(Port(15008, 15443),))
TO_EAST = GatewayAddress(15008, namespace="gw", hostname="east.test")
EDGE = one("edge", "172.16.0.9", network="east", services={EAST.key: ()})
ABROAD = one("abroad", network="east", services=FAR.services, network_gateway=TO_EAST)
NAMED = msgspec.structs.replace(WEB, subject_alt_names=("spiffe://cluster.local/ns/default/sa/web",))


def test_an_endpoint_of_another_network_is_reached_by_two_tunnels() -> None:
    found = ask("10.96.0.20", 80, NAMED, ABROAD, FAR, EAST, EDGE)
    assert hops(found) == {
        (names.NETWORK_ORIGINATE, "10.96.0.20:80", "web.default.svc:80"),
        (names.CONNECT_ORIGINATE, "10.244.2.3:15008", "10.244.2.3:8080"),
    }
    asked = names.Inner(4, "web.default.svc:80", NAMED.key, TO_EAST)
    assert names.parse_cluster(names.inner(asked)) == asked
    view = Snapshot([EDGE], [NAMED, EAST])
    inner = answer(names.inner(asked), view, LocalPods(), SETTINGS)
    assert hops(inner) == {(names.CONNECT_ORIGINATE, "172.16.0.9:15443", "web.default.svc:80")}


def test_a_gateway_by_address_is_dialled_there() -> None:
    gateway = GatewayAddress(15008, network="east", address=EDGE.addresses[0])
    asked = names.Inner(6, "web.default.svc:80", NAMED.key, gateway)
    assert names.parse_cluster(names.inner(asked)) == asked
    inner = answer(names.inner(asked), Snapshot([EDGE], [NAMED]), LocalPods(), SETTINGS)
    assert hops(inner) == {(names.CONNECT_ORIGINATE, "172.16.0.9:15008", "web.default.svc:80")}
    assert_refused(answer(names.inner(asked), Snapshot([], [NAMED]), LocalPods(), SETTINGS))


def test_a_server_abroad_that_cannot_prove_itself_is_not_tried() -> None:
    for wrong in (WEB, msgspec.structs.replace(WEB, subject_alt_names=("web.test",))):
        assert_refused(ask("10.96.0.20", 80, wrong, ABROAD, EAST, EDGE))
        asked = names.Inner(4, "web.default.svc:80", wrong.key, TO_EAST)
        assert_refused(answer(names.inner(asked), Snapshot([EDGE], [wrong, EAST]), LocalPods(), SETTINGS))


def test_a_waypoint_of_another_network_is_known_by_its_own_services_names() -> None:
    names_of_waypoint = ("spiffe://cluster.local/ns/default/sa/waypoint",)
    waypoint_service = msgspec.structs.replace(WAYPOINT, subject_alt_names=names_of_waypoint)
    abroad = proxy(network="east", addresses=(), network_gateway=TO_EAST)
    bound = msgspec.structs.replace(WEB, waypoint=BY_NAME)
    cluster = ask("10.96.0.20", 80, bound, FAR, waypoint_service, abroad, EAST, EDGE)
    assert hops(cluster) == {(names.NETWORK_ORIGINATE, "10.96.0.20:80", "web.default.svc:80")}
    (endpoint,) = cluster.load_assignment.endpoints[0].lb_endpoints
    asked = names.parse_cluster(endpoint.metadata.filter_metadata["ambit"]["cluster"])
    assert isinstance(asked, names.Inner)
    assert asked.service == WAYPOINT.key
    workload_bound = msgspec.structs.replace(FAR, waypoint=BY_NAME)
    assert_refused(ask("10.244.2.3", 80, workload_bound, waypoint_service, abroad, EAST, EDGE))


def test_an_address_of_another_network_means_nothing_here() -> None:
    found = ask("172.16.0.9", 80, EDGE, EAST)
    assert found.type == found.ORIGINAL_DST


@pytest.mark.parametrize(
    "name", ["net|4|a:1|b", "net|x|a:1|b/c|d/e:1", "net|4|a:1|b/c|@east/nowhere:1", "net|"]
)
def test_nonsense_is_refused(name: str) -> None:
    assert_refused(answer(name, Snapshot(), LocalPods(), SETTINGS))


def assert_refused(cluster: Any) -> None:
    """It resets at once, with a reason."""
    assert cluster.type == cluster.STATIC
    assert not cluster.load_assignment.endpoints
    assert cluster.metadata.filter_metadata["ambit"]["reason"]
