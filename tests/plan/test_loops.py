"""Services whose endpoints are addresses of services: connections must not go in circles inside Envoy."""

import ipaddress

import pytest

from ambit.envoy import names
from ambit.model.service import Service, VirtualAddress
from ambit.model.view import Snapshot
from ambit.model.workload import NetworkMode, Port, TunnelProtocol
from ambit.plan.destinations import answer
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
