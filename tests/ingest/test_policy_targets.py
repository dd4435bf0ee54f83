"""What a RequestAuthentication says in its status of the waypoints of its targets."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change
from ambit.model.status import Condition, ObjectStatus
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import bound, edge, route, to, waypoint
from tests.ingest.test_mesh import compiler

KEY = "RequestAuthentication default/tokens"
BOUND = bound(service("web", {"app": "web"}), "waypoint")
WEB, OTHER = ({"kind": "Service", "name": name} for name in ("web", "other"))
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
INLINE = waypoint(of_class="ambit-inline")
TAKES_TOKENS_AWAY = route(
    {
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Authorization"]}}
        ],
        "backendRefs": [to("web")],
    }
)
CLASS = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "ambit-waypoint"}


def tokens(*targets: dict[str, Any], namespace: str = "default", issuer: str = "https://a.example") -> Given:
    return "requestauthentications.security.istio.io", {
        "metadata": {"name": "tokens", "namespace": namespace},
        "spec": {"targetRefs": list(targets), "jwtRules": [{"issuer": issuer}]},
    }


def said(*given: Given, key: str = KEY) -> Condition:
    status = compiler(*given).statuses[key]
    assert isinstance(status, ObjectStatus)
    (condition,) = status.conditions
    return condition


@pytest.mark.parametrize(
    ("given", "status", "reason"),
    [
        ([tokens(WEB), BOUND, waypoint()], "True", "Accepted"),
        ([tokens(GATEWAY), waypoint()], "True", "Accepted"),
        ([tokens(WEB, OTHER), BOUND, waypoint()], "True", "Accepted"),
        ([tokens(WEB), service("web", {"app": "web"})], "False", "NoWaypoint"),
        ([tokens(WEB)], "False", "NoWaypoint"),
        ([tokens(GATEWAY)], "False", "NoWaypoint"),
        ([tokens(WEB), BOUND], "False", "NoWaypoint"),
        ([tokens(WEB), BOUND, INLINE], "True", "Accepted"),
        ([tokens(GATEWAY), INLINE], "True", "Accepted"),
        ([tokens(WEB), BOUND, INLINE, TAKES_TOKENS_AWAY], "False", "NotEnforced"),
        ([tokens(GATEWAY), BOUND, INLINE, TAKES_TOKENS_AWAY], "False", "NotEnforced"),
        ([tokens({**GATEWAY, "name": "edge"}), edge()], "True", "Accepted"),
        ([tokens({**GATEWAY, "name": "nobody"}), edge()], "False", "NoWaypoint"),
        ([tokens()], "False", "NoTarget"),
        ([tokens({"kind": "Pod", "name": "web"})], "False", "Invalid"),
        ([tokens(WEB, issuer="nobody"), BOUND, waypoint()], "False", "Invalid"),
    ],
)
def test_conditions(given: list[Given], status: str, reason: str) -> None:
    condition = said(*given)
    assert (condition.type, condition.status, condition.reason) == ("WaypointAccepted", status, reason)


def test_a_target_that_nobody_serves_is_named() -> None:
    assert said(tokens(WEB, OTHER), BOUND, waypoint()).message == "no waypoint serves Service other"
    assert said(
        tokens(CLASS, namespace="istio-system"), key="RequestAuthentication istio-system/tokens"
    ).holds
    misspelt = tokens({**CLASS, "name": "ambit-waypiont"}, namespace="istio-system")
    assert not said(misspelt, key="RequestAuthentication istio-system/tokens").holds


def test_it_follows_the_label() -> None:
    made = compiler(tokens(WEB), BOUND, waypoint())
    assert [each.code for each in made.findings] == []
    made.apply([Change("services", "default/web")])
    assert "AMB0234" in [each.code for each in made.findings]
