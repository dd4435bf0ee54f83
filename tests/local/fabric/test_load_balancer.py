"""Addresses of load balancers: one for each family, unique, kept, and given back."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.local.fabric.load_balancer import Changes, assign
from ambit.local.fabric.services import Ingress, LoadBalancer, Service, ServiceStatus
from tests.local.fabric.objects import service

FAMILIES = [("10.96.0.20",), ("fd00:10:96::20",), ("10.96.0.20", "fd00:10:96::20")]


def made(index: int, kind: str, addresses: tuple[str, ...], old: tuple[str, ...] = ()) -> Service:
    built = service(f"s{index}", *addresses, type=kind)
    return with_addresses(built, old)


def with_addresses(of: Service, addresses: tuple[str, ...]) -> Service:
    status = ServiceStatus(LoadBalancer(tuple(Ingress(address) for address in addresses)))
    return msgspec.structs.replace(of, status=status)


def written(services: list[Service], changes: Changes) -> list[Service]:
    return [with_addresses(each, changes.get(each.key, each.balancer_addresses)) for each in services]


kinds = st.sampled_from(["ClusterIP", "LoadBalancer"])
old = st.sampled_from([(), ("172.30.1.1",), ("172.30.1.2", "fd00:ac1e::1:1"), ("fd00:ac1e::1:9",)])
lists = st.lists(st.tuples(kinds, st.sampled_from(FAMILIES), old), max_size=8).map(
    lambda rows: [made(index, *row) for index, row in enumerate(rows)]
)


@given(lists)
def test_writing_once_is_enough_and_families_match(services: list[Service]) -> None:
    after = written(services, assign(services))
    assert assign(after) == {}
    for each in after:
        wanted = [":" in text for text in each.cluster_addresses] if each.balanced else []
        assert [":" in text for text in each.balancer_addresses] == wanted


@given(lists)
def test_new_addresses_are_unique_and_right_ones_are_kept(services: list[Service]) -> None:
    changes = assign(services)
    given_out = [address for addresses in changes.values() for address in addresses]
    assert len(given_out) == len(set(given_out))
    kept = {
        address
        for each in services
        if each.key not in changes and each.balanced
        for address in each.balancer_addresses
    }
    assert not kept & set(given_out)


def asking(name: str, wanted: str, *old: str) -> Service:
    return with_addresses(service(name, "10.96.0.20", type="LoadBalancer", load_balancer_ip=wanted), old)


def test_who_asks_for_an_address_gets_it_or_none() -> None:
    usual = with_addresses(service("a", "10.96.0.21", type="LoadBalancer"), ())
    changes = assign([usual, asking("b", "172.30.1.1"), asking("c", "172.30.1.1")])
    assert changes == {("default", "a"): ("172.30.1.2",), ("default", "b"): ("172.30.1.1",)}
    kept = asking("c", "172.30.1.1", "172.30.1.1")
    assert assign([asking("b", "172.30.1.1"), kept]) == {}


@pytest.mark.parametrize("wanted", ["192.0.2.1", "172.30.1.0", "172.30.1.255", "fd00::1", "nonsense"])
def test_who_asks_for_somebody_elses_address_gets_none(wanted: str) -> None:
    assert assign([asking("a", wanted)]) == {}
    assert assign([asking("a", wanted, "172.30.1.7")]) == {("default", "a"): ()}


def test_other_classes_are_left_alone_and_a_full_pool_gives_nothing() -> None:
    other = service("other", "10.96.0.20", type="LoadBalancer", load_balancer_class="example.com/other")
    assert assign([other]) == {}
    many = [made(index, "LoadBalancer", ("10.96.0.20",)) for index in range(256)]
    changes = assign(many)
    assert len(changes) == 254
