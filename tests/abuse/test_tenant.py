"""The two tenants that the other abuse tests use are what they are said to be."""

import pytest

from tests.abuse.tenant import Attacker, Victim

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]


def test_attacker_has_no_rights_outside_its_namespace(attacker: Attacker, victim: Victim) -> None:
    allowed = attacker.kubectl("auth", "can-i", "get", "pods", "-n", victim.namespace)
    assert allowed.returncode == 1, allowed.stdout
    policy = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "namespace": victim.namespace},
    }
    refused = attacker.apply(policy, check=False)
    assert refused.returncode != 0
    assert "forbidden" in refused.stderr.lower()


def test_measured_victim_reports_failures_while_its_service_is_denied(victim: Victim) -> None:
    deny = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "deny-all"},
        "spec": {"action": "DENY", "rules": [{}]},
    }
    with victim.measure() as report:
        victim.apply(deny)
        victim.mesh.wait("requests are denied", lambda: victim.get_status() != "200")
    victim.mesh.kubectl("delete", "authorizationpolicy", "deny-all", "-n", victim.namespace)
    victim.mesh.wait("requests pass again", lambda: victim.get_status() == "200")
    assert report.failures != []
    with victim.measure() as report:
        assert victim.get_status() == "200"
    assert report.failures == []
