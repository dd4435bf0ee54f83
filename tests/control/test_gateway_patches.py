"""Strategic merge patches to what makes a Gateway's proxy run: `ambit.control.gateways.patches`."""

from typing import Any

import msgspec

from ambit.control.gateways.objects import gateway_objects
from ambit.control.gateways.patches import patched, scaled
from ambit.ingest.gateway.overlays import read_patch
from ambit.model.proxy import Parameters, Patch
from ambit.objects.gateway import Gateway
from tests.control.test_gateway_objects import PODS, gateway, proxy_of


def made(given: Gateway, *patches: tuple[str, str]) -> dict[str, dict[str, Any]]:
    """The objects of a Gateway, with these patches."""
    texts = tuple(Patch(kind, read_patch(kind, text, {15008, 15021})) for kind, text in patches)
    proxy = msgspec.structs.replace(proxy_of(given), parameters=Parameters(texts))
    objects = patched(gateway_objects(given, proxy, PODS), given, proxy)
    return {resource.kind: value for resource, value in objects}


def test_patches_merge_with_what_is_there() -> None:
    pod = """
      spec:
        replicas: 3
        template:
          spec:
            nodeSelector: {pool: edge}
            tolerations: [{key: edge, operator: Exists}]
            topologySpreadConstraints: [{topologyKey: zone, maxSkew: 1, whenUnsatisfiable: ScheduleAnyway}]
            containers:
            - {name: istio-proxy, resources: {limits: {cpu: null, memory: 2Gi}}}
    """
    later = "spec: {template: {spec: {tolerations: [{key: other, operator: Exists}]}}}"
    plain = made(gateway())["Deployment"]["spec"]
    found = made(gateway(), ("Deployment", pod), ("Deployment", later))["Deployment"]["spec"]
    (container,) = found["template"]["spec"]["containers"]
    (before,) = plain["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"memory": "2Gi"},
    }
    assert {**container, "resources": 0} == {**before, "resources": 0}
    spec = found["template"]["spec"]
    assert found["replicas"] == 3 and "replicas" not in plain
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "edge"}
    assert spec["tolerations"] == [{"key": "other", "operator": "Exists"}], "such a list is replaced"
    assert spec["volumes"] == plain["template"]["spec"]["volumes"]


def test_ports_are_merged_by_their_number() -> None:
    text = "spec: {type: NodePort, ports: [{port: 15008, nodePort: 31008}]}"
    ports = made(gateway(), ("Service", text))["Service"]["spec"]["ports"]
    assert [(each["port"], each.get("nodePort")) for each in ports] == [(15021, None), (15008, 31008)]


def test_an_autoscaler_and_a_budget_are_there_when_somebody_wants_them() -> None:
    assert list(made(gateway())) == ["ServiceAccount", "Service", "Deployment"]
    scaler = made(gateway(), ("HorizontalPodAutoscaler", "spec: {maxReplicas: 4}"))
    assert list(scaler) == ["ServiceAccount", "Service", "Deployment", "HorizontalPodAutoscaler"]
    spec = scaler["HorizontalPodAutoscaler"]["spec"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "waypoint"}
    assert spec == {"scaleTargetRef": target, "maxReplicas": 4}
    budget = made(gateway(), ("PodDisruptionBudget", "spec: {minAvailable: 1}"))["PodDisruptionBudget"]
    selector = {"matchLabels": {"gateway.networking.k8s.io/gateway-name": "waypoint"}}
    assert budget["spec"] == {"selector": selector, "minAvailable": 1}
    assert budget["metadata"]["labels"]["gateway.istio.io/managed"] == "istio.io-mesh-controller"


def test_an_autoscaler_decides_how_many_there_are() -> None:
    given = gateway()
    scaler = Patch("HorizontalPodAutoscaler", "{}")
    proxy = msgspec.structs.replace(proxy_of(given), parameters=Parameters((scaler,)))
    with_scaler = patched(gateway_objects(given, proxy, PODS), given, proxy)
    live = {"metadata": {"resourceVersion": "9"}, "spec": {"replicas": 7}}
    (found,) = [value for each, value in scaled(with_scaler, live) if each.kind == "Deployment"]
    assert (found["spec"]["replicas"], found["metadata"]["resourceVersion"]) == (7, "9")
    assert scaled(with_scaler, None) == with_scaler, "it is not there yet"
    plain = gateway_objects(given, proxy_of(given), PODS)
    assert scaled(plain, live) == plain
