"""Policies for a gateway's pods are the gateway's, whatever they do."""

from typing import Any

import pytest

from ambit.control.gateways.objects import ProxyPods, gateway_objects
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.request_policy import Attribute, Rule
from ambit.model.status import ObjectStatus
from ambit.plan import targets
from tests.ingest.build import Given, authorization_policy, pod, service
from tests.ingest.gateway.build import GROUP, edge, listener, route, to, to_edge
from tests.ingest.test_mesh import change, compiler

ROOT = "istio-system"
NAME = "gateway.networking.k8s.io/gateway-name"
OWN = {NAME: "edge"}
TCP = listener("tcp", 9000, "TCP")
ROUTES = (
    service("web", {"app": "web"}),
    to_edge({"backendRefs": [to("web")]}, parents=({"sectionName": "http"},)),
    route({"backendRefs": [to("web")]}, name="tcp", parents=({"name": "edge"},), kind="tcproutes"),
)


def policy(**more: Any) -> Given:
    return authorization_policy("p", **{"action": "DENY", "rules": [{}], **more})


def target(kind: str, name: str) -> dict[str, Any]:
    group = "" if kind == "Service" else GROUP
    return {"targetRefs": [{"group": group, "kind": kind, "name": name}]}


def made_of(*given: Given, infrastructure: dict[str, Any] | None = None) -> MeshCompiler:
    resource, body = edge(listener(), TCP)
    body["spec"]["infrastructure"] = infrastructure or {}
    return compiler((resource, body), *ROUTES, *given)


WHERE: tuple[dict[str, Any], ...] = (
    {},
    {"selector": {}},
    {"selector": OWN},
    {"selector": {**OWN, "gateway.networking.k8s.io/gateway-class-name": "ambit"}},
    {"selector": {"gateway.istio.io/managed": "istio.io-gateway-controller"}},
    {"selector": {"service.istio.io/canonical-name": "edge-ambit"}},
    {"selector": {"istio.io/dataplane-mode": "none"}},
    {"namespace": ROOT},
    {"namespace": ROOT, "selector": OWN},
    target("Gateway", "edge"),
    {"namespace": ROOT, **target("GatewayClass", "ambit")},
    {"selector": OWN, **target("Service", "web")},
)
ELSEWHERE: tuple[dict[str, Any], ...] = (
    {"selector": {"app": "web"}},
    {"selector": {**OWN, "app": "web"}},
    {"selector": {NAME: "other"}},
    {"namespace": "other"},
    {"namespace": "other", "selector": OWN},
    {"namespace": ROOT, "selector": {"app": "web"}},
    target("Service", "web"),
    target("Gateway", "other"),
    target("GatewayClass", "ambit"),
    {"namespace": ROOT, **target("GatewayClass", "ambit-waypoint")},
)


def enforced(made: MeshCompiler) -> set[str]:
    """The policies that its proxies are told of."""
    proxy = made.proxies["default/edge"]
    return {key for key, each in made.request_policies.items() if targets.concern(each.targets, proxy)}


@pytest.mark.parametrize("where", WHERE)
def test_what_is_for_it_in_istio_is_its(where: dict[str, Any]) -> None:
    for action in ("ALLOW", "DENY", "CUSTOM", "AUDIT", "NONSENSE"):
        made = made_of(policy(action=action, **where))
        assert enforced(made) == {f"{where.get('namespace', 'default')}/p"}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_what_is_for_others_is_not(where: dict[str, Any]) -> None:
    for action in ("DENY", "CUSTOM"):
        assert enforced(made_of(policy(action=action, **where))) == set()


@pytest.mark.parametrize("where", WHERE)
def test_tokens_are_looked_at_for_the_same(where: dict[str, Any]) -> None:
    proxy = made_of().proxies["default/edge"]
    expected = "Service" not in str(where)  # with targets a selector means nothing for them
    (tokens,) = made_of(rules_about_tokens(where)).tokens.values()
    assert targets.concern(tokens.targets, proxy) is expected


@pytest.mark.parametrize("where", [each for each in ELSEWHERE if "targetRefs" not in each])
def test_tokens_that_nobody_looks_at_are_told(where: dict[str, Any]) -> None:
    made = made_of(rules_about_tokens(where))
    assert not made.tokens
    assert [each.code for each in made.findings] == ["AMB0232"]


def rules_about_tokens(where: dict[str, Any]) -> Given:
    body = {key: value for key, value in where.items() if key == "targetRefs"}
    if "selector" in where:
        body["selector"] = {"matchLabels": where["selector"]}
    metadata = {"name": "t", "namespace": where.get("namespace", "default")}
    issuer = {"issuer": "https://issuer.example"}
    return "requestauthentications.security.istio.io", {
        "metadata": metadata,
        "spec": {"jwtRules": [issuer], **body},
    }


def test_it_follows_gateways_that_come_and_go() -> None:
    by_name = policy(action="DENY", selector=OWN)
    made = compiler(by_name)
    assert not made.request_policies
    made.apply([change(edge(listener()))])
    assert enforced(made) == {"default/p"}
    made.apply([Change(f"gateways.{GROUP}", "default/edge")])
    assert not made.request_policies


def test_a_class_of_another_name_is_known_by_its_gateways() -> None:
    of_class = (
        f"gatewayclasses.{GROUP}",
        {"metadata": {"name": "own"}, "spec": {"controllerName": "ambit.io/gateway-controller"}},
    )
    resource, body = edge(listener())
    body["spec"]["gatewayClassName"] = "own"
    deny = policy(action="DENY", namespace=ROOT, **target("GatewayClass", "own"))
    assert enforced(compiler(of_class, (resource, body), deny)) == {f"{ROOT}/p"}


@pytest.mark.parametrize(
    ("where", "seen"),
    [
        ({"selector": OWN}, True),
        (target("Gateway", "edge"), True),
        ({"namespace": ROOT, **target("GatewayClass", "ambit")}, True),
        (target("Gateway", "other"), False),
        (target("Service", "web"), False),
    ],
)
def test_gateways_see_the_name_in_the_hello(where: dict[str, Any], seen: bool) -> None:
    rules = [{"when": [{"key": "connection.sni", "values": ["a.example.com"]}]}]
    made = made_of(policy(action="DENY", rules=rules, **where))
    (found,) = made.request_policies.values()
    ((clause,),) = (rule.clauses for rule in found.rules)
    assert clause.matches[0].conditions[0].attribute is Attribute.SNI
    assert ("AMB0207" not in {each.code for each in made.findings}) is seen


def test_what_is_wrong_is_told_once_and_closes_its_rule() -> None:
    rules = [{"to": [{"operation": {"paths": ["/{a"]}}]}, {"when": [{"key": "nonsense", "values": ["a"]}]}]
    made = made_of(policy(action="DENY", selector=OWN, rules=rules))
    assert sorted((each.code, each.path) for each in made.findings) == [
        ("AMB0213", "spec.rules[0].to[0].operation.paths[0]"),
        ("AMB0216", "spec.rules[1].when[0].key"),
    ]
    assert made.request_policies["default/p"].rules == (Rule(), Rule())


def test_its_status_names_the_gateway() -> None:
    status = made_of(policy(action="DENY", selector=OWN)).statuses["AuthorizationPolicy default/p"]
    assert isinstance(status, ObjectStatus)
    (condition,) = status.conditions
    assert (condition.type, condition.status, condition.reason) == ("WaypointAccepted", "True", "Accepted")
    assert condition.message == "bound to Gateway default/edge"
    assert status.by_nodes
    status = made_of(policy(action="DENY", **target("Gateway", "edge"))).statuses[
        "AuthorizationPolicy default/p"
    ]
    assert isinstance(status, ObjectStatus) and not status.by_nodes


def test_labels_of_infrastructure_are_looked_at_and_are_those_of_the_pods() -> None:
    team = {"team": "a", "istio.io/dataplane-mode": "ambient"}
    made = made_of(policy(selector={"team": "a"}), infrastructure={"labels": team})
    assert enforced(made)
    assert not enforced(
        made_of(policy(selector={"istio.io/dataplane-mode": "ambient"}), infrastructure={"labels": team})
    )


def test_a_selector_of_all_labels_that_the_pods_are_given_chooses_it() -> None:
    given = change(edge(listener(), TCP)).value
    proxy = made_of().proxies["default/edge"]
    objects = {
        kind.kind: value for kind, value in gateway_objects(given, proxy, ProxyPods("", "", "", "", ""))
    }
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= OWN.items()
    assert enforced(made_of(policy(selector=labels)))
    assert not enforced(made_of(policy(selector={**labels, "pod": "other"})))


def test_pods_behind_it_are_reached_by_their_policies_as_before() -> None:
    web = pod("web-1", "10.244.1.2", labels={"app": "web"})
    made = made_of(
        web, policy(action="DENY", selector={"app": "web"}), policy(action="DENY", namespace="other")
    )
    assert not enforced(made)
    assert [each.policies for each in made.workloads.values()] == [("default/p",)]


@pytest.mark.parametrize("named", ["ambit", "istio"])
def test_both_names_of_the_class_mean_the_same(named: str) -> None:
    """A policy for one is for gateways of the other."""
    resource, body = policy(**target("GatewayClass", named))
    body["metadata"]["namespace"] = ROOT
    assert enforced(made_of((resource, body)))
