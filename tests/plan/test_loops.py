"""Services whose endpoints are addresses of services: connections must not go in circles inside Envoy."""

import ipaddress
from typing import Any

import pytest

from ambit.envoy import names
from ambit.model.service import BalancingMode, LoadBalancing, Service, VirtualAddress
from ambit.model.view import Snapshot
from ambit.model.workload import NetworkMode, Port, TunnelProtocol
from ambit.plan.node.destinations import answer
from ambit.plan.values import LocalPods, NodeSettings
from tests.plan.cases import CLIENT, pod, workload

SETTINGS = NodeSettings(node="node1")


def virtual(name: str, address: str) -> Service:
    host = f"{name}.default.svc.cluster.local"
    addresses = (VirtualAddress("", ipaddress.ip_address(address)),)
    return Service(name=name, namespace="default", hostname=host, addresses=addresses, ports=(Port(80, 80),))


@pytest.mark.parametrize(("one", "two"), [("10.96.0.1", "10.96.0.1"), ("10.96.0.1", "10.96.0.2")])
def test_an_endpoint_at_a_services_address_is_not_followed(one: str, two: str) -> None:
    services = {address: virtual(f"s{address[-1]}", address) for address in (one, two)}
    endpoints = [
        workload(
            f"e{address[-1]}",
            towards,
            uid=f"Kubernetes/discovery.k8s.io/EndpointSlice/default/{address}",
            tunnel=TunnelProtocol.NONE,
            network_mode=NetworkMode.HOST_NETWORK,
            services={services[address].key: (Port(80, 80),)},
        )
        for address, towards in ((one, two), (two, one))
    ]
    outside = workload(
        "outside",
        "192.0.2.1",
        tunnel=TunnelProtocol.NONE,
        network_mode=NetworkMode.HOST_NETWORK,
        services={services[one].key: (Port(80, 80),)},
    )
    source = pod(CLIENT)
    name = names.destination(source.key, ipaddress.ip_address(one), 80)
    alone = answer(name, Snapshot(endpoints, services.values()), LocalPods([source]), SETTINGS)
    assert not alone.load_assignment.endpoints
    mixed = answer(name, Snapshot([*endpoints, outside], services.values()), LocalPods([source]), SETTINGS)
    assert len(mixed.load_assignment.endpoints[0].lb_endpoints) == 1


RANGE = VirtualAddress("", ipaddress.ip_address("10.244.2.0"), 24)
FAR = workload("far", "10.244.2.3")


@pytest.mark.parametrize("mode", [BalancingMode.UNSPECIFIED, BalancingMode.PASSTHROUGH])
@pytest.mark.parametrize("virtual_address", [RANGE, VirtualAddress("", ipaddress.ip_address("10.244.2.3"))])
def test_no_address_of_a_service_takes_a_pod_out_of_the_mesh(
    virtual_address: VirtualAddress, mode: BalancingMode
) -> None:
    """The way to the pod's own address stays a tunnel, whatever a ServiceEntry says about addresses around it."""
    service = Service(
        name="entry",
        namespace="default",
        hostname="entry.test",
        addresses=(virtual_address,),
        ports=(Port(80, 80),),
        load_balancing=LoadBalancing(mode=mode),
    )
    source = pod(CLIENT)
    name = names.destination(source.key, FAR.addresses[0], 80)
    found = answer(name, Snapshot([FAR], [service]), LocalPods([source]), SETTINGS)
    is_tunnel = [
        each.endpoint.address.envoy_internal_address.server_listener_name for each in endpoints_of(found)
    ]
    assert is_tunnel == [names.CONNECT_ORIGINATE]


def test_an_entry_of_its_own_address_leads_to_its_endpoints() -> None:
    entry = Service(
        name="entry",
        namespace="default",
        hostname="entry.test",
        addresses=(VirtualAddress("", ipaddress.ip_address("192.0.2.7")),),
        ports=(Port(80, 80),),
    )
    outside = workload(
        "outside",
        "192.0.2.7",
        uid="Kubernetes/networking.istio.io/WorkloadEntry/default/outside",
        tunnel=TunnelProtocol.NONE,
        node="",
    )
    source = pod(CLIENT)
    name = names.destination(source.key, outside.addresses[0], 80)
    found = answer(name, Snapshot([outside], [entry]), LocalPods([source]), SETTINGS)
    assert found.type == found.STATIC
    assert not endpoints_of(found), "the service has no endpoint, and nobody goes round it"


@pytest.mark.parametrize("tunnel", TunnelProtocol)
def test_a_workload_entry_with_a_pods_address_changes_nothing(tunnel: TunnelProtocol) -> None:
    uid = "Kubernetes/networking.istio.io/WorkloadEntry/aaa/shadow"
    shadow = workload("shadow", "10.244.2.3", uid=uid, namespace="aaa", tunnel=tunnel, node="")
    source = pod(CLIENT)
    name = names.destination(source.key, FAR.addresses[0], 80)
    alone = answer(name, Snapshot([FAR]), LocalPods([source]), SETTINGS)
    for several in ([FAR, shadow], [shadow, FAR]):
        assert answer(name, Snapshot(several), LocalPods([source]), SETTINGS) == alone


def test_an_endpoint_inside_its_services_own_range_is_followed() -> None:
    entry = Service(
        name="entry", namespace="default", hostname="entry.test", addresses=(RANGE,), ports=(Port(80, 80),)
    )
    endpoint = workload(
        "e", "10.244.2.9", tunnel=TunnelProtocol.NONE, node="", services={entry.key: (Port(80, 80),)}
    )
    source, view = pod(CLIENT), Snapshot([endpoint], [entry])
    for address, listeners in (("10.244.2.77", [names.DIRECT_ORIGINATE]), ("10.244.2.9", [])):
        name = names.destination(source.key, ipaddress.ip_address(address), 80)
        found = answer(name, view, LocalPods([source]), SETTINGS)
        named = [
            each.endpoint.address.envoy_internal_address.server_listener_name for each in endpoints_of(found)
        ]
        assert named == listeners
    assert found.type == found.ORIGINAL_DST


def endpoints_of(cluster: Any) -> list[Any]:
    return [each for locality in cluster.load_assignment.endpoints for each in locality.lb_endpoints]
