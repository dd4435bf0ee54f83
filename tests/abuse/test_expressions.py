"""No match that another namespace writes keeps a waypoint from its table."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.abuse.tenant import Attacker, Victim

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

OPEN_QUOTE = r"\Q"
"""Valid RE2 alone: quotes what follows."""


def grpc_route(name: str, namespace: str, method: Mapping[str, str]) -> dict[str, Any]:
    """A route of the attacker's for the victim's service."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GRPCRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "namespace": namespace}],
            "rules": [{"matches": [{"method": {"type": "RegularExpression", **method}}]}],
        },
    }


def test_restarted_waypoint_serves_although_a_foreign_route_has_an_open_quote(
    attacker: Attacker, victim: Victim
) -> None:
    mesh = victim.mesh
    victim.bind_waypoint()
    mesh.wait("the waypoint answers", lambda: victim.get_status() == "200")
    attacker.apply(
        grpc_route("quoted", victim.namespace, {"service": OPEN_QUOTE, "method": OPEN_QUOTE}),
    )
    written = ("get", "grpcroute", "quoted", "-o", "jsonpath={.status.parents[0].conditions}")
    mesh.wait("the route has a status", lambda: attacker.kubectl(*written).stdout)

    labelled = "gateway.networking.k8s.io/gateway-name=waypoint"
    mesh.kubectl("delete", "pod", "-n", victim.namespace, "-l", labelled)
    mesh.wait("the restarted waypoint serves", lambda: victim.get_status() == "200", timeout=40)
    accepted = 'jsonpath={.status.parents[0].conditions[?(@.type=="Accepted")]}'
    assert "method" in attacker.kubectl("get", "grpcroute", "quoted", "-o", accepted).stdout
