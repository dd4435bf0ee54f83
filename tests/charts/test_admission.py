"""What admission policies let the tokens of node agent and control plane write, judged by their own expressions."""

from typing import Any

import msgspec
import pytest
from cel import cel

from ambit.control.gateways.objects import gateway_objects
from ambit.control.gateways.patches import patched
from ambit.core.names import NOT_CAPTURED_ANNOTATION, REDIRECTION_ANNOTATION, TRUST_ANNOTATION
from ambit.model.proxy import Parameters, Patch
from tests.charts.rendered import golden_objects
from tests.control.test_gateway_objects import PODS, gateway, proxy_of


def admission_policy(name: str) -> Any:
    """The specification of the charts' policy of this name."""
    [policy] = [
        each["spec"]
        for each in golden_objects()
        if each["kind"] == "ValidatingAdmissionPolicy" and each["metadata"]["name"] == name
    ]
    return policy


def expression(message: str, of: str = "ambit-node") -> str:
    """The rule whose refusal says this."""
    policy = admission_policy(of)
    [found] = [each["expression"] for each in policy["validations"] if message in each["message"]]
    return str(found)


@pytest.mark.parametrize(
    ("allowed", "before", "after"),
    [
        (True, {}, {REDIRECTION_ANNOTATION: "enabled"}),
        (True, {"other": "x", REDIRECTION_ANNOTATION: "enabled"}, {"other": "x"}),
        (True, {}, {REDIRECTION_ANNOTATION: "pending", NOT_CAPTURED_ANNOTATION: "why"}),
        (True, {"other": "x", TRUST_ANNOTATION: "old"}, {"other": "x", TRUST_ANNOTATION: "new"}),
        (False, {}, {"other": "x"}),
        (False, {"other": "x"}, {"other": "y", TRUST_ANNOTATION: "new"}),
        (False, {"other": "x"}, {TRUST_ANNOTATION: "new"}),
    ],
)
def test_an_agent_writes_its_own_annotations_only(
    allowed: bool, before: dict[str, str], after: dict[str, str]
) -> None:
    variables = {"variables": {"before": before, "after": after}}
    assert cel.evaluate(expression("no annotation but"), variables) is allowed


IMAGE = "localhost/ambit:dev"
OWNED = "a Gateway controls"
SCALED, KEPT = "scaled but proxies", "from being evicted"


def permitted(message: str, new: dict[str, Any] | None, old: dict[str, Any] | None = None) -> bool:
    """Whether a rule about the control plane's writes holds."""
    given = {"object": new, "oldObject": old}
    of = "ambit-control"
    variables = {
        each["name"]: cel.evaluate(each["expression"], given)
        for each in admission_policy(of).get("variables") or ()
    }
    found: bool = cel.evaluate(expression(message, of), {**given, "variables": variables})
    return found


def runs(deployment: dict[str, Any]) -> bool:
    """Whether every rule about the pods of proxies holds."""
    given = {"object": deployment, "oldObject": None}
    rules = admission_policy("ambit-control-pods")["validations"]
    return all(cel.evaluate(each["expression"], given) for each in rules)


def written(kind: str, **spec: Any) -> dict[str, Any]:
    """What the control plane writes for a Gateway; `spec` is another pod specification."""
    pods, given = msgspec.structs.replace(PODS, image=IMAGE), gateway()
    optional = (Patch("HorizontalPodAutoscaler", "{}"), Patch("PodDisruptionBudget", "{}"))
    proxy = msgspec.structs.replace(proxy_of(given), parameters=Parameters(optional))
    made = patched(gateway_objects(given, proxy, pods), given, proxy)
    [value] = [each for of, each in made if of.kind == kind]
    value = {"kind": kind, **value}
    if spec:
        value["spec"]["template"]["spec"] |= spec
    return value


OPTIONAL = ["HorizontalPodAutoscaler", "PodDisruptionBudget"]


@pytest.mark.parametrize("kind", ["ServiceAccount", "Service", "Deployment", *OPTIONAL])
def test_the_control_plane_writes_what_a_gateway_controls(kind: str) -> None:
    ours = written(kind)
    assert permitted(OWNED, ours) and permitted(OWNED, ours, ours)
    assert kind != "Deployment" or runs(ours)
    assert permitted(SCALED, ours) and permitted(KEPT, ours)
    foreign = {**ours, "metadata": {"name": "waypoint"}}
    assert not permitted(OWNED, foreign), "nobody's"
    assert not permitted(OWNED, ours, foreign), "taken over"
    other = {**ours["metadata"]["ownerReferences"][0], "uid": "other"}
    assert not permitted(OWNED, ours, {**ours, "metadata": {**ours["metadata"], "ownerReferences": [other]}})
    of_set = {**other, "kind": "ReplicaSet"}
    assert not permitted(OWNED, {**ours, "metadata": {**ours["metadata"], "ownerReferences": [of_set]}})


@pytest.mark.parametrize("kind", ["ServiceAccount", "Service", "Deployment", *OPTIONAL])
def test_the_control_plane_takes_away_what_a_gateway_controls(kind: str) -> None:
    ours = written(kind)
    assert all(permitted(each, None, ours) for each in (OWNED, SCALED, KEPT))
    assert not permitted(OWNED, None, {**ours, "metadata": {"name": "waypoint"}})


def test_the_control_plane_asks_before_it_takes_away() -> None:
    """Whatever it is granted to delete, a policy looks at."""
    rules = admission_policy("ambit-control")["matchConstraints"]["resourceRules"]
    looked_at = {
        (group, each)
        for rule in rules
        if "DELETE" in rule["operations"]
        for group in rule["apiGroups"]
        for each in rule["resources"]
    }
    [role] = [
        each
        for each in golden_objects()
        if each["kind"] == "ClusterRole" and each["metadata"]["name"] == "ambit-control"
    ]
    granted = {
        (group, each)
        for rule in role["rules"]
        if "delete" in rule["verbs"]
        for group in rule["apiGroups"]
        for each in rule["resources"]
    }
    assert ("apps", "deployments") in granted and granted == looked_at


def test_the_control_plane_scales_and_keeps_proxies_only() -> None:
    scaler, budget = (written(each) for each in OPTIONAL)
    for target in ({"kind": "Deployment", "name": "web"}, {"kind": "StatefulSet", "name": "waypoint"}):
        assert not permitted(SCALED, {**scaler, "spec": {"scaleTargetRef": target}})
    for spec in ({}, {"selector": {}}, {"selector": {"matchLabels": {"app": "web"}}}):
        assert not permitted(KEPT, {**budget, "spec": spec})


@pytest.mark.parametrize(
    "spec",
    [
        {"serviceAccountName": "admin"},
        {"hostNetwork": True},
        {"hostPID": True},
        {"hostIPC": True},
        {"initContainers": [{"name": "x", "image": IMAGE}]},
        {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
        {"volumes": [{"name": "x", "secret": {"secretName": "x"}}]},
        {"containers": [{"name": "x", "image": "other"}]},
        {"containers": [{"name": "x", "image": IMAGE, "command": ["sh"]}]},
        {"containers": [{"name": "x", "image": IMAGE, "lifecycle": {"postStart": {"exec": {}}}}]},
        {"containers": [{"name": "x", "image": IMAGE, "securityContext": {"privileged": True}}]},
        {"shareProcessNamespace": True},
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    ],
)
def test_the_control_plane_runs_nothing_but_proxies(spec: dict[str, Any]) -> None:
    assert not runs(written("Deployment", **spec))


RIGHTS = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize(
    "container",
    [
        {"args": ["node", "run"]},
        {"args": ["proxy"]},
        {"args": []},
        {"args": ["proxy", "run", "--token-file", "/var/run/secrets/tokens/istio-token"]},
        {"args": ["proxy", "run", "--control=elsewhere:15012"]},
        {"env": [{"name": "LD_PRELOAD", "value": "/var/run/ambit/x.so"}]},
        {"env": [{"name": "PYTHONPATH", "value": "/var/run/ambit"}]},
        {"envFrom": [{"configMapRef": {"name": "x"}}]},
        {"workingDir": "/var/run/ambit"},
        {"volumeMounts": [{"name": "root-cert", "mountPath": "/usr/lib/python3"}]},
        {"volumeDevices": [{"name": "x", "devicePath": "/dev/x"}]},
        {"securityContext": None},
        {"securityContext": {"capabilities": {"drop": ["ALL"]}}},
        {"securityContext": {**RIGHTS, "allowPrivilegeEscalation": True}},
        {"securityContext": {**RIGHTS, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}},
        {"securityContext": {**RIGHTS, "capabilities": {"drop": ["NET_RAW"]}}},
        {"securityContext": {**RIGHTS, "seccompProfile": {"type": "Unconfined"}}},
        {"securityContext": {**RIGHTS, "procMount": "Unmasked"}},
        {"ports": [{"containerPort": 15021, "hostPort": 443}]},
    ],
    ids=lambda container: str(container)[:60],
)
def test_the_control_plane_bounds_what_a_proxy_may_do(container: dict[str, Any]) -> None:
    """Its image has every program of the mesh: arguments, environment, files and rights make it a proxy."""
    ours = written("Deployment")
    assert runs(ours)
    [proxy] = ours["spec"]["template"]["spec"]["containers"]
    proxy |= container
    for name in [name for name, value in proxy.items() if value is None]:
        del proxy[name]
    assert not runs(ours)


@pytest.mark.parametrize(
    ("allowed", "new"),
    [
        (True, {"metadata": {}, "status": {"loadBalancer": {}, "conditions": [{"type": "x"}]}}),
        (False, {"metadata": {}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
        (False, {"metadata": {"labels": {"a": "b"}}, "status": {"loadBalancer": {}}}),
        (False, {"metadata": {"annotations": {"a": "b"}}, "status": {"loadBalancer": {}}}),
    ],
)
def test_of_a_services_status_only_conditions_are_written(allowed: bool, new: dict[str, Any]) -> None:
    old = {"metadata": {}, "status": {"loadBalancer": {}}}
    rules = [each["expression"] for each in admission_policy("ambit-control-status")["validations"]]
    assert all(cel.evaluate(rule, {"object": new, "oldObject": old}) for rule in rules) is allowed
