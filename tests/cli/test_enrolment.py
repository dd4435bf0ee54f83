"""A policy that protects nothing, and a label that enrols nothing, are told: silence would look like protection."""

from typing import Any

import pytest

from ambit.cli.enrolment import enrolment_labels, excluded_namespaces, unenrolled_policies
from ambit.cli.policy_references import Surroundings
from ambit.core.names import NOT_CAPTURED_ANNOTATION, REDIRECTION_ANNOTATION

MODE = "istio.io/dataplane-mode"
STRICT = {"mtls": {"mode": "STRICT"}}


def pod(namespace: str, labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": "web", "labels": {"app": "web", **(labels or {})}}
    return {"kind": "Pod", "metadata": metadata | more.pop("metadata", {}), "spec": {}, **more}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def told(
    spec: dict[str, Any],
    *pods: dict[str, Any],
    where: str = "shop",
    kind: str = "AuthorizationPolicy",
    enrolled: str = "",
) -> list[str]:
    names = ("shop", "mesh", "istio-system")
    namespaces = [namespace(name, **({MODE: "ambient"} if name == enrolled else {})) for name in names]
    around = Surroundings(frozenset(names), frozenset(), frozenset(), pods, [])
    policy = {"kind": kind, "metadata": {"namespace": where, "name": "p"}, "spec": spec}
    return list(unenrolled_policies([policy], namespaces, around))


def test_a_policy_of_pods_outside_the_mesh_is_told_with_what_enrols_them() -> None:
    assert told({}, pod("shop"), pod("shop"), pod("mesh"), enrolled="mesh") == [
        (
            "AuthorizationPolicy shop/p protects nothing: none of the 2 pods that it selects is in the mesh; "
            "`kubectl label namespace shop istio.io/dataplane-mode=ambient` enrols a namespace"
        )
    ]
    (line,) = told(STRICT, pod("shop"), kind="PeerAuthentication")
    assert (
        "PeerAuthentication shop/p protects nothing: the one pod that it selects is not in the mesh" in line
    )
    (line,) = told({}, pod("shop"), where="istio-system")
    assert "label namespace NAMESPACE " in line, "of the whole mesh: any namespace may be meant"


def test_gateways_at_the_edge_enforce_policies_but_take_no_tunnels() -> None:
    edge = pod("shop", {"gateway.istio.io/managed": "istio.io-gateway-controller", MODE: "none"})
    assert told({}, edge) == []
    assert len(told(STRICT, edge, kind="PeerAuthentication")) == 1


@pytest.mark.parametrize(
    "within",
    [
        pod("shop", {MODE: "ambient"}),
        pod("shop", metadata={"annotations": {REDIRECTION_ANNOTATION: "enabled"}}),
        pod("mesh"),
    ],
)
def test_one_pod_in_the_mesh_is_enough(within: dict[str, Any]) -> None:
    assert told({}, pod("shop"), within, where="istio-system", enrolled="mesh") == []


@pytest.mark.parametrize(
    "outside",
    [
        pod("mesh", {MODE: "none"}),
        pod("mesh", spec={"hostNetwork": True}),
        pod("mesh", {MODE: "Ambient"}),
    ],
)
def test_pods_that_an_enrolled_namespace_leaves_out(outside: dict[str, Any]) -> None:
    assert len(told({}, outside, where="mesh", enrolled="mesh")) == 1


def test_what_could_refuse_nothing_at_a_node_is_left_out() -> None:
    assert told({}) == [], "no pod yet"
    assert told({}, pod("shop", status={"phase": "Succeeded"})) == []
    assert told({"selector": {"matchLabels": {"app": "other"}}}, pod("shop")) == [], "told as a selector"
    assert told({"targetRefs": [{"kind": "Gateway", "name": "g"}]}, pod("shop")) == []
    assert told({"mtls": {"mode": "PERMISSIVE"}}, pod("shop"), kind="PeerAuthentication") == []
    port = {"mtls": {"mode": "PERMISSIVE"}, "portLevelMtls": {"80": {"mode": "STRICT"}}}
    assert len(told(port, pod("shop"), kind="PeerAuthentication")) == 1


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({MODE: "ambient"}, ""),
        ({MODE: "none"}, ""),
        ({}, ""),
        ({MODE: "ambient", "istio-injection": "enabled"}, ""),
        ({MODE: "none", "istio-injection": "enabled"}, ""),
        ({"istio-injection": "disabled"}, ""),
        ({MODE: "Ambient"}, "Namespace shop has istio.io/dataplane-mode=Ambient, which means nothing"),
        ({MODE: "sidecar"}, "the values are ambient and none"),
        ({"istio-injection": "enabled"}, "there are no sidecars; istio.io/dataplane-mode=ambient enrols it"),
    ],
)
def test_labels_that_were_meant_to_enrol(labels: dict[str, str], words: str) -> None:
    found = list(enrolment_labels([namespace("shop", **labels)]))
    assert len(found) == (1 if words else 0)
    assert words in "".join(found)
    on_pod = list(enrolment_labels([pod("shop", labels)]))
    assert [line.replace("Pod shop/web", "Namespace shop") for line in on_pod] == found


def test_a_revision_label_alone_does_not_enrol_a_namespace() -> None:
    (line,) = enrolment_labels([namespace("shop", **{"istio.io/rev": "canary"})])
    assert line == (
        "Namespace shop has istio.io/rev=canary, which has no effect: there are no sidecars and no revisions; "
        "istio.io/dataplane-mode=ambient enrols it"
    )
    assert not list(enrolment_labels([namespace("shop", **{"istio.io/rev": "canary", MODE: "ambient"})]))
    assert not list(enrolment_labels([pod("istio-system", {"istio.io/rev": "default"})]))


def test_an_excluded_namespace_is_told_and_its_policies_protect_nothing() -> None:
    said = {NOT_CAPTURED_ANNOTATION: "namespace shop is excluded from the mesh"}
    outside = pod("shop", {MODE: "ambient"}, metadata={"annotations": said})
    (line,) = excluded_namespaces([outside, outside, pod("mesh")])
    assert line.startswith("pods of shop ask to be in the mesh and stay outside: namespace shop is excluded")
    assert len(told({}, outside)) == 1
