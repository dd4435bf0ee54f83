"""What is written and does nothing has a finding with its name."""

from typing import Any

import pytest
import yaml

from ambit.ingest.settings import MeshSettings
from ambit.insight.manifests import Compiled, compile_objects


def compiled(text: str) -> Compiled:
    return compile_objects([("file", each) for each in yaml.safe_load_all(text)], MeshSettings(), "shop")


def told(text: str) -> list[str]:
    return [str(each) for each in compiled(text).findings if each.code in ("AMB0004", "AMB0005", "AMB0006")]


GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: NAME, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
CLASS = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: nginx}
spec: {controllerName: example.com/nginx}
"""


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("istio-waypoint", "", ""),
        ("ambit-inline", "", ""),
        ("nginx", CLASS, ""),
        ("nginx", "", "nothing serves it"),
        ("istio-waypiont", CLASS, "nothing serves it; did you mean istio-waypoint?"),
    ],
)
def test_a_class_that_nothing_serves(name: str, more: str, said: str) -> None:
    found = told(GATEWAY.replace("NAME", name) + more)
    if not said:
        assert found == []
        return
    (finding,) = found
    assert finding.startswith("AMB0004 [warning] Gateway shop/edge at spec.gatewayClassName: ")
    assert finding.endswith(said)


POLICY: dict[str, Any] = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "closed"},
    "spec": {"selector": {"matchLabels": {"app": "web"}}},
}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}},
}


def deployment(app: str, namespace: str = "shop") -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": app, "version": "v1"}}, "spec": {"containers": []}}
    metadata = {"name": app, "namespace": namespace}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"template": template},
    }


@pytest.mark.parametrize(
    ("given", "path"), [(POLICY, "spec.selector.matchLabels"), (SERVICE, "spec.selector")]
)
def test_a_selector_that_fits_nothing(given: dict[str, Any], path: str) -> None:
    fitting = deployment("web")
    assert told(yaml.safe_dump_all([given])) == [], "nothing that it could fit was given"
    assert told(yaml.safe_dump_all([given, fitting])) == []
    assert told(yaml.safe_dump_all([given, deployment("db"), fitting])) == []
    (found,) = told(yaml.safe_dump_all([given, deployment("db"), deployment("web", "other")]))
    name = f"{given['kind']} shop/{given['metadata']['name']}"
    assert found == (
        f"AMB0005 [warning] {name} at {path}: no pod and no WorkloadEntry in namespace shop of what was given has "
        "the labels app=web"
    )


def test_a_policy_of_the_root_namespace_selects_in_all() -> None:
    root = {**POLICY, "metadata": {"name": "closed", "namespace": "istio-system"}}
    assert told(yaml.safe_dump_all([root, deployment("web", "other")])) == []
    (found,) = told(yaml.safe_dump_all([root, deployment("db", "other")]))
    assert "AuthorizationPolicy istio-system/closed" in found


def test_a_kind_that_is_not_read_is_named() -> None:
    service = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews"},
    }
    others = [deployment(name) for name in "abcde"]
    result = compiled(yaml.safe_dump_all([service, *others]))
    assert [str(each) for each in result.findings] == [
        "AMB0006 [warning] VirtualService shop/reviews: this version does nothing with the kind"
    ]
    assert result.notes == (
        "left out, because they decide nothing about connections: Deployment shop/a, shop/b, shop/c and 2 more",
    )


def ingress(name: str, annotation: str = "", of_class: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": {"kubernetes.io/ingress.class": annotation}},
        "spec": {"ingressClassName": of_class},
    }


def ingress_class(name: str, controller: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": name},
        "spec": {"controller": controller},
    }


def test_an_ingress_of_istios_class_is_named() -> None:
    given = [
        ingress_class("public", "istio.io/ingress-controller"),
        ingress("a", annotation="istio"),
        ingress("b", of_class="istio"),
        ingress("c", of_class="public"),
        ingress("nginx", of_class="nginx"),
        ingress("annotation-counts", annotation="nginx", of_class="istio"),
        ingress("no-class"),
    ]
    text = (
        "ambit serves no Ingress, so no client reaches its backends by it; "
        "write a Gateway with gatewayClassName: istio and an HTTPRoute"
    )
    assert told(yaml.safe_dump_all(given)) == [
        f"AMB0006 [warning] Ingress shop/a at metadata.annotations.kubernetes.io/ingress.class: {text}",
        f"AMB0006 [warning] Ingress shop/b at spec.ingressClassName: {text}",
        f"AMB0006 [warning] Ingress shop/c at spec.ingressClassName: {text}",
    ]
    given = [ingress_class("istio", "example.com/another"), ingress("b", of_class="istio")]
    assert told(yaml.safe_dump_all(given)) == []
