"""UDP listeners and UDPRoutes: what is accepted, and where datagrams are to go."""

import ipaddress
from typing import Any

import msgspec
import pytest

from ambit.ingest.mesh import MeshCompiler
from ambit.model.http import Backend
from ambit.model.status import RouteStatus
from ambit.model.streams import Datagrams
from tests.ingest.build import Given, service, udp_service
from tests.ingest.gateway.build import edge, grant, listener, route, to
from tests.ingest.gateway.test_edge import listeners, status
from tests.ingest.gateway.test_gateways import said
from tests.ingest.test_mesh import change, compiler

UDP = listener("udp", 53, "UDP")
DNS = "default/dns.default.svc.cluster.local"


def udp_route(*backends: dict[str, Any], **more: Any) -> Given:
    given = {"parents": ({"name": "edge"},), **more}
    return route({"backendRefs": list(backends)}, kind="udproutes", **given)


def conditions(made: MeshCompiler) -> dict[str, tuple[str, str]]:
    found = made.statuses["UDPRoute default/route"]
    assert isinstance(found, RouteStatus)
    return said(found.parents[0].conditions)


def endpoints(made: MeshCompiler) -> list[str]:
    return [f"{address} {port}" for address, port in made.datagrams[f"{DNS}:53"].endpoints]


def test_a_udp_route_is_attached_and_leads_to_ports_of_udp() -> None:
    made = compiler(edge(UDP), *udp_service("dns", ("10.1.0.1", 5353)), udp_route(to("dns", 53, weight=7)))
    assert conditions(made) == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    (found,) = status(made).listeners
    assert (found.kinds, found.attached) == (("UDPRoute",), 1)
    stream, nobody = made.listener_routes["default/edge#udp"].streams
    assert stream.backends == (Backend(DNS, 53, 7),) and not nobody.backends
    assert made.datagrams[f"{DNS}:53"] == Datagrams(DNS, 53, ((ipaddress.ip_address("10.1.0.1"), 5353),))
    assert made.services[DNS].ports == (), "nodes carry no UDP"


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (to("web", 80), "BackendNotFound"),
        (to("dns", 54), "BackendNotFound"),
        (to("gone", 53), "BackendNotFound"),
        (to("dns", 53, namespace="other"), "RefNotPermitted"),
        (to("a.example.com", 53, group="networking.istio.io", kind="Hostname"), "InvalidKind"),
    ],
)
def test_a_backend_is_a_port_of_udp_of_a_service_that_may_be_named(
    backend: dict[str, Any], reason: str
) -> None:
    web = service("web", {"app": "web"})
    made = compiler(edge(UDP), *udp_service("dns", ("10.1.0.1", 53)), web, udp_route(backend))
    assert conditions(made) == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("False", reason)}
    assert made.listener_routes["default/edge#udp"].streams[0].backends == (Backend("", 0),)


def test_a_grant_lets_it_name_a_service_of_another_namespace() -> None:
    made = compiler(
        edge(UDP),
        *udp_service("dns", ("10.1.0.1", 53), namespace="other"),
        grant("other", "default", kind="UDPRoute"),
        udp_route(to("dns", 53, namespace="other")),
    )
    assert conditions(made)["ResolvedRefs"] == ("True", "ResolvedRefs")


def test_each_kind_of_route_has_its_own_listeners() -> None:
    tcp = route({"backendRefs": [to("web")]}, parents=({"name": "edge"},), kind="tcproutes")
    made = compiler(edge(UDP), service("web", {"app": "web"}), tcp)
    refused = made.statuses["TCPRoute default/route"]
    assert isinstance(refused, RouteStatus)
    assert said(refused.parents[0].conditions)["Accepted"] == ("False", "NotAllowedByListeners")
    made = compiler(edge(listener("tcp", 53, "TCP")), udp_route(to("dns", 53)))
    assert conditions(made)["Accepted"] == ("False", "NotAllowedByListeners")


def test_a_port_of_udp_is_none_of_tcp() -> None:
    made = compiler(edge(listener("tcp", 53, "TCP"), UDP, {**UDP, "name": "second"}))
    assert {name: each["Conflicted"] for name, each in listeners(made).items()} == {
        "tcp": ("False", "NoConflicts"),
        "udp": ("False", "NoConflicts"),
        "second": ("True", "HostnameConflict"),
    }
    made = compiler(edge(listener("own", 15021, "UDP")))
    assert listeners(made)["own"]["Accepted"] == ("False", "PortUnavailable"), "where nobody is led to"


def test_endpoints_are_those_that_are_ready_and_others_than_the_proxys_own() -> None:
    places = (
        ("10.1.0.2", 53),
        ("10.1.0.1", 53),
        ("127.0.0.1", 53),
        ("169.254.169.254", 53),
        ("224.0.0.1", 53),
    )
    made = compiler(edge(UDP), *udp_service("dns", *places), udp_route(to("dns", 53)))
    assert endpoints(made) == ["10.1.0.1 53", "10.1.0.2 53"]
    routes = made.listener_routes
    delta = made.apply([change(each) for each in udp_service("dns", *places, ready=False)])
    assert endpoints(made) == [] and set(delta.datagrams.upserts) == {f"{DNS}:53"}
    assert not delta.listener_routes and made.listener_routes == routes, "endpoints make no route anew"


def test_of_both_families_the_first_counts() -> None:
    slices = [udp_service("dns", (address, 53))[1][1] for address in ("fd00::1", "10.1.0.1")]
    slices[0]["metadata"]["name"] = "dns-6"
    given = [("endpointslices.discovery.k8s.io", each) for each in slices]
    made = compiler(udp_service("dns")[0], *given)
    assert endpoints(made) == ["10.1.0.1 53"]
    six = change(given[1])
    made.apply([msgspec.structs.replace(six, value=None)])
    assert endpoints(made) == ["fd00::1 53"]


def test_other_names_of_services_have_no_datagrams() -> None:
    resource, body = udp_service("dns")[0]
    made = compiler((resource, {**body, "spec": {**body["spec"], "type": "ExternalName"}}))
    assert not made.datagrams
