"""Policies for a gateway's pods, which gateways do not enforce, close the gateway and are named."""

from typing import Any

import pytest

from ambit.control.gateway_objects import ProxyPods, gateway_objects
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.proxy import ListenerRoutes
from ambit.model.status import GatewayStatus
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
    return {"targetRefs": [{"group": GROUP, "kind": kind, "name": name}]}


def made_of(*given: Given, infrastructure: dict[str, Any] | None = None) -> MeshCompiler:
    resource, body = edge(listener(), TCP)
    body["spec"]["infrastructure"] = infrastructure or {}
    return compiler((resource, body), *ROUTES, *given)


def is_closed(made: MeshCompiler) -> bool:
    """Both of its listeners, or none."""
    http = refuses(made.listener_routes["default/edge#http"])
    tcp = refuses(made.listener_routes["default/edge#tcp"])
    assert http is tcp
    return http


def refuses(table: ListenerRoutes) -> bool:
    statuses = [each.action.status for host in table.hosts for each in host.entries]
    return statuses == [403] if table.hosts else all(not each.backends for each in table.streams)


def said(made: MeshCompiler) -> list[str]:
    """What its status and the findings say, which is the same."""
    status = made.statuses["Gateway default/edge"]
    assert isinstance(status, GatewayStatus)
    texts = [each.message for each in status.conditions if each.type == "ambit.io/Closed"]
    assert [each.text for each in made.findings if each.code == "AMB0407"] == [
        f"{each} (PolicyNotEnforced)" for each in texts
    ]
    return texts


@pytest.mark.parametrize("action", ["ALLOW", "DENY", "CUSTOM", "NONSENSE"])
@pytest.mark.parametrize(
    "where",
    [
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
    ],
)
def test_what_would_be_for_it_in_istio_closes_it(where: dict[str, Any], action: str) -> None:
    made = made_of(policy(action=action, **where))
    assert is_closed(made)
    (text,) = said(made)
    assert f"{where.get('namespace', 'default')}/p" in text and "lets nobody in" in text


@pytest.mark.parametrize(
    "where",
    [
        {"selector": {"app": "web"}},
        {"selector": {**OWN, "app": "web"}},
        {"selector": {NAME: "other"}},
        {"namespace": "other"},
        {"namespace": "other", "selector": OWN},
        {"namespace": ROOT, "selector": {"app": "web"}},
        {"action": "AUDIT"},
        {"annotations": {"istio.io/dry-run": "true"}},
        target("Service", "web"),
    ],
)
def test_what_is_for_others_or_forbids_nothing_leaves_it_open(where: dict[str, Any]) -> None:
    made = made_of(policy(**where))
    assert not is_closed(made)
    assert said(made) == []


def test_labels_of_infrastructure_are_looked_at_and_are_those_of_the_pods() -> None:
    team = {"team": "a", "istio.io/dataplane-mode": "ambient"}
    made = made_of(policy(selector={"team": "a"}), infrastructure={"labels": team})
    assert is_closed(made)
    assert not is_closed(
        made_of(policy(selector={"istio.io/dataplane-mode": "ambient"}), infrastructure={"labels": team})
    )


def test_a_selector_of_all_labels_that_the_pods_are_given_closes_it() -> None:
    given = change(edge(listener(), TCP)).value
    proxy = made_of().proxies["default/edge"]
    objects = {
        kind.kind: value for kind, value in gateway_objects(given, proxy, ProxyPods("", "", "", "", ""))
    }
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= OWN.items()
    assert is_closed(made_of(policy(selector=labels)))
    assert not is_closed(made_of(policy(selector={**labels, "pod": "other"})))


def test_it_opens_when_the_last_policy_goes_and_closes_when_one_comes() -> None:
    by_name, whole = policy(selector=OWN), authorization_policy("all", rules=[])
    made = made_of(by_name, whole)
    assert "default/all, default/p" in said(made)[0]
    made.apply([Change(whole[0], "default/all")])
    assert is_closed(made) and "default/all" not in said(made)[0]
    made.apply([change(policy(selector={"app": "web"}))])
    assert not is_closed(made) and said(made) == []
    made.apply([change(by_name)])
    assert is_closed(made)


def test_of_many_policies_some_are_named() -> None:
    made = made_of(*(authorization_policy(f"p{number}", rules=[]) for number in range(7)))
    assert said(made)[0].endswith("default/p4 and 2 more")


def test_pods_behind_it_are_reached_by_their_policies_as_before() -> None:
    web = pod("web-1", "10.244.1.2", labels={"app": "web"})
    made = made_of(web, policy(selector={"app": "web"}), policy(namespace="other"))
    assert not is_closed(made)
    assert [each.policies for each in made.workloads.values()] == [("default/p",)]


@pytest.mark.parametrize("named", ["ambit", "istio"])
def test_both_names_of_the_class_mean_the_same(named: str) -> None:
    """A policy for one closes gateways of the other."""
    resource, body = policy(**target("GatewayClass", named))
    body["metadata"]["namespace"] = ROOT
    assert is_closed(made_of((resource, body)))
