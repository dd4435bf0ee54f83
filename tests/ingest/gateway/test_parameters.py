"""What people may want of the objects that are made of a Gateway: `ambit.ingest.gateway.parameters`, `overlays`."""

from typing import Any

import msgspec
import pytest

from ambit.core.finding import Finding
from ambit.ingest.gateway.overlays import MOST, Unfit, read_patch
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.patch_limits import PatchLimits, annotation_problem
from ambit.ingest.settings import MeshSettings
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


def annotated(text: str) -> str:
    return f"spec: {{template: {{metadata: {{annotations: {text}}}}}}}"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "Deployment",
            "{apiVersion: apps/v1, kind: Deployment, metadata: {labels: {team: a}, annotations: {a: b}}}",
        ),
        ("Deployment", "spec: {strategy: {rollingUpdate: {maxSurge: 2}}, minReadySeconds: 5}"),
        ("Deployment", annotated("{prometheus.io/port: '9', checksum/config: x, note: b}")),
        ("Deployment", annotated("{cluster-autoscaler.kubernetes.io/safe-to-evict: 'true'}")),
        ("Deployment", "spec: {replicas: 100, strategy: {rollingUpdate: {maxSurge: 100%}}}"),
        ("Deployment", "spec: {replicas: null, strategy: null}"),
        ("Service", "metadata: {annotations: {service.beta.kubernetes.io/aws-load-balancer-type: nlb}}"),
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
            "{metadata: {annotations: {note: x}}, imagePullSecrets: [{name: s}]}",
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
        (
            "Deployment",
            annotated("{vault.hashicorp.com/agent-inject: 'true'}"),
            "[vault.hashicorp.com/agent-in",
        ),
        (
            "Deployment",
            annotated("{sidecar.istio.io/inject: 'true'}"),
            "[sidecar.istio.io/inject] is not adm",
        ),
        ("Deployment", annotated("{prometheus.io.example.com/a: b}"), "[prometheus.io.example.com/a] is not"),
        ("Deployment", annotated("{$patch: replace}"), "annotations[$patch] is not admitted"),
        (
            "Deployment",
            "metadata: {annotations: {keel.sh/policy: all}}",
            "metadata.annotations[keel.sh/policy]",
        ),
        (
            "ServiceAccount",
            "metadata: {annotations: {eks.amazonaws.com/role-arn: x}}",
            "[eks.amazonaws.com/role",
        ),
        (
            "ServiceAccount",
            "metadata: {annotations: {iam.gke.io/gcp-service-account: x}}",
            "[iam.gke.io/gcp-se",
        ),
        ("Deployment", "spec: {replicas: 101}", "spec.replicas is at most 100"),
        ("Deployment", "spec: {replicas: 1.5}", "spec.replicas is a whole number"),
        ("Deployment", "spec: {replicas: true}", "spec.replicas is a whole number"),
        ("Deployment", "spec: {replicas: '5'}", "spec.replicas is a whole number"),
        (
            "Deployment",
            "spec: {strategy: {rollingUpdate: {maxSurge: 2000%}}}",
            "spec.strategy.rollingUpdate.maxSurge is at most 100%",
        ),
        (
            "Deployment",
            "spec: {strategy: {rollingUpdate: {maxSurge: 2000}}}",
            "spec.strategy.rollingUpdate.maxSurge is at most 100 ",
        ),
        ("HorizontalPodAutoscaler", "spec: {maxReplicas: 2147483647}", "spec.maxReplicas is at most 100"),
        ("HorizontalPodAutoscaler", "spec: {minReplicas: 101}", "spec.minReplicas is at most 100"),
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


def test_each_field_that_is_refused_is_named() -> None:
    text = "spec: {replicas: 200, selector: {}, template: {metadata: {annotations: {a.b/c: d, e.f/g: h}}}}"
    made = compiler(
        waypoint(**MINE),
        patches("mine", deployment=text, serviceAccount="metadata: {annotations: {iam.gke.io/a: b}}"),
    )
    problem = wanted(made).problem
    for each in (
        "spec.replicas",
        "spec.selector",
        "[a.b/c]",
        "[e.f/g]",
        "serviceAccount: ",
        "[iam.gke.io/a]",
    ):
        assert each in problem
    assert [each.text for each in findings(made)] and problem in findings(made)[0].text


def test_many_refused_fields_are_not_all_named() -> None:
    many = ", ".join(f"a{index}.example/b: c" for index in range(1000))
    with pytest.raises(Unfit) as raised:
        read_patch("ServiceAccount", f"metadata: {{annotations: {{{many}}}}}", PORTS)
    assert "a9.example/b" in str(raised.value) and str(raised.value).endswith("; and more")
    assert len(str(raised.value)) < 2000


def test_the_operator_admits_more() -> None:
    limits = PatchLimits(("eks.amazonaws.com/role-arn", "vault.hashicorp.com/*"), replicas=500)
    account = "metadata: {annotations: {eks.amazonaws.com/role-arn: x}}"
    injected = annotated("{vault.hashicorp.com/agent-inject: 'true'}")
    assert read_patch("ServiceAccount", account, PORTS, limits)
    assert read_patch("Deployment", injected, PORTS, limits)
    assert read_patch("HorizontalPodAutoscaler", "spec: {maxReplicas: 500}", PORTS, limits)
    made = MeshCompiler(MeshSettings(patches=limits))
    made.apply([change(each) for each in (waypoint(**MINE), patches("mine", serviceAccount=account))])
    assert read(made) == [("ServiceAccount", msgspec.yaml.decode(account))]
    with pytest.raises(Unfit):
        read_patch("ServiceAccount", account.replace("role-arn", "other"), PORTS, limits)
    own = annotated("{ambient.istio.io/redirection: enabled}")
    with pytest.raises(Unfit):
        read_patch("Deployment", own, PORTS, PatchLimits(("ambient.istio.io/*",)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("eks.amazonaws.com/role-arn", ""),
        ("vault.hashicorp.com/*", ""),
        ("*", "neither"),
        ("note", "neither"),
        ("*/a", "neither"),
        ("a.b/c*", "neither"),
        ("a.b/", "neither"),
        ("a/b/c", "neither"),
        ("sidecar.istio.io/inject", "the mesh are its own"),
        ("ambit.io/*", "the mesh are its own"),
    ],
)
def test_what_an_operator_can_admit(text: str, problem: str) -> None:
    found = annotation_problem(text)
    assert problem in found and bool(found) is bool(problem)


def test_annotations_of_a_gateway_that_are_not_for_its_pods_are_said() -> None:
    annotations = {"note": "a", "eks.amazonaws.com/role-arn": "b", "service.beta.kubernetes.io/x": "c"}
    for given in (waypoint, edge):
        made = compiler(given(name="waypoint", infrastructure={"annotations": annotations}))
        found = made.statuses["Gateway default/waypoint"]
        assert isinstance(found, GatewayStatus)
        accepted = next(each for each in found.conditions if each.type == "Accepted")
        assert accepted.holds and accepted.message == (
            "spec.infrastructure.annotations: on its Service only, and not on its pods, are"
            " eks.amazonaws.com/role-arn, service.beta.kubernetes.io/x"
        )
    plain = compiler(waypoint(infrastructure={"annotations": {"note": "a"}}))
    assert status(plain)["Accepted"] == ("True", "Accepted") and not plain.findings


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
