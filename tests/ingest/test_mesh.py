"""The compiler as the control plane calls it."""

import json

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.service import BalancingMode, Scope
from ambit.model.workload import Port, TunnelProtocol, WorkloadStatus, WorkloadType
from ambit.objects.decoding import PROJECTIONS
from tests.ingest.build import Given, authorization_policy, endpoint_slice, node, peer, pod, service


def change(given: Given) -> Change:
    resource, body = given
    value = PROJECTIONS[resource].decode(json.dumps(body).encode())
    return Change(resource, value.metadata.key, value)


def compiler(*given: Given) -> MeshCompiler:
    made = MeshCompiler(MeshSettings())
    made.apply(map(change, given))
    return made


WEB = "Kubernetes//Pod/default/web-1"


def test_pod_and_service() -> None:
    made = MeshCompiler(MeshSettings())
    delta = made.apply(
        map(
            change,
            [
                node("node1", region="r1", zone="z1"),
                service("web", {"app": "web"}, ip="10.96.0.5"),
                pod(
                    "web-1", "10.244.1.2", labels={"app": "web", "pod-template-hash": "abc"}, owner="web-abc"
                ),
            ],
        )
    )
    web = delta.workloads.upserts[WEB]
    assert web.services == {"default/web.default.svc.cluster.local": (Port(80, 8080),)}
    assert (web.workload_name, web.workload_type, web.canonical_name) == (
        "web",
        WorkloadType.DEPLOYMENT,
        "web",
    )
    assert (web.locality.region, web.locality.zone, web.node) == ("r1", "z1", "node1")
    assert web.tunnel is TunnelProtocol.HBONE
    assert web.identity.uri == "spiffe://cluster.local/ns/default/sa/default"
    assert [
        str(each.address)
        for each in delta.services.upserts["default/web.default.svc.cluster.local"].addresses
    ] == ["10.96.0.5"]


def test_a_change_moves_only_what_depends_on_it() -> None:
    made = compiler(service("web", {"app": "web"}), pod("web-1", "10.244.1.2"), pod("web-2", "10.244.1.3"))
    delta = made.apply([change(pod("web-2", "10.244.1.3", ready=False))])
    assert list(delta.workloads.upserts) == ["Kubernetes//Pod/default/web-2"]
    assert delta.workloads.upserts["Kubernetes//Pod/default/web-2"].status is WorkloadStatus.UNHEALTHY
    assert not delta.services and not delta.authorizations
    assert not made.apply([change(pod("web-2", "10.244.1.3", ready=False))])


def test_a_new_service_reaches_pods_that_were_there_and_leaves_with_it() -> None:
    made = compiler(pod("web-1", "10.244.1.2"))
    delta = made.apply([change(service("web", {"app": "web"}))])
    assert list(delta.workloads.upserts[WEB].services) == ["default/web.default.svc.cluster.local"]
    delta = made.apply([Change("services", "default/web")])
    assert delta.workloads.upserts[WEB].services == {}
    assert delta.services.removals == ("default/web.default.svc.cluster.local",)


def test_a_named_port_is_resolved_on_each_pod() -> None:
    made = compiler(
        service("web", {"app": "web"}, target="http"),
        pod("web-1", "10.244.1.2", ports={"http": 9000}),
        pod("web-2", "10.244.1.3", ports={"admin": 9000}),
    )
    key = "default/web.default.svc.cluster.local"
    assert made.workloads[WEB].services[key] == (Port(80, 9000),)
    assert made.workloads["Kubernetes//Pod/default/web-2"].services[key] == ()
    assert made.services[key].ports == (Port(80, 0),)


def test_phases_of_a_pod() -> None:
    made = compiler(pod("web-1", ""))
    assert not made.workloads
    made.apply([change(pod("web-1", "10.244.1.2", ready=False, redirected=False))])
    assert made.workloads[WEB].tunnel is TunnelProtocol.NONE
    made.apply([change(pod("web-1", "10.244.1.2"))])
    assert made.workloads[WEB].tunnel is TunnelProtocol.HBONE
    made.apply([change(pod("web-1", "10.244.1.2", deleted=True))])
    assert made.workloads[WEB].status is WorkloadStatus.UNHEALTHY
    delta = made.apply([change(pod("web-1", "10.244.1.2", phase="Succeeded"))])
    assert delta.workloads.removals == (WEB,)


def test_slices_count_for_a_service_without_selector() -> None:
    made = compiler(
        service("kubernetes", None, ip="10.96.0.1"),
        endpoint_slice("kubernetes", "172.30.0.1", 6443),
        service("picked", None),
        endpoint_slice("picked", "10.244.1.2", 8080, pod_name="web-1"),
        service("web", {"app": "web"}),
        endpoint_slice("web", "10.9.9.9", 1),
        pod("web-1", "10.244.1.2"),
    )
    outside = made.workloads["Kubernetes/discovery.k8s.io/EndpointSlice/default/kubernetes-s/172.30.0.1"]
    assert outside.services == {"default/kubernetes.default.svc.cluster.local": (Port(80, 6443),)}
    assert sorted(made.workloads[WEB].services) == [
        "default/picked.default.svc.cluster.local",
        "default/web.default.svc.cluster.local",
    ]
    assert len(made.workloads) == 2


def test_load_balancing_of_a_service() -> None:
    made = compiler(
        service("local", {"app": "web"}, internalTrafficPolicy="Local"),
        service("near", {"app": "web"}, trafficDistribution="PreferClose"),
        service("any", {"app": "web"}, publishNotReadyAddresses=True),
    )
    by_name = {each.name: each.load_balancing for each in made.services.values()}
    assert by_name["local"] and by_name["local"].mode is BalancingMode.STRICT
    assert by_name["local"].routing_preference == (Scope.NODE,)
    assert by_name["near"] and by_name["near"].mode is BalancingMode.FAILOVER
    assert by_name["any"] and by_name["any"].health_policy.name == "ALLOW_ALL"


def test_policies_are_named_by_the_workloads_they_select() -> None:
    made = compiler(
        pod("web-1", "10.244.1.2"),
        authorization_policy("only-web", selector={"app": "web"}, rules=[{}]),
        authorization_policy("others", selector={"app": "db"}, rules=[{}]),
        authorization_policy("everywhere", namespace="istio-system", selector={"app": "web"}, rules=[{}]),
        peer("default", namespace="istio-system", mode="STRICT"),
    )
    assert made.workloads[WEB].policies == (
        "default/only-web",
        "istio-system/everywhere",
        "istio-system/istio_converted_static_strict",
    )
    assert set(made.workloads[WEB].policies) <= set(made.authorizations)
    delta = made.apply([change(authorization_policy("only-web", selector={"app": "web"}, rules=[]))])
    assert not delta.workloads and list(delta.authorizations.upserts) == ["default/only-web"]


def test_findings_come_and_go() -> None:
    made = compiler(authorization_policy("p", rules=[{"to": [{"operation": {"ports": ["x"]}}]}]))
    assert [finding.code for finding in made.findings] == ["AMB0210"]
    delta = made.apply([Change("authorizationpolicies.security.istio.io", "default/p")])
    assert delta.findings.removals == ("AuthorizationPolicy default/p",)
    assert not made.findings


def test_an_object_that_cannot_be_compiled_stops_nobody_else() -> None:
    made = compiler(pod("bad", "not-an-address"), pod("web-1", "10.244.1.2"))
    assert list(made.workloads) == [WEB]
    assert [(each.code, str(each.origin)) for each in made.findings] == [("AMB0001", "Pod default/bad")]
    made.apply([Change("pods", "default/bad")])
    assert not made.findings
