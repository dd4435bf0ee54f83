"""Which endpoints of a service count: health, ports, network, locality, capacity, address family."""

import ipaddress
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.address import Address
from ambit.model.service import BalancingMode, HealthPolicy, IpFamilies, LoadBalancing, Scope, Service
from ambit.model.view import Snapshot
from ambit.model.workload import GatewayAddress, Locality, Port, TunnelProtocol, Workload, WorkloadStatus
from ambit.plan.endpoints import Choice, NamedChoice, RemoteChoice, all_choices, choices, for_client
from ambit.plan.node.node_proxy import NodeSettings
from ambit.plan.values import place_of
from tests.plan.cases import pod, workload

KEY = "default/web.default.svc.cluster.local"
SERVICE = Service(
    name="web",
    namespace="default",
    hostname="web.default.svc.cluster.local",
    ports=(Port(80, 8080), Port(81, 0)),
)
SETTINGS = NodeSettings(node="node1", region="r1", zone="z1")


def endpoint(name: str, **more: object) -> Workload:
    number = int.from_bytes(name.encode(), "big") % 200 + 2
    return workload(name, f"10.0.0.{number}", f"fd00::{number:x}", **{"services": {KEY: ()}, **more})


def names(*workloads: Workload, service: Service = SERVICE, port: int = 80, family: int = 4) -> list[str]:
    found = choices(service, port, family, Snapshot(workloads), SETTINGS)
    return [choice.workload.name for choice in found]


def balanced(mode: BalancingMode, *scopes: Scope) -> Service:
    return msgspec.structs.replace(SERVICE, load_balancing=LoadBalancing(scopes, mode))


def test_only_workloads_that_name_the_service() -> None:
    assert names(endpoint("a"), endpoint("b", services={}), endpoint("c")) == ["a", "c"]


def test_unhealthy_ones_only_when_all_are_allowed() -> None:
    sick = endpoint("a", status=WorkloadStatus.UNHEALTHY)
    assert names(sick) == []
    everyone = msgspec.structs.replace(
        SERVICE, load_balancing=LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL)
    )
    assert names(sick, service=everyone) == ["a"]


def test_other_networks_and_empty_ones_do_not_count() -> None:
    assert names(endpoint("a", network="other"), endpoint("b", capacity=0), endpoint("c", addresses=())) == []


def test_a_workloads_own_port_goes_before_the_services() -> None:
    own, named = (
        endpoint("a", services={KEY: (Port(80, 9000),)}),
        endpoint("b", services={KEY: (Port(81, 7000),)}),
    )
    view = Snapshot([own, named, endpoint("c")])
    assert [each.port for each in choices(SERVICE, 80, 4, view, SETTINGS)] == [9000, 8080, 8080]
    assert [each.workload.name for each in choices(SERVICE, 81, 4, view, SETTINGS)] == ["b"]
    assert choices(SERVICE, 82, 4, view, SETTINGS) == ()


@pytest.mark.parametrize("family", [4, 6])
def test_the_family_that_was_asked_for(family: int) -> None:
    only6 = endpoint("b", addresses=(ipaddress.ip_address("fd00::9"),))
    found = choices(SERVICE, 80, family, Snapshot([endpoint("a"), only6]), SETTINGS)
    assert [each.address.version for each in found] == [family, 6]


def test_one_without_an_address_is_chosen_by_its_name() -> None:
    named = endpoint(
        "b", addresses=(), hostname="b.test", locality=Locality("r1"), tunnel=TunnelProtocol.NONE
    )
    view = Snapshot([endpoint("a"), named])
    assert [type(each) for each in all_choices(SERVICE, 80, 4, view, SETTINGS)] == [Choice, NamedChoice]
    assert [each.workload.name for each in choices(SERVICE, 80, 4, view, SETTINGS)] == ["a"]
    near = all_choices(balanced(BalancingMode.FAILOVER, Scope.REGION), 80, 4, view, SETTINGS)
    assert near == (NamedChoice(named, 8080),)


def test_one_that_wants_a_tunnel_is_not_dialled_by_its_name() -> None:
    named = endpoint("b", addresses=(), hostname="b.test")
    assert all_choices(SERVICE, 80, 4, Snapshot([named]), SETTINGS) == ()


@pytest.mark.parametrize(
    ("families", "versions"),
    [
        (IpFamilies.AUTOMATIC, [4, 6]),
        (IpFamilies.DUAL, [4, 6]),
        (IpFamilies.IPV4_ONLY, [4]),
        (IpFamilies.IPV6_ONLY, [6]),
    ],
)
def test_only_addresses_of_families_that_the_service_has(families: IpFamilies, versions: list[int]) -> None:
    service = msgspec.structs.replace(SERVICE, ip_families=families)
    both = endpoint("a")
    singles = [endpoint(f"b{each.version}", addresses=(each,)) for each in both.addresses]
    for family in versions:
        found = choices(service, 80, family, Snapshot([both, *singles]), SETTINGS)
        assert found[0].address.version == family
        assert sorted(each.address.version for each in found[1:]) == versions


GATEWAY = GatewayAddress(15008, namespace="gateways", hostname="east.test")


def test_other_networks_count_if_they_have_a_gateway() -> None:
    remote = endpoint("a", network="east", addresses=(), network_gateway=GATEWAY)
    lost = endpoint("b", network="east")
    view = Snapshot([remote, lost, endpoint("c")])
    found = all_choices(SERVICE, 80, 4, view, SETTINGS)
    assert [type(each) for each in found] == [RemoteChoice, Choice]
    assert found[0] == RemoteChoice(remote, GATEWAY)
    here = msgspec.structs.replace(SETTINGS, network="east")
    assert [each.workload.name for each in all_choices(SERVICE, 80, 4, view, here)] == ["b"]


def test_the_own_network_is_preferred_before_everything_and_others_are_sorted_too() -> None:
    """As ztunnel's: what does not match the network goes on with the other scopes."""
    service = balanced(BalancingMode.FAILOVER, Scope.NETWORK, Scope.REGION, Scope.ZONE)
    here = endpoint("a", locality=Locality("r9"))
    near = endpoint("b", network="east", network_gateway=GATEWAY, locality=Locality("r1", "z1"))
    away = endpoint("c", network="east", network_gateway=GATEWAY, locality=Locality("r1"))

    def chosen(*workloads: Workload, service: Service = service) -> list[str]:
        found = all_choices(service, 80, 4, Snapshot(workloads), SETTINGS)
        return [each.workload.name for each in found]

    assert chosen(here, near, away) == ["a"]
    assert chosen(near, away) == ["b"]
    assert chosen(away) == ["c"]
    strict = balanced(BalancingMode.STRICT, Scope.NETWORK, Scope.REGION)
    assert chosen(here, near, service=strict) == []
    assert chosen(endpoint("d", locality=Locality("r1")), near, service=strict) == ["d"]


def test_failover_keeps_the_best_rank() -> None:
    here = endpoint("a", locality=Locality("r1", "z1"))
    near = endpoint("b", locality=Locality("r1", "z2"))
    away = endpoint("c", locality=Locality("r2", "z1"))
    service = balanced(BalancingMode.FAILOVER, Scope.REGION, Scope.ZONE)
    assert names(here, near, away, service=service) == ["a"]
    assert names(near, away, service=service) == ["b"]
    assert names(away, service=service) == ["c"]


def test_strict_keeps_full_matches_only() -> None:
    service = balanced(BalancingMode.STRICT, Scope.NODE)
    assert names(endpoint("a", node="node1"), endpoint("b"), service=service) == ["a"]
    assert names(endpoint("b"), service=service) == []


ADDRESSES = st.integers(1, 1 << 16).map(lambda number: ipaddress.ip_address((10 << 24) + number))
STICKY = msgspec.structs.replace(SERVICE, session_affinity=True)


def chosen(client: Address, *workloads: Workload) -> str:
    """Who serves this client of a service with session affinity."""
    (found,) = for_client(STICKY, [client], choices(STICKY, 80, 4, Snapshot(workloads), SETTINGS))
    return found.workload.name


@given(ADDRESSES, st.sets(st.sampled_from("abcdefgh"), min_size=2), st.data())
def test_with_affinity_a_client_moves_only_when_it_must(
    client: Address, serving: set[str], data: st.DataObject
) -> None:
    """Not while others go, and only to a new one when one comes."""
    gone = data.draw(st.sampled_from(sorted(serving)))
    before, after = (
        chosen(client, *(endpoint(each) for each in sorted(some))) for some in (serving, serving - {gone})
    )
    assert before in (gone, after)


def test_with_affinity_clients_are_spread_by_capacity() -> None:
    clients = [ipaddress.ip_address((10 << 24) + number) for number in range(1, 3001)]
    found = Counter(chosen(each, endpoint("a"), endpoint("b", capacity=2)) for each in clients)
    assert found["a"] + found["b"] == 3000
    assert 900 < found["a"] < 1100


def test_affinity_is_of_the_client_whatever_family_it_uses() -> None:
    both = [ipaddress.ip_address("fd00::1"), ipaddress.ip_address("10.0.0.1")]
    view = Snapshot([endpoint(each) for each in "abcdefgh"])
    found = [
        for_client(STICKY, addresses, choices(STICKY, 80, family, view, SETTINGS))
        for addresses, family in ((both, 4), (both, 6), (both[1:], 4))
    ]
    assert len({each.workload.name for (each,) in found}) == 1


def test_without_affinity_all_endpoints_are_for_everybody() -> None:
    found = choices(SERVICE, 80, 4, Snapshot([endpoint("a"), endpoint("b")]), SETTINGS)
    assert for_client(SERVICE, [ipaddress.ip_address("10.0.0.1")], found) == found
    assert for_client(STICKY, [ipaddress.ip_address("10.0.0.1")], ()) == ()


def test_a_caller_is_where_its_own_record_says() -> None:
    client = workload("client", "10.0.1.1", node="node1", locality=Locality("r2", "z2", "s"))
    local = pod(client)
    moved = place_of(local, Snapshot([client]), SETTINGS)
    assert (moved.region, moved.zone, moved.subzone, moved.node) == ("r2", "z2", "s", "node1")
    assert place_of(local, Snapshot(), SETTINGS) == SETTINGS
