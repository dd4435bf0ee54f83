"""Objects without effect are named."""

from typing import Any

from ambit.cli.inactive import inactive_kinds, ingresses_without_effect, is_laptop, without_effect
from ambit.kube.resource import GATEWAYS, HTTP_ROUTES, NETWORK_POLICIES, Resource


def definition(group: str, plural: str, kind: str, *, served: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1alpha1", "served": False}, {"name": "v1", "served": served}],
        },
    }


def test_kinds_of_the_mesh_that_are_not_enforced() -> None:
    definitions = [
        definition("extensions.istio.io", "wasmplugins", "WasmPlugin"),
        definition("security.istio.io", "authorizationpolicies", "AuthorizationPolicy"),
        definition("gateway.networking.k8s.io", "referencegrants", "ReferenceGrant"),
        definition("gateway.networking.k8s.io", "backendtlspolicies", "BackendTLSPolicy"),
        definition("gateway.networking.x-k8s.io", "xbackendtrafficpolicies", "XBackendTrafficPolicy"),
        definition("networking.istio.io", "sidecars", "Sidecar", served=False),
        definition("example.com", "shops", "Shop"),
    ]
    assert list(inactive_kinds(definitions)) == [
        Resource("extensions.istio.io", "v1", "wasmplugins", "WasmPlugin")
    ]


def test_objects_are_named_and_counted() -> None:
    kind = Resource("networking.istio.io", "v1", "virtualservices", "VirtualService")
    objects = [{"metadata": {"namespace": "shop", "name": name}} for name in "edcba"]
    assert list(without_effect(kind, objects, {})) == [
        "VirtualService shop/a, shop/b, shop/c and 2 more: this version does nothing with the kind"
    ]
    assert list(without_effect(kind, [], {})) == []


def test_waypoints_and_their_routes_have_an_effect() -> None:
    def named(name: str, **spec: Any) -> dict[str, Any]:
        return {"metadata": {"namespace": "shop", "name": name}, "spec": spec}

    gateways = [named("ours", gatewayClassName="ambit-waypoint"), named("other", gatewayClassName="nginx")]
    assert list(without_effect(GATEWAYS, gateways, {"nginx": {}})) == [
        "Gateway shop/other: this version does nothing with that class"
    ]
    assert list(without_effect(GATEWAYS, gateways, {"ambit-waypoint": {}})) == [
        "Gateway shop/other: there is no GatewayClass 'nginx', so nothing serves it"
    ]
    routes = [
        named("ours", parentRefs=[{"group": "", "kind": "Service", "name": "web"}]),
        named("other", parentRefs=[{"kind": "Mesh", "name": "edge"}]),
    ]
    assert list(without_effect(HTTP_ROUTES, routes, {})) == [
        "HTTPRoute shop/other: this version does nothing with a route on such a parent"
    ]


def test_somebody_elses_waypoints_have_an_effect() -> None:
    def of_class(name: str, **gateway: Any) -> dict[str, Any]:
        spec = {"gatewayClassName": name, **gateway.pop("spec", {})}
        return {"metadata": {"namespace": "shop", "name": name, **gateway}, "spec": spec}

    binding = {"annotations": {"ambient.istio.io/waypoint-inbound-binding": "PROXY/15088"}}
    gateways = [
        of_class("told", **binding),
        of_class("by-its-class"),
        of_class("tunnels", spec={"listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]}),
        of_class("edge", spec={"listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}),
    ]
    classes: dict[str, Any] = {name: {"metadata": {}} for name in ("told", "tunnels", "edge")}
    assert list(without_effect(GATEWAYS, gateways, {**classes, "by-its-class": {"metadata": binding}})) == [
        "Gateway shop/edge: this version does nothing with that class"
    ]


def test_a_network_policy_on_the_laptop_is_not_enforced() -> None:
    def node(runtime: str) -> dict[str, Any]:
        return {"status": {"nodeInfo": {"containerRuntimeVersion": runtime}}}

    assert is_laptop([node("ambit://1.0"), node("ambit://1.0")])
    assert not is_laptop([node("ambit://1.0"), node("containerd://2.0")])
    assert not is_laptop([])
    policies = [{"metadata": {"namespace": "shop", "name": "closed"}, "spec": {"podSelector": {}}}]
    assert list(without_effect(NETWORK_POLICIES, policies, {})) == [
        "NetworkPolicy shop/closed: the laptop cluster enforces no NetworkPolicy; write an AuthorizationPolicy"
    ]


def test_ingresses_of_istios_class_are_named() -> None:
    ingresses = [
        {"metadata": {"namespace": "shop", "name": "b"}, "spec": {"ingressClassName": "mesh"}},
        {"metadata": {"namespace": "shop", "name": "c"}, "spec": {"ingressClassName": "nginx"}},
        {
            "metadata": {
                "namespace": "shop",
                "name": "a",
                "annotations": {"kubernetes.io/ingress.class": "istio"},
            }
        },
    ]
    classes = [{"metadata": {"name": "mesh"}, "spec": {"controller": "istio.io/ingress-controller"}}]
    first, second = ingresses_without_effect(ingresses, classes)
    assert first.startswith(
        "Ingress shop/a at metadata.annotations.kubernetes.io/ingress.class: ambit serves no"
    )
    assert second.endswith("write a Gateway with gatewayClassName: istio and an HTTPRoute")
    assert second.startswith("Ingress shop/b at spec.ingressClassName: ")
