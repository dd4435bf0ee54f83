"""Whatever objects a tenant writes, the compiler raises nothing and compiles another tenant's objects as before."""

import random
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest
import yaml

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.objects.decoding import PROJECTIONS
from tests.abuse.random_objects import Names, objects
from tests.soak import long

pytestmark = pytest.mark.soak

RUNS = long(8, 800)
OBJECTS = 50
RESOURCES = {(each.group, each.kind): name for name, each in PROJECTIONS.items()}
VICTIM = """
{apiVersion: v1, kind: Namespace, metadata: {name: victim, labels: {istio.io/dataplane-mode: ambient,
  istio.io/use-waypoint: waypoint}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: own, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint},
  spec: {controllerName: istio.io/mesh-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: victim,
  labels: {istio.io/waypoint-for: all}}, spec: {gatewayClassName: istio-waypoint,
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: victim}, spec: {clusterIP: 10.96.1.2,
  clusterIPs: [10.96.1.2], selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: waypoint, namespace: victim,
  labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {clusterIP: 10.96.1.9, clusterIPs: [10.96.1.9],
  selector: {gateway.networking.k8s.io/gateway-name: waypoint}, ports: [{name: mesh, port: 15008}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: victim, uid: p, labels: {app: web},
  annotations: {ambient.istio.io/redirection: enabled}}, spec: {nodeName: n, containers: [{name: c}]},
  status: {phase: Running, podIP: 10.244.1.3, podIPs: [{ip: 10.244.1.3}], conditions: [{type: Ready, status: "True"}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web, namespace: victim,
  labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{name: http, port: 8080}],
  endpoints: [{addresses: [10.244.1.3], conditions: {ready: true}, targetRef: {kind: Pod, name: web}}]}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: no-admin, namespace: victim},
  spec: {targetRefs: [{kind: Service, group: "", name: web}], action: DENY,
  rules: [{to: [{operation: {paths: [/admin]}}]}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict, namespace: victim},
  spec: {mtls: {mode: STRICT}}}
"""


def decoded(written: Iterable[Mapping[str, Any]]) -> list[Change]:
    """Those that the control plane reads; it leaves out what does not decode."""
    changes = []
    for each in written:
        resource = RESOURCES.get((each["apiVersion"].rpartition("/")[0], each["kind"]))
        if resource is None or not PROJECTIONS[resource].chooses(each):
            continue
        try:
            value = PROJECTIONS[resource].decode(msgspec.json.encode(each))
        except msgspec.MsgspecError:
            continue
        changes.append(Change(resource, value.metadata.key, value))
    return changes


def of_victim(compiler: MeshCompiler) -> dict[tuple[str, str], Any]:
    parts = ("authorizations", "services", "workloads", "proxies", "tokens", "request_policies")
    return {
        (part, str(key)): value
        for part in parts
        for key, value in getattr(compiler, part).items()
        if getattr(value, "namespace", str(key).partition("/")[0]) == "victim"
    }


@pytest.mark.timeout(long(300, 3600))
def test_objects_of_another_tenant_compile_as_before() -> None:
    names = Names("own", "victim", ["10.96.1.2", "10.244.1.3"])
    victim = decoded(yaml.safe_load_all(VICTIM))
    quiet = MeshCompiler(MeshSettings())
    quiet.apply(victim)
    before = of_victim(quiet)
    assert {part for part, _ in before} >= {"authorizations", "services", "workloads", "request_policies"}
    first = long(0, random.SystemRandom().randrange(10**9))
    for seed in range(first, first + RUNS):
        made = objects(random.Random(seed), names)
        compiler = MeshCompiler(MeshSettings())
        compiler.apply(victim)
        read = 0
        for _ in range(OBJECTS):
            changes = decoded([next(made)])
            read += len(changes)
            compiler.apply(changes)
        assert read > OBJECTS / 2, seed
        assert of_victim(compiler) == before, seed
