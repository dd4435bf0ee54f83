"""What policies are for that nobody enforces is closed: `ambit.ingest.waypoints.unenforced`."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change
from ambit.model.workload import GatewayAddress
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import bound, waypoint
from tests.ingest.test_mesh import compiler

KEY = "default/web.default.svc.cluster.local"
OPEN = GatewayAddress(15008, "default", "waypoint.default.svc.cluster.local")
BOUND = bound(service("web", {"app": "web"}), "waypoint")
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
GATEWAY_CLASS = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "ambit-waypoint"}
WEB_SERVICE = {"kind": "Service", "name": "web"}


def policy(
    *targets: dict[str, Any],
    namespace: str = "default",
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Given:
    metadata = {"name": "p", "namespace": namespace, "annotations": annotations or {}}
    spec = {"action": "DENY", "rules": [{}], "targetRefs": list(targets), **spec}
    return "authorizationpolicies.security.istio.io", {"metadata": metadata, "spec": spec}


@pytest.mark.parametrize("action", ["ALLOW", "DENY", "CUSTOM", "AUDIT"])
@pytest.mark.parametrize("target", [WEB_SERVICE, GATEWAY])
def test_a_service_with_a_waypoint_is_open_for_that(action: str, target: dict[str, Any]) -> None:
    assert compiler(BOUND, waypoint(), policy(target, action=action)).services[KEY].waypoint == OPEN


@pytest.mark.parametrize(
    ("given", "closed"),
    [
        (policy(WEB_SERVICE, action="ALLOW"), True),
        (policy(WEB_SERVICE, action="DENY"), True),
        (policy(WEB_SERVICE, action="CUSTOM"), True),
        (policy(WEB_SERVICE, action="AUDIT"), False),
        (policy(WEB_SERVICE, action="DENY", annotations={"istio.io/dry-run": "true"}), False),
        (policy(WEB_SERVICE, action="DENY", namespace="elsewhere"), False),
        (policy(GATEWAY, action="DENY"), False),
    ],
)
def test_a_service_without_a_waypoint_is_closed_by_a_policy_for_it(given: Given, closed: bool) -> None:
    found = compiler(service("web", {"app": "web"}), waypoint(), given).services[KEY].waypoint
    nobody = GatewayAddress(15008, "default", "web.default.no-waypoint.invalid")
    assert found == (nobody if closed else None)


def test_it_opens_when_the_policy_goes() -> None:
    given = policy(WEB_SERVICE)
    made = compiler(service("web", {"app": "web"}), waypoint(), given)
    assert made.services[KEY].waypoint is not None
    delta = made.apply([Change(given[0], "default/p")])
    assert delta.services.upserts[KEY].waypoint is None
