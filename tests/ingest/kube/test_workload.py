"""Pods as workloads: what each label, owner and condition becomes."""

import json
from typing import Any

import pytest

from ambit.ingest.kube.workload import canonical_name, canonical_revision, locality, owner, workload
from ambit.ingest.settings import MeshSettings
from ambit.model.workload import Locality, NetworkMode, TunnelProtocol, Workload, WorkloadType
from ambit.objects.kube import Pod
from ambit.objects.meta import ObjectMeta, OwnerReference
from tests.ingest import build
from tests.ingest.test_mesh import change


def made(where: Locality | None = None, **given: Any) -> Workload:
    _, body = build.pod("web-1", "10.0.0.1", **given)
    pod: Pod = change(("pods", json.loads(json.dumps(body)))).value
    settings = MeshSettings(trust_domain="td", cluster_id="c1", network="n1")
    return workload(pod, pod.addresses, [], where, (), None, settings)


@pytest.mark.parametrize(
    ("kind", "name", "labels", "expected"),
    [
        ("ReplicaSet", "web-abc", {"pod-template-hash": "abc"}, ("web", WorkloadType.DEPLOYMENT)),
        ("ReplicaSet", "web-abc", {}, ("web-abc", WorkloadType.POD)),
        ("ReplicaSet", "web-abc", {"pod-template-hash": "x"}, ("web-abc", WorkloadType.POD)),
        ("Job", "backup-29012345", {}, ("backup", WorkloadType.CRONJOB)),
        ("Job", "backup-1", {}, ("backup-1", WorkloadType.JOB)),
        ("StatefulSet", "db", {}, ("db", WorkloadType.POD)),
    ],
)
def test_owner(kind: str, name: str, labels: dict[str, str], expected: tuple[str, WorkloadType]) -> None:
    other = OwnerReference("Node", "n", False)
    meta = ObjectMeta("p", "ns", labels=labels, owner_references=(other, OwnerReference(kind, name, True)))
    assert owner(meta) == expected
    assert owner(ObjectMeta("p", "ns", owner_references=(other,))) == ("p", WorkloadType.POD)


def test_canonical_service_and_revision() -> None:
    labels = {"service.istio.io/canonical-name": "a", "app.kubernetes.io/name": "b", "app": "c"}
    revisions = {"service.istio.io/canonical-revision": "1", "app.kubernetes.io/version": "2", "version": "3"}
    for key in list(labels):
        assert canonical_name(labels, "w") == labels.pop(key)
    for key in list(revisions):
        assert canonical_revision(revisions) == revisions.pop(key)
    assert (canonical_name({}, "w"), canonical_revision({})) == ("w", "latest")


def test_identity_and_settings() -> None:
    web = made(serviceAccountName="shop")
    assert (web.identity.uri, web.uid, web.network) == (
        "spiffe://td/ns/default/sa/shop",
        "c1//Pod/default/web-1",
        "n1",
    )
    assert made(labels={"topology.istio.io/network": "n2"}).network == "n2"


def test_tunnel() -> None:
    assert made().tunnel is TunnelProtocol.HBONE
    assert made(redirected=False).tunnel is TunnelProtocol.NONE
    native = made(redirected=False, labels={"networking.istio.io/tunnel": "http"})
    assert native.tunnel is TunnelProtocol.HBONE and native.native_tunnel
    host = made(hostNetwork=True)
    assert host.tunnel is TunnelProtocol.NONE and host.network_mode is NetworkMode.HOST_NETWORK


def test_locality_of_a_node() -> None:
    resource, body = build.node("n", "r", "z")
    body["metadata"]["labels"]["topology.istio.io/subzone"] = "s"
    assert locality(change((resource, body)).value) == Locality("r", "z", "s")
    assert locality(change(build.node("n")).value) is None


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, Locality("r", "z", "s")),
        ({"istio-locality": "east"}, Locality("east")),
        ({"topology.istio.io/locality": "", "istio-locality": "east.one"}, Locality("east", "one")),
        (
            {"topology.istio.io/locality": "west.two.rack.more", "istio-locality": "east.one"},
            Locality("west", "two", "rack"),
        ),
    ],
)
def test_a_pods_label_goes_before_its_nodes(labels: dict[str, str], expected: Locality) -> None:
    assert made(Locality("r", "z", "s"), labels=labels).locality == expected


def test_named_ports_of_running_init_containers_count_after_ordinary_ones() -> None:
    from tests.ingest.test_mesh import WEB, compiler

    sidecar = {"name": "s", "restartPolicy": "Always", "ports": [{"name": "admin", "containerPort": 1}]}
    once = {"name": "i", "ports": [{"name": "early", "containerPort": 2}]}
    both = {"name": "d", "restartPolicy": "Always", "ports": [{"name": "http", "containerPort": 3}]}
    pod = build.pod("web-1", "10.0.0.1", ports={"http": 80}, initContainers=[sidecar, once, both])
    made = compiler(
        pod,
        *(build.service(name, {"app": "web"}, target=name) for name in ("admin", "early", "http")),
    )
    found = {key.split("/")[1].split(".")[0]: ports for key, ports in made.workloads[WEB].services.items()}
    assert [port.target for port in found["admin"]] == [1]
    assert found["early"] == ()
    assert [port.target for port in found["http"]] == [80]
