"""The second waypoint of a service: `ambit.ingest.gateway.canary`, rule by rule."""

from typing import Any

import pytest

from ambit.ingest.mesh import MeshCompiler
from ambit.model.service import WeightedWaypoint
from ambit.model.workload import GatewayAddress
from tests.ingest.build import Given, pod, service
from tests.ingest.gateway.build import bound, namespace, waypoint
from tests.ingest.gateway.test_binding import HERE, KEY, condition
from tests.ingest.test_mesh import WEB, compiler

NEXT = GatewayAddress(15008, "default", "next.default.svc.cluster.local")
SERVICE = service("web", {"app": "web"})
WAYPOINTS = waypoint(), waypoint("next")


def with_canary(given: Given, name: str = "next", weight: str = "10", in_namespace: str = "") -> Given:
    """The object with what asks for a canary; no annotation when `weight` is empty."""
    resource, body = given
    meta: dict[str, Any] = {**body["metadata"]}
    meta["labels"] = {**(meta.get("labels") or {}), "istio.io/use-waypoint-canary": name}
    if in_namespace:
        meta["labels"]["istio.io/use-waypoint-canary-namespace"] = in_namespace
    if weight:
        meta["annotations"] = {"istio.io/use-waypoint-canary-weight": weight}
    return resource, {**body, "metadata": meta}


def parts(made: MeshCompiler) -> dict[GatewayAddress, int]:
    """Who takes how much of `web`, whose waypoint stays what it is."""
    assert made.services[KEY].waypoint == HERE
    return {each.gateway: each.weight for each in made.services[KEY].weighted_waypoints}


@pytest.mark.feature("N46")
@pytest.mark.parametrize("weight", [1, 50, 100])
def test_a_canary_takes_its_part(weight: int) -> None:
    made = compiler(with_canary(bound(SERVICE, "waypoint"), weight=str(weight)), *WAYPOINTS)
    assert parts(made) == {HERE: 100 - weight, NEXT: weight}
    assert condition(made) == ("True", "WaypointAccepted")
    expected = (WeightedWaypoint(HERE, 100 - weight), WeightedWaypoint(NEXT, weight))
    assert made.services[KEY].waypoints == tuple(each for each in expected if each.weight)


@pytest.mark.parametrize("weight", ["", "0"])
def test_without_a_weight_it_takes_nothing(weight: str) -> None:
    made = compiler(with_canary(bound(SERVICE, "waypoint"), weight=weight), *WAYPOINTS)
    assert parts(made) == {}
    assert condition(made) == ("True", "WaypointAccepted")


@pytest.mark.parametrize("weight", ["101", "-1", "1.5", "ten", " 5", "٣", "9" * 50])
def test_a_weight_that_is_none_is_said_and_unbinds_nothing(weight: str) -> None:
    made = compiler(with_canary(bound(SERVICE, "waypoint"), weight=weight), *WAYPOINTS)
    assert parts(made) == {}
    assert condition(made) == ("False", "CanaryInvalidWeight")


@pytest.mark.parametrize(
    ("canary", "others", "reason"),
    [
        ("waypoint", (), "CanarySameAsPrimary"),
        ("gone", (), "WaypointMissing"),
        ("next", (waypoint("next", takes="workload"),), "UnsupportedTrafficType"),
        ("next", (waypoint("next", of_class="ambit-inline"),), "CanaryUnsupported"),
    ],
)
def test_a_canary_that_cannot_be_is_said_and_unbinds_nothing(
    canary: str, others: tuple[Given, ...], reason: str
) -> None:
    made = compiler(with_canary(bound(SERVICE, "waypoint"), canary), waypoint(), *others)
    assert parts(made) == {}
    assert condition(made) == ("False", reason)


def test_a_canary_of_another_namespace_must_let_the_service_in() -> None:
    asks = with_canary(bound(SERVICE, "waypoint"), "shared", in_namespace="infra")
    closed = waypoint("shared", namespace="infra")
    made = compiler(asks, waypoint(), closed)
    assert parts(made) == {}
    assert condition(made) == ("False", "AttachmentDenied")


def test_the_namespaces_canary_is_for_what_has_its_waypoint() -> None:
    asks = with_canary(bound(namespace("default"), "waypoint"), weight="30")
    assert parts(compiler(SERVICE, asks, *WAYPOINTS)) == {HERE: 70, NEXT: 30}
    other = compiler(bound(SERVICE, "other"), asks, *WAYPOINTS, waypoint("other"))
    assert other.services[KEY].weighted_waypoints == ()
    own = compiler(with_canary(SERVICE, weight="5"), asks, *WAYPOINTS)
    assert parts(own) == {HERE: 95, NEXT: 5}


def test_a_canary_without_a_waypoint_is_nothing() -> None:
    made = compiler(with_canary(SERVICE), *WAYPOINTS)
    assert (made.services[KEY].waypoint, made.services[KEY].weighted_waypoints) == (None, ())
    made = compiler(with_canary(bound(SERVICE, "gone")), *WAYPOINTS)
    assert condition(made) == ("False", "WaypointMissing")


def test_what_a_policy_protects_takes_connections_from_both() -> None:
    policy = {
        "metadata": {"name": "protected", "namespace": "default"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [{}]},
    }
    made = compiler(
        with_canary(bound(SERVICE, "waypoint"), weight="100"),
        *WAYPOINTS,
        pod("web-1", "10.244.1.2", labels={"app": "web"}),
        ("authorizationpolicies.security.istio.io", policy),
    )
    (name,) = made.workloads[WEB].policies
    assert name == "default/only_by_waypoint_default.next_default.waypoint_8080"
