"""An attacker writes large consumer routes for the victim's Service: its share is bounded, and the victim, the control
plane's lease and the victim's policies go on."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.core.names import CONTROL_LEASE, SYSTEM_NAMESPACE
from ambit.testing.mesh import Mesh
from tests.abuse.tenant import Attacker, Victim
from tests.mesh.pods import pod
from tests.soak import long

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl, pytest.mark.soak]

ROUTES = long(10, 50)
"""Of 1.3 MB each: as much as the API server's store takes."""
LEASE = 15.0
"""Seconds that the control plane's lease lasts without being renewed."""


@pytest.fixture(scope="module", autouse=True)
def waypoint(victim: Victim) -> None:
    victim.bind_waypoint()


def large_route(number: int, victim: Victim) -> dict[str, Any]:
    backend = {"name": "web", "namespace": victim.namespace, "port": 80}
    headers = [{"name": f"h{each}", "value": f"{number}-{'x' * 4000}"} for each in range(16)]
    rules = [
        {
            "matches": [{"path": {"type": "Exact", "value": f"/{number}/{rule}"}, "headers": headers}],
            "backendRefs": [backend],
        }
        for rule in range(16)
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": f"large{number}"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "namespace": victim.namespace}],
            "rules": rules,
        },
    }


def accepted(attacker: Attacker) -> Iterator[tuple[str, str]]:
    """The status and reason of the condition Accepted of each of the attacker's routes that has one."""
    routes = json.loads(attacker.kubectl("get", "httproutes", "-o", "json", check=True).stdout)["items"]
    for route in routes:
        for parent in route.get("status", {}).get("parents", ()):
            for condition in parent["conditions"]:
                if condition["type"] == "Accepted":
                    yield condition["status"], condition["reason"]


def age_of_lease(mesh: Mesh) -> float:
    """Seconds since the control plane last renewed its lease."""
    words = ("get", "lease", CONTROL_LEASE, "-n", SYSTEM_NAMESPACE, "-o", "jsonpath={.spec.renewTime}")
    renewed = dt.datetime.fromisoformat(mesh.kubectl(*words).stdout.strip())
    return (dt.datetime.now(dt.UTC) - renewed).total_seconds()


def deny_path(path: str) -> dict[str, Any]:
    target = {"group": "", "kind": "Service", "name": "web"}
    rules = [{"to": [{"operation": {"paths": [path]}}]}]
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "deny-path"},
        "spec": {"action": "DENY", "targetRefs": [target], "rules": rules},
    }


def test_large_routes_neither_harm_the_victim_nor_stop_the_control_plane(
    mesh: Mesh, victim: Victim, attacker: Attacker
) -> None:
    ages = []
    with victim.measure() as report:
        for number in range(ROUTES):
            attacker.apply(large_route(number, victim))
            ages.append(age_of_lease(mesh))
            if number == ROUTES // 2:
                victim.apply(deny_path("/denied"))
                mesh.wait(
                    "the victim's policy is enforced", lambda: victim.get_status("/denied") == "403", LEASE
                )
                victim.apply(pod("late", mesh.nodes[0], ["sleep", "3600"]))
                words = ("--for=condition=Ready", "pod/late", "--timeout=60s")
                mesh.kubectl("wait", "-n", victim.namespace, *words)
        mesh.wait("every route has a status", lambda: len(list(accepted(attacker))) == ROUTES)
        ages.append(age_of_lease(mesh))
    found = list(accepted(attacker))
    assert ("False", "TooManyRoutes") in found
    assert 1 <= found.count(("True", "Accepted")) <= 3
    assert max(ages) < LEASE
    assert report.failures == []
    assert report.percentile(0.99) < 1.0
