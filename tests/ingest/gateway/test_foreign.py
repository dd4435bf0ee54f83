"""Waypoints that are somebody else's: `ambit.ingest.gateway.foreign`, rule by rule, and what depends on them."""

from typing import Any

import pytest

from ambit.core.finding import Level, ObjectRef
from ambit.core.names import ENFORCES_ANNOTATION, GATEWAY_NAME_LABEL, INBOUND_BINDING_ANNOTATION
from ambit.ingest.mesh import MeshCompiler
from ambit.model.policy import Exact
from ambit.model.status import Condition, ObjectStatus, RouteStatus
from ambit.model.workload import ApplicationTunnel, GatewayAddress, TunnelledAs
from tests.ingest.build import Given, pod, service
from tests.ingest.gateway.build import bound, edge, gateway_class, listener, namespace, route, to, waypoint
from tests.ingest.test_mesh import WEB, change, compiler
from tests.ingest.test_unenforced import policy

KEY = "default/web.default.svc.cluster.local"
THERE = GatewayAddress(15008, "default", "acme-svc.default.svc.cluster.local")
LABELS = {GATEWAY_NAME_LABEL: "acme"}
OF_ACME = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "acme"}
OF_CLASS = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "acme-class"}
OF_WEB = {"kind": "Service", "name": "web"}


def labelled(given: Given, **labels: str) -> Given:
    resource, body = given
    return resource, {**body, "metadata": {**body["metadata"], "labels": {**LABELS, **labels}}}


def annotated(given: Given, **said: str) -> Given:
    names = {"binding": INBOUND_BINDING_ANNOTATION, "enforces": ENFORCES_ANNOTATION}
    resource, body = given
    annotations = {names[key]: value for key, value in said.items()}
    return resource, {**body, "metadata": {**body["metadata"], "annotations": annotations}}


def acme(
    binding: str = "PROXY/15088", listeners: tuple[dict[str, Any], ...] = (), **said: str
) -> list[Given]:
    """The Gateway, its Service and its pod."""
    made = edge(*(listeners or (listener("mesh", 15088, "TCP"),)), name="acme", of_class="acme-class")
    return [
        annotated(made, **({"binding": binding} if binding else {}), **said),
        labelled(service("acme-svc", LABELS, ip="10.96.0.7")),
        pod("acme-1", "10.244.1.9", labels=LABELS, serviceAccountName="proxy"),
    ]


BOUND = [bound(service("web", {"app": "web"}), "acme"), pod("web-1", "10.244.1.2")]


def tunnel(made: MeshCompiler, name: str = "acme-1") -> ApplicationTunnel | None:
    return next(each for each in made.workloads.values() if each.name == name).application_tunnel


def condition(made: MeshCompiler) -> tuple[str, str, str]:
    status = made.statuses[str(ObjectRef("Service", "default", "web"))]
    assert isinstance(status, ObjectStatus)
    (only,) = status.conditions
    return only.status, only.reason, only.message


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("PROXY/15088", ApplicationTunnel(TunnelledAs.PROXY, 15088)),
        ("PROXY", ApplicationTunnel(TunnelledAs.PROXY)),
        ("NONE/9000", ApplicationTunnel(TunnelledAs.NONE, 9000)),
    ],
)
def test_its_pods_are_handed_what_comes_in_tunnels(binding: str, expected: ApplicationTunnel) -> None:
    made = compiler(*BOUND, *acme(binding))
    assert (tunnel(made), tunnel(made, "web-1")) == (expected, None)
    assert made.services[KEY].waypoint == THERE
    assert condition(made)[:2] == ("True", "WaypointAccepted")
    assert not made.proxies and str(ObjectRef("Gateway", "default", "acme")) not in made.statuses


def test_its_class_can_say_so_and_it_can_end_tunnels_itself() -> None:
    of_class = annotated(gateway_class("acme-class", "acme.example.com/controller"), binding="PROXY/1")
    gateway, *behind = acme("")
    assert tunnel(compiler(*BOUND, of_class, gateway, *behind)) == ApplicationTunnel(TunnelledAs.PROXY, 1)
    assert condition(compiler(*BOUND, gateway, *behind))[1] == "WaypointMissing"
    native = compiler(*BOUND, *acme("", (listener("mesh", 15008, "HBONE"),)))
    assert tunnel(native) is None and native.services[KEY].waypoint == THERE


@pytest.mark.parametrize("of_class", ["ambit", "istio", "ambit-waypoint", "ambit-inline"])
def test_classes_of_ours_have_nothing_of_it(of_class: str) -> None:
    gateway, *behind = acme()
    gateway[1]["spec"]["gatewayClassName"] = of_class
    assert tunnel(compiler(*BOUND, gateway, *behind)) is None


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        ("PROXY/", "neither PROXY/PORT nor NONE/PORT"),
        ("PROXY/0", "neither"),
        ("PROXY/65536", "neither"),
        ("PROXY/0000809999999999", "neither"),
        ("PROXY/٣", "neither"),
        ("proxy/15088", "neither"),
        ("HBONE", "neither"),
        ("PROXY/15008", "'PROXY/15008' has a port of the mesh's own"),
    ],
)
def test_what_cannot_be_read_is_said_and_nobody_gets_through(binding: str, text: str) -> None:
    made = compiler(*BOUND, *acme(binding))
    status, reason, message = condition(made)
    assert (status, reason) == ("False", "WaypointMissing")
    assert text in message and repr(binding) in message
    assert tunnel(made) is None
    found = made.services[KEY].waypoint
    assert found is not None and found.hostname.endswith(".invalid")


def test_without_a_service_it_cannot_be_reached() -> None:
    gateway, _, pod_ = acme()
    made = compiler(*BOUND, gateway, pod_)
    assert "no Service carries its label" in condition(made)[2]


def test_what_is_its_own_does_not_go_through_it() -> None:
    made = compiler(*BOUND, *acme(), bound(namespace("default"), "acme"))
    assert made.services["default/acme-svc.default.svc.cluster.local"].waypoint is None


def test_other_namespaces_need_its_leave() -> None:
    other = bound(service("web", {"app": "web"}, namespace="other"), "acme", "default")
    key = "other/web.other.svc.cluster.local"
    refused = compiler(other, *acme(), namespace("other")).services[key].waypoint
    assert refused is not None and refused.hostname.endswith(".invalid")
    open_ = listener("mesh", 15088, "TCP", allowedRoutes={"namespaces": {"from": "All"}})
    assert compiler(other, *acme(listeners=(open_,)), namespace("other")).services[key].waypoint == THERE


@pytest.mark.parametrize("target", [OF_WEB, OF_ACME, OF_CLASS])
def test_what_a_policy_protects_is_closed_unless_it_says_that_it_enforces_them(
    target: dict[str, Any],
) -> None:
    given = policy(target, namespace="istio-system" if target is OF_CLASS else "default")
    made = compiler(*BOUND, *acme(), given)
    found = made.services[KEY].waypoint
    assert found is not None and found.hostname.endswith(".invalid")
    assert any("only_by_waypoint" in each for each in made.workloads[WEB].policies), "by its own address"
    status = made.statuses[str(ObjectRef("AuthorizationPolicy", given[1]["metadata"]["namespace"], "p"))]
    assert isinstance(status, ObjectStatus) and not status.conditions[0].holds
    open_ = compiler(*BOUND, *acme(enforces="true"), given)
    assert open_.services[KEY].waypoint == THERE
    (name,) = (each for each in open_.workloads[WEB].policies if "only_by_waypoint" in each)
    (rule,) = open_.authorizations[name].rules
    (only, _ports) = rule.clauses
    assert only.matches[0].not_principals == (Exact("cluster.local/ns/default/sa/proxy"),)


def told(made: MeshCompiler) -> list[tuple[str, Level, str]]:
    return [
        (each.code, each.level, str(each.origin)) for each in made.findings if "(NotEnforced)" in each.text
    ]


CLOSED_ONE = ("AMB0236", Level.WARNING, "AuthorizationPolicy default/p")


@pytest.mark.parametrize("target", [OF_WEB, OF_ACME])
def test_a_policy_that_it_does_not_enforce_is_told(target: dict[str, Any]) -> None:
    given = policy(target)
    made = compiler(*BOUND, *acme(), given)
    assert told(made) == [CLOSED_ONE]
    made.apply([change(acme(enforces="true")[0])])
    assert told(made) == []


def test_one_of_its_targets_is_told_too() -> None:
    """The other one is enforced, so that the status holds."""
    other = bound(service("other", {"app": "other"}), "waypoint")
    given = policy(OF_WEB, {**OF_WEB, "name": "other"})
    made = compiler(*BOUND, *acme(), other, waypoint(), given)
    ((code, text),) = [(each.code, each.text) for each in made.findings]
    assert code == "AMB0236" and text.endswith("(PartiallyInvalid)") and ENFORCES_ANNOTATION in text


def test_one_that_cannot_be_used_is_told_as_that() -> None:
    made = compiler(*BOUND, *acme("PROXY/", enforces="true"), policy(OF_ACME))
    ((code, text),) = [
        (each.code, each.text) for each in made.findings if "AuthorizationPolicy" in str(each.origin)
    ]
    assert code == "AMB0236" and "'PROXY/' is neither" in text and ENFORCES_ANNOTATION not in text


def test_policies_for_classes_of_ours_are_not_for_it() -> None:
    ours = policy({**OF_CLASS, "name": "ambit-waypoint"}, namespace="istio-system")
    made = compiler(*BOUND, *acme(), ours)
    assert made.services[KEY].waypoint == THERE
    assert not any("only_by_waypoint" in each for each in made.workloads[WEB].policies)


def test_its_services_are_no_parents_of_ours() -> None:
    made = compiler(*BOUND, *acme(), route({"backendRefs": [to("web")]}))
    status = made.statuses[str(ObjectRef("HTTPRoute", "default", "route"))]
    assert isinstance(status, RouteStatus) and status.parents == () and not made.routes


def test_it_shares_with_nobody() -> None:
    resource, body = bound(service("web", {"app": "web"}), "waypoint")
    body["metadata"]["labels"]["istio.io/use-waypoint-canary"] = "acme"
    made = compiler((resource, body), pod("web-1", "10.244.1.2"), waypoint(), *acme())
    assert condition(made)[:2] == ("False", "CanaryUnsupported")


def of_class(name: str, *given: Given) -> tuple[Condition, list[str]]:
    """What a policy for this class says, and what is found."""
    made = compiler(policy({**OF_CLASS, "name": name}, namespace="istio-system"), *given)
    status = made.statuses[str(ObjectRef("AuthorizationPolicy", "istio-system", "p"))]
    assert isinstance(status, ObjectStatus)
    return status.conditions[0], [each.code for each in made.findings]


def test_a_policy_for_a_class_of_somebody_else_says_whose_it_is() -> None:
    theirs = gateway_class("acme-class", "acme.example/controller")
    condition, found = of_class("acme-class", theirs)
    assert (condition.reason, found) == ("NotEnforced", ["AMB0236"])
    assert "GatewayClass acme-class is of acme.example/controller" in condition.message
    assert ENFORCES_ANNOTATION in condition.message
    condition, found = of_class("acme-class", annotated(theirs, enforces="true"))
    assert (condition.holds, found) == (True, [])
    # Also where it has a name that is ours when nobody else has it.
    condition, found = of_class("istio", gateway_class("istio", "istio.io/gateway-controller"))
    assert (condition.reason, found) == ("NotEnforced", ["AMB0236"])
    assert of_class("istio")[0].holds


def test_a_policy_for_a_class_that_is_no_target_says_why() -> None:
    condition, found = of_class("acme-class")
    assert (condition.reason, found) == ("TargetNotFound", ["AMB0236"])
    assert condition.message == "GatewayClass acme-class does not exist"
    condition, found = of_class("own", gateway_class("own"))
    assert (condition.reason, found) == ("TargetNotFound", ["AMB0236"])
    assert "is no target, though it is ambit's: policies know the classes ambit-waypoint" in condition.message
