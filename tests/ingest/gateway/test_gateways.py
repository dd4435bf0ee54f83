"""Gateways of our classes, and what their status says: `ambit.ingest.gateway.gateways`."""

from typing import Any

import pytest

from ambit.core.identity import Identity
from ambit.ingest.gateway.features import Place, supported
from ambit.ingest.mesh import MeshCompiler
from ambit.model.proxy import Listener, Protocol, ProxyKind, WaypointFor
from ambit.model.status import Condition, GatewayStatus, ObjectStatus
from tests.ingest.build import pod, service
from tests.ingest.gateway.build import HBONE, gateway_class, waypoint
from tests.ingest.test_mesh import change, compiler

HTTP: dict[str, Any] = {"name": "http", "port": 80, "protocol": "HTTP"}


def status(made: MeshCompiler) -> GatewayStatus:
    found = made.statuses["Gateway default/waypoint"]
    assert isinstance(found, GatewayStatus)
    return found


def said(conditions: tuple[Condition, ...]) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status, each.reason) for each in conditions}


def test_a_waypoint() -> None:
    proxy = compiler(waypoint()).proxies["default/waypoint"]
    assert (proxy.kind, proxy.takes) == (ProxyKind.WAYPOINT, WaypointFor.SERVICE)
    assert proxy.identity == Identity("cluster.local", "default", "waypoint")
    assert proxy.service == "waypoint.default.svc.cluster.local"
    assert proxy.listeners == (Listener("mesh", 15008, Protocol.HBONE),)


def test_it_is_programmed_when_its_service_has_an_address_and_a_pod_is_ready() -> None:
    made = compiler(waypoint())
    assert said(status(made).conditions) == {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("False", "AddressNotAssigned"),
    }
    made.apply([change(service("waypoint", {"a": "b"}, ip="10.96.0.7"))])
    assert said(status(made).conditions)["Programmed"] == ("False", "Pending")
    labels = {"gateway.networking.k8s.io/gateway-name": "waypoint"}
    made.apply([change(pod("w-1", "10.244.1.9", labels=labels))])
    found = status(made)
    assert said(found.conditions)["Programmed"] == ("True", "Programmed")
    assert found.addresses == ("10.96.0.7",)
    assert (found.version.uid, found.version.generation) == ("u", 3)
    (listener,) = found.listeners
    assert said(listener.conditions) == {
        "Accepted": ("True", "Accepted"),
        "Conflicted": ("False", "NoConflicts"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
        "Programmed": ("True", "Programmed"),
    }
    made.apply([change(pod("w-1", "10.244.1.9", labels=labels, ready=False))])
    assert said(status(made).conditions)["Programmed"] == ("False", "Pending")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"listeners": (HTTP,)}, "ListenersNotValid"),
        ({"listeners": ({**HBONE, "port": 15009},)}, "ListenersNotValid"),
        ({"takes": "everything"}, "Invalid"),
        ({"addresses": [{"type": "Hostname", "value": "my.own"}]}, "UnsupportedAddress"),
    ],
)
def test_what_cannot_be_had_is_refused(given: dict[str, Any], reason: str) -> None:
    made = compiler(waypoint(**given))
    assert not made.proxies
    found = said(status(made).conditions)
    assert found["Accepted"] == ("False", reason) and found["Programmed"] == ("False", "Invalid")
    assert {each.code for each in made.findings} == {"AMB0404"}


def test_one_good_listener_is_enough() -> None:
    made = compiler(waypoint(listeners=(HBONE, HTTP)))
    assert [each.name for each in made.proxies["default/waypoint"].listeners] == ["mesh"]
    assert said(status(made).conditions)["Accepted"] == ("True", "ListenersNotValid")
    assert said(status(made).listeners[1].conditions)["Accepted"] == ("False", "UnsupportedProtocol")


def test_a_class_is_ours_by_its_controller() -> None:
    assert compiler(waypoint(of_class="istio-waypoint")).proxies
    foreign = gateway_class("istio-waypoint", "istio.io/mesh-controller")
    made = compiler(waypoint(of_class="istio-waypoint"), foreign)
    assert not made.proxies and not made.statuses
    made = compiler(waypoint(of_class="mine"), gateway_class("mine"))
    assert made.proxies
    found = made.statuses["GatewayClass mine"]
    assert isinstance(found, ObjectStatus) and said(found.conditions) == {"Accepted": ("True", "Accepted")}
    assert found.features == supported(Place.MESH) == tuple(sorted(found.features)) != ()
    assert not compiler(waypoint(of_class="someone-elses")).proxies
