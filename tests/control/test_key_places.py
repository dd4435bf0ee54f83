"""Where keys may be fetched: nobody reaches a place by the control plane that he should not."""

import ipaddress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.control.token_keys.places import Limits, Places, plain
from ambit.control.view import LiveView
from ambit.core.address import Address
from ambit.core.identity import Identity
from ambit.graph.collection import Delta
from ambit.ingest.mesh import MeshDelta
from ambit.model.service import Service, VirtualAddress
from ambit.model.workload import NetworkMode, Port, Workload, WorkloadStatus


def service(name: str, *addresses: str, namespace: str = "auth", **more: Any) -> Service:
    return Service(
        name,
        namespace,
        f"{name}.{namespace}.svc.cluster.local",
        addresses=tuple(VirtualAddress("", ipaddress.ip_address(each)) for each in addresses),
        ports=(Port(80, 8080),),
        canonical=True,
        **more,
    )


def pod(name: str, address: str, of: Service, **more: Any) -> Workload:
    return Workload(
        uid=f"Kubernetes//Pod/auth/{name}",
        name=name,
        namespace="auth",
        identity=Identity("cluster.local", "auth", name),
        addresses=(ipaddress.ip_address(address),),
        services={of.key: of.ports},
        **more,
    )


IDP, HEADLESS, OPEN = service("idp", "10.96.0.7"), service("headless"), service("open", "10.96.0.8")
NODE = service("node", "10.96.0.9")
TAKEN, EMPTY = service("taken", "10.96.0.10"), service("empty", "10.96.0.11")
API = service("kubernetes", "10.96.0.1", namespace="default")
ISTIOD = service("istiod", "10.96.0.2", namespace="ambit-system")
ENTRY = msgspec.structs.replace(service("outside", "240.240.0.1"), hostname="outside.example", canonical=True)
SERVICES = (IDP, HEADLESS, OPEN, NODE, TAKEN, EMPTY, API, ISTIOD, ENTRY)
WORKLOADS = (
    pod("idp", "10.244.1.2", IDP),
    pod("istiod", "10.244.9.9", ISTIOD),
    pod("headless", "10.244.1.3", HEADLESS),
    pod("public", "8.8.4.4", IDP),
    pod("node", "172.30.0.11", NODE, network_mode=NetworkMode.HOST_NETWORK),
    pod("away", "10.244.1.1", IDP, status=WorkloadStatus.UNHEALTHY),
    msgspec.structs.replace(pod("theirs", "10.244.1.4", TAKEN), namespace="other"),
    msgspec.structs.replace(
        pod("x", "172.30.0.12", OPEN), uid="Kubernetes/discovery.k8s.io/EndpointSlice/auth/open/172.30.0.12"
    ),
    msgspec.structs.replace(
        pod("api", "20.0.0.1", API), uid="Kubernetes/discovery.k8s.io/EndpointSlice/a/b/c"
    ),
)


def places(*allowed: str) -> Places:
    view = LiveView()
    view.take(
        MeshDelta(
            services=Delta({each.key: each for each in SERVICES}),
            workloads=Delta({each.uid: each for each in WORKLOADS}),
        )
    )
    networks = tuple(ipaddress.ip_network(each) for each in allowed)
    return Places(view, Limits(networks=networks, is_granted=is_granted, is_own=is_own))


def is_granted(namespace: str, service_namespace: str, service: str) -> bool:
    return (namespace, service_namespace, service) == ("shop", "auth", "idp")


def is_own(address: Address) -> bool:
    return str(address) == "93.184.216.99"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("issuer.example", "93.184.216.34"),
        ("issuer.example", "2606:2800:220:1::1"),
        ("idp.auth.svc.cluster.local", "10.96.0.7"),
        ("idp.auth.svc", "10.96.0.7"),
        ("IDP.auth.", "10.96.0.7"),
        ("headless.auth", "10.244.1.3"),
    ],
)
def test_asked(host: str, address: str) -> None:
    assert places().why_not("auth", host, ipaddress.ip_address(address)) == ""


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("localhost", "127.0.0.1"),
        ("a.example", "127.8.0.1"),
        ("a.example", "::1"),
        ("a.example", "::ffff:127.0.0.1"),
        ("a.example", "64:ff9b::7f00:1"),
        ("a.example", "2002:7f00:1::"),
        ("a.example", "0.0.0.0"),
        ("a.example", "::"),
        ("a.example", "169.254.169.254"),
        ("a.example", "64:ff9b::a9fe:a9fe"),
        ("a.example", "fe80::1"),
        ("a.example", "fd00:ec2::254"),
        ("a.example", "100.100.100.200"),
        ("a.example", "168.63.129.16"),
        ("a.example", "224.0.0.1"),
        ("a.example", "10.0.0.1"),
        ("a.example", "172.30.0.11"),
        ("a.example", "fd00::1"),
        ("a.example", "100.64.0.1"),
        # Somebody else's name for a Service, a pod with a public address, and the API server.
        ("a.example", "10.96.0.7"),
        ("10.96.0.7", "10.96.0.7"),
        ("idp.other.svc", "10.96.0.7"),
        ("idp.auth.svc.example", "10.96.0.7"),
        ("headless.auth.svc", "10.96.0.7"),
        ("a.example", "8.8.4.4"),
        ("kubernetes.default.svc", "10.96.0.1"),
        ("a.example", "20.0.0.1"),
        # Services behind which somebody put what is no pod.
        ("open.auth.svc", "10.96.0.8"),
        ("node.auth.svc", "10.96.0.9"),
        ("taken.auth.svc", "10.96.0.10"),
        ("outside.example", "240.240.0.1"),
        # The control plane itself, by its Service, its pod and an address of its machine.
        ("istiod.ambit-system.svc", "10.96.0.2"),
        ("istiod.ambit-system.svc", "10.244.9.9"),
        ("a.example", "93.184.216.99"),
    ],
)
def test_not_asked(host: str, address: str) -> None:
    assert (
        places()
        .why_not("auth", host, ipaddress.ip_address(address))
        .startswith(("kubernetes", host.split(".")[0]))
    )


@pytest.mark.parametrize(
    ("namespace", "host", "address", "is_allowed", "is_shown"),
    [
        ("auth", "idp.auth.svc", "10.96.0.7", True, True),
        ("istio-system", "idp.auth.svc", "10.96.0.7", True, True),
        ("shop", "idp.auth.svc", "10.96.0.7", True, False),
        ("shop", "headless.auth.svc", "10.244.1.3", False, False),
        ("other", "idp.auth.svc", "10.96.0.7", False, False),
        ("", "idp.auth.svc", "10.96.0.7", False, False),
        ("shop", "issuer.example", "93.184.216.34", True, True),
        ("shop", "issuer.internal", "10.20.0.1", True, False),
    ],
)
def test_services_of_other_namespaces_need_a_grant(
    namespace: str, host: str, address: str, *, is_allowed: bool, is_shown: bool
) -> None:
    decided = places("10.20.0.0/16")
    reason = decided.why_not(namespace, host, ipaddress.ip_address(address))
    assert (reason == "") is is_allowed
    assert is_allowed or "ReferenceGrant in namespace auth" in reason
    assert decided.discloses(namespace, host, ipaddress.ip_address(address)) is is_shown


@pytest.mark.parametrize(
    ("host", "address", "port", "expected"),
    [
        ("idp.auth.svc", "10.96.0.7", 80, ("10.244.1.2", 8080)),
        # A slice of the same Service may say anything, where there are no pods too.
        ("idp.auth.svc", "10.96.0.7", 81, None),
        ("empty.auth.svc", "10.96.0.11", 80, None),
        ("headless.auth.svc", "10.244.1.3", 8080, ("10.244.1.3", 8080)),
        ("issuer.example", "93.184.216.34", 443, ("93.184.216.34", 443)),
    ],
)
def test_a_services_pods_are_dialled(
    host: str, address: str, port: int, expected: tuple[str, int] | None
) -> None:
    found = places().dialled(host, ipaddress.ip_address(address), port)
    assert found == (expected and (ipaddress.ip_address(expected[0]), expected[1]))


def test_networks_that_are_allowed() -> None:
    more = places("10.0.0.0/8", "0.0.0.0/0", "::/0")
    assert more.why_not("auth", "a.example", ipaddress.ip_address("10.0.0.1")) == ""
    assert more.why_not("auth", "a.example", ipaddress.ip_address("fd00::1")) == ""
    for never in ("127.0.0.1", "169.254.169.254", "10.96.0.1", "168.63.129.16", "::1"):
        assert more.why_not("auth", "a.example", ipaddress.ip_address(never))


@given(st.ip_addresses(v=4))
def test_an_address_in_another_form_is_the_same(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(0xFFFF << 32 | int(address))
    translated = ipaddress.IPv6Address((0x64FF9B << 96) | int(address))
    tunnelled = ipaddress.IPv6Address(0x2002 << 112 | int(address) << 80)
    assert {plain(each) for each in (mapped, translated, tunnelled)} == {address}
