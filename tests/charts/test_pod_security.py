"""Pods of the mesh under the Pod Security Standards, and the values that choose system calls and update strategies."""

from typing import Any

import pytest

from ambit.control.gateways.objects import gateway_objects
from ambit.local.apiserver.pod_security import Policy, violations
from tests.charts.rendered import golden_objects
from tests.control.test_gateway_objects import PODS, gateway, proxy_of

RESTRICTED = Policy("restricted")


def template(kind: str, golden: str = "default") -> dict[str, Any]:
    """The pods of the charts' only object of this kind."""
    [found] = [each["spec"]["template"] for each in golden_objects(golden) if each["kind"] == kind]
    return dict(found)


@pytest.mark.feature("F90")
def test_restricted_namespaces_admit_the_control_plane_and_proxies() -> None:
    assert violations(RESTRICTED, template("Deployment")) == []
    given = gateway()
    objects = {kind.kind: value for kind, value in gateway_objects(given, proxy_of(given), PODS)}
    assert violations(RESTRICTED, objects["Deployment"]["spec"]["template"]) == []
    assert violations(RESTRICTED, template("DaemonSet")) != [], "entering pods' namespaces needs rights"


@pytest.mark.feature("F90")
def test_profiles_of_system_calls_are_the_values() -> None:
    default = {"type": "RuntimeDefault"}
    for kind in ("Deployment", "DaemonSet"):
        assert template(kind)["spec"]["securityContext"]["seccompProfile"] == default
    chosen = template("DaemonSet", "everything-set")["spec"]["securityContext"]["seccompProfile"]
    assert chosen == {"type": "Localhost", "localhostProfile": "profiles/ambit.json"}


@pytest.mark.feature("F74")
def test_the_update_strategy_of_node_proxies_is_the_value() -> None:
    found = {
        golden: each["spec"]["updateStrategy"]
        for golden in ("default", "everything-set")
        for each in golden_objects(golden)
        if each["kind"] == "DaemonSet"
    }
    surge = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert found == {"default": surge, "everything-set": {"type": "OnDelete"}}
