"""An attacker's consumer routes for a Service with an inline waypoint never deny it to the victim's clients."""

from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.abuse.tenant import Attacker, Victim
from tests.abuse.test_consumer_routes import accepted, deny_path, large_route

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]


@pytest.fixture(scope="module", autouse=True)
def inline(victim: Victim) -> None:
    victim.bind_waypoint("ambit-inline")


def rewriting_route(victim: Victim) -> dict[str, Any]:
    change = {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}, "hostname": "other"}
    filters = [{"type": "URLRewrite", "urlRewrite": change}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "rewrite"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "namespace": victim.namespace}],
            "rules": [{"filters": filters, "backendRefs": [{"name": "own", "port": 80}]}],
        },
    }


def tls_backend() -> list[dict[str, Any]]:
    """A Service and a BackendTLSPolicy for it."""
    ports = [{"name": "http", "port": 80}]
    validation = {"hostname": "own.example.com", "wellKnownCACertificates": "System"}
    target = {"group": "", "kind": "Service", "name": "own"}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "own"}, "spec": {"ports": ports}},
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "BackendTLSPolicy",
            "metadata": {"name": "own"},
            "spec": {"targetRefs": [target], "validation": validation},
        },
    ]


def test_consumer_routes_do_not_deny_an_inline_service(
    mesh: Mesh, victim: Victim, attacker: Attacker
) -> None:
    """The policy looks at the path, which the attacker's route changes for its own requests; its backend has TLS."""
    victim.apply(deny_path("/denied"))
    mesh.wait("the victim's policy is enforced", lambda: victim.get_status("/denied") == "403")
    with victim.measure() as report:
        attacker.apply(*tls_backend(), rewriting_route(victim))
        for number in range(8):
            attacker.apply(large_route(number, victim))
        mesh.wait("every route has a status", lambda: len(list(accepted(attacker))) == 9)
        assert victim.get_status("/denied") == "403"
    assert ("True", "Accepted") in list(accepted(attacker))
    assert report.failures == []
