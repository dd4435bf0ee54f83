"""Whose an address of a load balancer is, whatever statuses say."""

import ipaddress

import msgspec
import pytest

from ambit.local.fabric.holders import Holders, settled
from ambit.local.fabric.load_balancer import put_right
from ambit.local.fabric.service_table import entries, service_table
from ambit.local.fabric.services import Ingress, LoadBalancer, Metadata, Service, ServicePort, ServiceStatus
from tests.local.fabric.build import NODES
from tests.local.fabric.objects import endpoint, endpoint_slice, service

FIRST, SECOND = "172.30.1.1", "172.30.1.2"
FOREIGN = {"load_balancer_class": "example.com/other"}


def balancer(name: str, born: int, *given: str, kind: str = "LoadBalancer", **spec: object) -> Service:
    built = service(name, f"10.96.0.{born}", ports=(ServicePort(80),), type=kind, **spec)
    meta = Metadata(name, "default", uid=f"{name}-{born}", creation_timestamp=f"2026-01-01T00:00:{born:02}Z")
    return msgspec.structs.replace(
        built, metadata=meta, status=ServiceStatus(LoadBalancer(tuple(map(Ingress, given))))
    )


def having(services: list[Service], before: Holders | None = None) -> dict[str, tuple[str, ...]]:
    return {each.metadata.name: each.balancer_addresses for each in settled(services, before or {})[0]}


@pytest.mark.parametrize(
    "address", [FIRST, "172.30.0.11", "10.244.1.2", "10.96.0.1", "fd00:ac1e::1:1", "127.0.0.1"]
)
def test_somebody_elses_load_balancer_gives_nothing_of_the_clusters_own(address: str) -> None:
    thief = balancer("a-thief", 1, address, "192.0.2.9", **FOREIGN)
    assert having([thief]) == {"a-thief": ("192.0.2.9",)}


def test_a_status_counts_on_load_balancers_only() -> None:
    assert having([balancer("a", 1, "192.0.2.9", kind="ClusterIP", **FOREIGN)]) == {"a": ()}


@pytest.mark.parametrize("given", [("192.0.2.9",), ("172.30.0.11",), (FIRST, SECOND), ("fd00:ac1e::1:1",)])
def test_ours_gives_addresses_of_its_own_and_no_more_than_wanted(given: tuple[str, ...]) -> None:
    thief = balancer("a-thief", 1, *given)
    assert having([thief]) == {"a-thief": ()}
    assert put_right(settled([thief], {})[0], {thief.key: given}) == {thief.key: (FIRST,)}


def test_who_has_an_address_keeps_it_and_who_says_so_later_gets_another() -> None:
    thief, gateway = balancer("a-thief", 1), balancer("gateway", 2, FIRST)
    _, before = settled([thief, gateway], {})
    thief = balancer("a-thief", 1, FIRST)
    found, after = settled([thief, gateway], before)
    assert having([thief, gateway], before) == {"a-thief": (), "gateway": (FIRST,)}
    assert after == before == {ipaddress.ip_address(FIRST): (gateway.key, "gateway-2")}
    assert put_right(found, {each.key: each.balancer_addresses for each in (thief, gateway)}) == {
        thief.key: (SECOND,)
    }
    assert having([thief, balancer("gateway", 3, FIRST)], before) == {"a-thief": (FIRST,), "gateway": ()}


def test_nobody_knew_before_so_the_oldest_has_it() -> None:
    assert having([balancer("a", 2, FIRST), balancer("b", 1, FIRST)]) == {"a": (), "b": (FIRST,)}


def test_what_a_status_says_too_much_is_taken_out_of_it() -> None:
    asking = balancer("a", 2, FIRST, load_balancer_ip=FIRST)
    had = balancer("b", 1, FIRST)
    found, _ = settled([asking, had], {})
    assert put_right(found, {asking.key: (FIRST,), had.key: (FIRST,)}) == {asking.key: ()}
    plain = balancer("c", 3, FIRST, kind="ClusterIP")
    assert put_right(settled([plain], {})[0], {plain.key: (FIRST,)}) == {plain.key: ()}


def test_several_services_share_an_address_of_somebody_elses_and_the_oldest_has_a_port() -> None:
    shared = "192.0.2.9"
    old = balancer("z-old", 1, shared, **FOREIGN)
    more = msgspec.structs.replace(
        (new := balancer("a-new", 2, shared, **FOREIGN)),
        spec=msgspec.structs.replace(new.spec, ports=(ServicePort(80), ServicePort(81))),
    )
    slices = {each.key: (endpoint_slice(each.metadata.name, endpoint("10.244.1.2")),) for each in (old, more)}
    text = service_table(entries(settled([more, old], {})[0], slices, NODES, "node1"))
    assert f"{shared} . tcp . 80 : goto to-default/z-old/tcp/80/v4" in text
    assert f"{shared} . tcp . 81 : goto to-default/a-new/tcp/81/v4" in text
