"""What policies are for that nobody enforces is closed: `ambit.ingest.unenforced`."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change
from ambit.model.workload import GatewayAddress
from tests.ingest.build import Given, pod, service
from tests.ingest.gateway.build import bound, waypoint
from tests.ingest.test_mesh import WEB, compiler

KEY = "default/web.default.svc.cluster.local"
OPEN = GatewayAddress(15008, "default", "waypoint.default.svc.cluster.local")
CLOSED = GatewayAddress(15008, "default", "waypoint.default.not-enforced.invalid")
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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (policy(WEB_SERVICE, action="CUSTOM"), CLOSED),
        (policy({"kind": "Service", "name": "other"}, WEB_SERVICE, action="CUSTOM"), CLOSED),
        (policy(WEB_SERVICE, action="ALLOW"), OPEN),
        (policy(WEB_SERVICE, action="DENY"), OPEN),
        (policy(GATEWAY, action="DENY"), OPEN),
        (policy(WEB_SERVICE, annotations={"istio.io/dry-run": "maybe"}, action="CUSTOM"), CLOSED),
        (policy(GATEWAY, action="CUSTOM"), CLOSED),
        (policy(GATEWAY_CLASS, namespace="istio-system", action="CUSTOM"), CLOSED),
        (policy(GATEWAY_CLASS, action="CUSTOM"), OPEN),
        (policy({"kind": "Service", "name": "other"}, action="CUSTOM"), OPEN),
        (policy({"kind": "ServiceEntry", "name": "web"}, action="CUSTOM"), OPEN),
        (policy(WEB_SERVICE, namespace="elsewhere", action="CUSTOM"), OPEN),
        (policy(GATEWAY, namespace="elsewhere", action="CUSTOM"), OPEN),
        (policy(WEB_SERVICE, action="AUDIT"), OPEN),
        (policy(WEB_SERVICE, annotations={"istio.io/dry-run": "true"}, action="CUSTOM"), OPEN),
    ],
)
def test_what_a_policy_for_a_waypoint_names_is_closed(given: Given, expected: GatewayAddress) -> None:
    assert compiler(BOUND, waypoint(), given).services[KEY].waypoint == expected


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


@pytest.mark.parametrize(
    ("given", "expected"),
    [(policy(GATEWAY, action="CUSTOM"), CLOSED), (policy(WEB_SERVICE, action="CUSTOM"), OPEN)],
)
def test_workloads_are_closed_by_policies_for_their_gateway(given: Given, expected: GatewayAddress) -> None:
    made = compiler(bound(pod("web-1", "10.244.1.2"), "waypoint"), waypoint(takes="all"), given)
    assert made.workloads[WEB].waypoint == expected


def test_it_opens_when_the_policy_goes() -> None:
    given = policy(WEB_SERVICE, action="CUSTOM")
    made = compiler(BOUND, waypoint(), given)
    assert made.services[KEY].waypoint == CLOSED
    delta = made.apply([Change(given[0], "default/p")])
    assert delta.services.upserts[KEY].waypoint == OPEN
