"""Objects without effect are named."""

from typing import Any

from ambit.cli.inactive import inactive_kinds, waypoint_labels, without_effect
from ambit.kube.resource import REQUEST_AUTHENTICATIONS, Resource


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
        definition("security.istio.io", "requestauthentications", "RequestAuthentication"),
        definition("security.istio.io", "authorizationpolicies", "AuthorizationPolicy"),
        definition("gateway.networking.k8s.io", "referencegrants", "ReferenceGrant"),
        definition("networking.istio.io", "sidecars", "Sidecar", served=False),
        definition("example.com", "shops", "Shop"),
    ]
    assert list(inactive_kinds(definitions)) == [REQUEST_AUTHENTICATIONS]


def test_objects_are_named_and_counted() -> None:
    kind = Resource("networking.istio.io", "v1", "virtualservices", "VirtualService")
    objects = [{"metadata": {"namespace": "shop", "name": name}} for name in "edcba"]
    assert list(without_effect(kind, objects)) == [
        "VirtualService shop/a, shop/b, shop/c and 2 more: this version does nothing with the kind"
    ]
    assert list(without_effect(kind, [])) == []


def test_who_asks_for_a_waypoint() -> None:
    labelled = [
        {"kind": "Namespace", "metadata": {"name": "shop", "labels": {"istio.io/use-waypoint": "waypoint"}}},
        {
            "kind": "Service",
            "metadata": {"namespace": "shop", "name": "web", "labels": {"istio.io/use-waypoint": "none"}},
        },
        {"kind": "Service", "metadata": {"namespace": "shop", "name": "db"}},
    ]
    assert list(waypoint_labels(labelled)) == [
        "Namespace shop asks for waypoint waypoint: this version has none; it is left out"
    ]
