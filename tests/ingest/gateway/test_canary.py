"""The second waypoint of a service: `ambit.ingest.gateway.canary`, rule by rule."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.service import WeightedWaypoint
from ambit.model.workload import GatewayAddress
from tests.ingest.build import Given, pod, service
from tests.ingest.gateway.build import bound, namespace, waypoint
from tests.ingest.gateway.test_binding import HERE, KEY, condition
from tests.ingest.test_mesh import WEB, change, compiler

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


WEIGHTS = (
    "101",
    "-1",
    "-0",
    "+5",
    "1.5",
    "1e1",
    "0x10",
    "NaN",
    "inf",
    "ten",
    "5%",
    "5\n",
    " 5",
    "٣",
    "²",
    "9" * 5000,
)


@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda text: ascii(text[:5]))
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


def test_a_canary_that_goes_leaves_everything_to_the_first_and_may_come_back() -> None:
    made = compiler(with_canary(bound(SERVICE, "waypoint")), *WAYPOINTS)
    made.apply([Change("gateways.gateway.networking.k8s.io", "default/next")])
    assert parts(made) == {} and condition(made) == ("False", "WaypointMissing")
    made.apply([change(waypoint("next"))])
    assert parts(made) == {HERE: 90, NEXT: 10} and condition(made) == ("True", "WaypointAccepted")
    made.apply([Change("gateways.gateway.networking.k8s.io", "default/waypoint")])
    assert parts(made) == {}, "the canary never takes what the first one has"
    assert condition(made) == ("False", "WaypointMissing")


@pytest.mark.parametrize(
    "labels",
    [
        {"istio.io/use-waypoint": "next"},
        {"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-canary": "next"},
        {"istio.io/use-waypoint": "next", "istio.io/use-waypoint-canary": "waypoint"},
    ],
)
def test_waypoints_are_nobodys_canaries_and_have_none(labels: dict[str, str]) -> None:
    """What belongs to a waypoint is called directly, so none leads to another one, or back to itself."""
    made_of_next = service("next", {"app": "next"}, ip="10.96.0.77", port=15008, target=15008)
    made_of_next[1]["metadata"]["labels"] = {"gateway.istio.io/managed": "istio.io-mesh-controller", **labels}
    asks = with_canary(bound(namespace("default"), "waypoint"), weight="50")
    made = compiler(SERVICE, made_of_next, asks, *WAYPOINTS)
    assert parts(made) == {HERE: 50, NEXT: 50}
    own = made.services[f"default/{NEXT.hostname}"]
    assert (own.waypoint, own.weighted_waypoints) == (None, ())


def test_two_services_may_have_each_others_waypoints() -> None:
    other = with_canary(bound(service("api", {"app": "api"}, ip="10.96.0.78"), "next"), "waypoint", "20")
    made = compiler(with_canary(bound(SERVICE, "waypoint")), other, *WAYPOINTS)
    assert parts(made) == {HERE: 90, NEXT: 10}
    api = made.services["default/api.default.svc.cluster.local"]
    assert {each.gateway: each.weight for each in api.weighted_waypoints} == {NEXT: 80, HERE: 20}


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
