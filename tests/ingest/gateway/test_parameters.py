"""What people may want of the objects that are made of a Gateway: `ambit.ingest.gateway.parameters`, `overlays`."""

from typing import Any

import msgspec
import pytest

from ambit.core.finding import Finding
from ambit.ingest.gateway.overlays import MOST, Unfit, read_patch
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.proxy import Parameters
from ambit.model.status import GatewayStatus
from tests.ingest.build import Given
from tests.ingest.gateway.build import edge, listener, parameters, patches, waypoint
from tests.ingest.gateway.test_gateways import said
from tests.ingest.test_mesh import change, compiler

MINE = {"infrastructure": parameters("mine")}
REPLICAS = "spec: {replicas: 3}"
PORTS = frozenset({80, 15021})


def wanted(made: MeshCompiler, name: str = "waypoint") -> Parameters:
    return made.proxies[f"default/{name}"].parameters


def read(made: MeshCompiler, name: str = "waypoint") -> list[tuple[str, Any]]:
    assert wanted(made, name).problem == ""
    return [(each.kind, msgspec.json.decode(each.json)) for each in wanted(made, name).patches]


def status(made: MeshCompiler, name: str = "waypoint") -> dict[str, tuple[str, str]]:
    found = made.statuses[f"Gateway default/{name}"]
    assert isinstance(found, GatewayStatus)
    return said(found.conditions)


def findings(made: MeshCompiler) -> list[Finding]:
    return [each for each in made.findings if each.code == "AMB0404"]


@pytest.mark.parametrize("given", [waypoint(**MINE), edge(name="waypoint", **MINE)])
def test_a_gateway_names_a_config_map_of_its_namespace(given: Given) -> None:
    made = compiler(given, patches("mine", deployment=REPLICAS, budget="spec: {minAvailable: 1}"))
    assert read(made) == [
        ("Deployment", {"spec": {"replicas": 3}}),
        ("PodDisruptionBudget", {"spec": {"minAvailable": 1}}),
    ]
    assert status(made)["Accepted"] == ("True", "Accepted") and not made.findings
    made.apply([change(patches("mine", deployment="spec: {replicas: 4}"))])
    assert read(made) == [("Deployment", {"spec": {"replicas": 4}})]


@pytest.mark.parametrize(
    ("infrastructure", "why"),
    [
        (parameters("mine"), "ConfigMap default/mine does not exist"),
        (parameters("mine", "Secret"), "Secret mine: patches are in ConfigMaps"),
        (parameters("mine", "Settings", "example.com"), "Settings.example.com mine: patches are in"),
        (parameters("empty"), "ConfigMap default/empty has none of deployment, service"),
        (parameters("bad"), "ConfigMap default/bad, deployment: metadata.name is not for a patch to change"),
        (parameters("elsewhere"), "ConfigMap default/elsewhere does not exist"),
    ],
)
def test_what_cannot_be_used_changes_nothing_and_is_said(infrastructure: dict[str, Any], why: str) -> None:
    maps = (
        patches("empty", other="x"),
        patches("bad", deployment="metadata: {name: other}", service="spec: {type: NodePort}"),
        patches("elsewhere", namespace="other", deployment=REPLICAS),
    )
    made = compiler(waypoint(infrastructure=infrastructure), *maps)
    assert wanted(made).patches == ()
    assert (
        wanted(made).problem.startswith("spec.infrastructure.parametersRef: ") and why in wanted(made).problem
    )
    found = status(made)
    assert found["Accepted"] == ("False", "InvalidParameters")
    assert found["Programmed"] == ("False", "Invalid")
    (finding,) = findings(made)
    assert why in finding.text


def test_a_mistake_takes_no_proxy_away() -> None:
    made = compiler(waypoint(**MINE), patches("mine", deployment=REPLICAS))
    delta = made.apply([Change("configmaps", "default/mine")])
    assert not delta.proxies.removals and status(made)["Accepted"] == ("False", "InvalidParameters")
    made.apply([change(patches("mine", deployment=REPLICAS))])
    assert status(made)["Accepted"] == ("True", "Accepted")


def test_those_of_a_class_go_first() -> None:
    defaults = patches("old", namespace="ambit-system", of_class="ambit-waypoint", deployment=REPLICAS)
    defaults[1]["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    made = compiler(
        waypoint(**MINE),
        waypoint("plain"),
        waypoint("other", of_class="istio-waypoint"),
        edge(),
        defaults,
        patches(
            "later", namespace="istio-system", of_class="ambit-waypoint", service="spec: {type: NodePort}"
        ),
        patches("anywhere", namespace="shop", of_class="ambit", deployment=REPLICAS),
        patches("mine", deployment="spec: {replicas: 5}"),
    )
    assert read(made) == [
        ("Deployment", {"spec": {"replicas": 3}}),
        ("Deployment", {"spec": {"replicas": 5}}),
    ]
    assert read(made, "plain") == [("Deployment", {"spec": {"replicas": 3}})]
    assert read(made, "other") == [] and read(made, "edge") == [], "of another class, of no system namespace"
    made.apply([Change("configmaps", "ambit-system/old")])
    assert read(made, "plain") == [("Service", {"spec": {"type": "NodePort"}})]


def test_nothing_is_made_of_an_inline_waypoint() -> None:
    made = compiler(waypoint(of_class="ambit-inline", **MINE), patches("mine", deployment=REPLICAS))
    assert status(made)["Accepted"] == ("False", "InvalidParameters") and not made.proxies
    defaults = patches("all", namespace="ambit-system", of_class="ambit-inline", deployment=REPLICAS)
    assert wanted(compiler(waypoint(of_class="ambit-inline"), defaults)) == Parameters()


def test_ports_are_those_of_the_gateway() -> None:
    given = edge(listener(port=8080), **MINE)
    assert read(
        compiler(given, patches("mine", service="spec: {ports: [{port: 8080, nodePort: 30080}]}")), "edge"
    )
    made = compiler(given, patches("mine", service="spec: {ports: [{port: 9090, nodePort: 30090}]}"))
    assert "spec.ports[0]: items are known by their port, here 8080, 15021" in wanted(made, "edge").problem


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "Deployment",
            "{apiVersion: apps/v1, kind: Deployment, metadata: {labels: {team: a}, annotations: {x.io/y: b}}}",
        ),
        ("Deployment", "spec: {strategy: {rollingUpdate: {maxSurge: 2}}, minReadySeconds: 5}"),
        ("Deployment", "spec: {template: {metadata: {annotations: {example.com/a: b}}}}"),
        ("Deployment", "spec: {template: {spec: {nodeSelector: {a: b}, tolerations: [{operator: Exists}]}}}"),
        ("Deployment", "spec: {template: {spec: {affinity: null, securityContext: {runAsUser: 10001}}}}"),
        (
            "Deployment",
            "spec: {template: {spec: {containers: [{name: istio-proxy, resources: {limits: {$patch: delete}}}]}}}",
        ),
        ("Service", "metadata: {annotations: {networking.istio.io/traffic-distribution: PreferSameNode}}"),
        (
            "Service",
            "spec: {type: NodePort, externalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30080}]}",
        ),
        (
            "ServiceAccount",
            "{metadata: {annotations: {eks.amazonaws.com/role-arn: x}}, imagePullSecrets: [{name: s}]}",
        ),
        ("HorizontalPodAutoscaler", "spec: {minReplicas: 2, maxReplicas: 5, metrics: [], behavior: {}}"),
        ("PodDisruptionBudget", "spec: {maxUnavailable: 50%, unhealthyPodEvictionPolicy: AlwaysAllow}"),
    ],
)
def test_what_a_patch_may_say(kind: str, text: str) -> None:
    assert msgspec.json.decode(read_patch(kind, text, PORTS))


def in_pod(text: str) -> str:
    return f"spec: {{template: {{spec: {{{text}}}}}}}"


def in_container(text: str) -> str:
    return in_pod(f"containers: [{{name: istio-proxy, {text}}}]")


@pytest.mark.parametrize(
    ("kind", "text", "field"),
    [
        ("Deployment", "metadata: {namespace: other}", "metadata.namespace"),
        ("Deployment", "metadata: {ownerReferences: []}", "metadata.ownerReferences"),
        ("Deployment", "metadata: {finalizers: [a/b]}", "metadata.finalizers"),
        ("Deployment", "metadata: null", "metadata"),
        ("Deployment", "metadata: {labels: null}", "metadata.labels"),
        ("Deployment", "metadata: {labels: {$patch: replace}}", "metadata.labels[$patch]"),
        ("Deployment", "metadata: {labels: {gateway.istio.io/managed: x}}", "metadata.labels[gateway"),
        (
            "Deployment",
            "metadata: {labels: {istio.io/use-waypoint: x}}",
            "metadata.labels[istio.io/use-waypoint]",
        ),
        ("Deployment", "metadata: {annotations: {a: 1}}", "metadata.annotations[a] is a text"),
        ("Deployment", "{$patch: delete}", "$patch"),
        ("Deployment", "kind: DaemonSet", "kind is one of Deployment"),
        ("Deployment", "spec: {selector: {}}", "spec.selector"),
        ("Deployment", "spec: {$patch: replace}", "spec.$patch"),
        ("Deployment", "spec: {template: {metadata: {labels: {a: b}}}}", "spec.template.metadata.labels"),
        (
            "Deployment",
            "spec: {template: {metadata: {annotations: {ambient.istio.io/redirection: x}}}}",
            "annotations[ambient.istio.io/redirection]",
        ),
        ("Deployment", in_pod("hostNetwork: true"), "spec.template.spec.hostNetwork"),
        ("Deployment", in_pod("serviceAccountName: admin"), "spec.template.spec.serviceAccountName"),
        ("Deployment", in_pod("volumes: [{name: x, hostPath: {path: /}}]"), "spec.template.spec.volumes"),
        ("Deployment", in_pod("initContainers: []"), "spec.template.spec.initContainers"),
        ("Deployment", in_pod("securityContext: {runAsNonRoot: false}"), "securityContext.runAsNonRoot"),
        ("Deployment", in_pod("securityContext: {sysctls: []}"), "securityContext.sysctls"),
        ("Deployment", in_pod("containers: [{name: other, image: x}]"), "containers[0]: items are known"),
        ("Deployment", in_container("image: other"), "containers[0].image"),
        ("Deployment", in_container("command: [sh]"), "containers[0].command"),
        ("Deployment", in_container("args: [x]"), "containers[0].args"),
        ("Deployment", in_container("env: []"), "containers[0].env"),
        ("Deployment", in_container("lifecycle: {}"), "containers[0].lifecycle"),
        (
            "Deployment",
            in_container("securityContext: {privileged: true}"),
            "containers[0].securityContext",
        ),
        ("Deployment", in_container("readinessProbe: {exec: {}}"), "containers[0].readinessProbe.exec"),
        ("Deployment", in_container("$patch: delete"), "containers[0].$patch"),
        ("Service", "spec: {selector: {app: other}}", "spec.selector"),
        ("Service", "spec: {type: ExternalName}", "spec.type is one of"),
        ("Service", "spec: {externalIPs: [192.0.2.1]}", "spec.externalIPs"),
        ("Service", "spec: {ports: [{port: 80, targetPort: 15000}]}", "spec.ports[0].targetPort"),
        ("Service", "spec: {ports: [{port: 15000}]}", "spec.ports[0]: items are known by their port"),
        ("ServiceAccount", "secrets: []", "secrets"),
        ("HorizontalPodAutoscaler", "spec: {scaleTargetRef: {name: other}}", "spec.scaleTargetRef"),
        ("PodDisruptionBudget", "spec: {selector: {}}", "spec.selector"),
        ("Deployment", "[a]", "it is no mapping"),
        ("Deployment", "a: [", "line"),
        ("Deployment", "# " + "x" * MOST, "longer than"),
    ],
)
def test_what_a_patch_may_not_say(kind: str, text: str, field: str) -> None:
    with pytest.raises(Unfit) as raised:
        read_patch(kind, text, PORTS)
    assert field in str(raised.value)


@pytest.mark.parametrize("port", ["[1]", "{a: 1}", "null", "80.0", "'80'"])
def test_what_is_no_port_is_refused_whatever_it_is(port: str) -> None:
    with pytest.raises(Unfit, match="items are known by their port"):
        read_patch("Service", f"spec: {{ports: [{{port: {port}, nodePort: 30080}}]}}", PORTS)


@pytest.mark.parametrize(
    "given", ["[" + "x" * 2000 + "]", "{" + "x" * 1000 + ": 1}", "[" + ", ".join(["1"] * 200) + "]"]
)
def test_aliases_count_as_what_they_stand_for(given: str) -> None:
    text = f"spec: {{strategy: &a {given}, revisionHistoryLimit: [{', '.join(['*a'] * 400)}]}}"
    assert len(text) < MOST
    with pytest.raises(Unfit, match="with what its aliases stand for"):
        read_patch("Deployment", text, PORTS)
