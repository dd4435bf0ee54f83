"""Which endpoints of a service are used, by where they are: preferences fall back, restrictions do not."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.places import nodes_in_places
from tests.mesh.pods import apply_in, make_namespace, pod
from tests.mesh.test_external import ASK, SERVER

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

TIMES = 16
"""So often each service is asked: one that prefers nothing has one of two answers once in 30,000 times."""
DISTRIBUTION = "networking.istio.io/traffic-distribution"
LOCALITY = "topology.istio.io/locality"


@pytest.fixture
def town(mesh: Mesh) -> Iterator[str]:
    with make_namespace(mesh) as name:
        yield name


def server(name: str, node: str, **labels: str) -> dict[str, Any]:
    probe = {"tcpSocket": {"port": 8081}, "periodSeconds": 1}
    labels = {"app": "web", **labels}
    return pod(name, node, ["python3", "-uc", SERVER], labels=labels, readinessProbe=probe)


def service(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec},
    }


def entry(host: str) -> dict[str, Any]:
    port = {"number": 80, "name": "tcp", "protocol": "TCP", "targetPort": 8080}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "entry"},
        "spec": {
            "hosts": [host],
            "ports": [port],
            "resolution": "STATIC",
            "workloadSelector": {"labels": {"app": "web"}},
        },
    }


def until_answered(mesh: Mesh, namespace: str, expected: dict[str, set[str]]) -> None:
    """Until each service is answered by these pods, all of them and nobody else; by none where there is no pod."""
    places = [f"{name}:80" for name in expected]

    def answered() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {name: set() for name in expected}
        output = mesh.exec(namespace, "client", "python3", "-c", ASK, str(TIMES), *places).stdout
        for place, answer in json.loads(output):
            found[place.partition(":")[0]].add(answer.partition(":")[0] if " " in answer else "nobody")
        return found

    mesh.wait(f"services are {expected}", lambda: answered() == expected)


@pytest.mark.feature("F52")
def test_endpoints_nearby_are_preferred_and_others_used_without_them(mesh: Mesh, town: str) -> None:
    here, there = mesh.nodes[:2]
    near, far = server("near", here), server("far", there)
    services = [
        service("any"),
        service("zone", trafficDistribution="PreferClose"),
        service("node", {DISTRIBUTION: "PreferSameNode"}),
        service("only", internalTrafficPolicy="Local"),
    ]
    with nodes_in_places(mesh):
        apply_in(mesh, town, [near, far, pod("client", here, ["sleep", "3600"]), *services])
        close = {"any": {"near", "far"}, "zone": {"near"}, "node": {"near"}, "only": {"near"}}
        until_answered(mesh, town, close)
        mesh.kubectl("delete", "pod", "near", "-n", town)
        until_answered(mesh, town, {"any": {"far"}, "zone": {"far"}, "node": {"far"}, "only": {"nobody"}})
        apply_in(mesh, town, [near])
        until_answered(mesh, town, close)


@pytest.mark.feature("F52", "N16")
def test_a_label_says_where_a_pod_is(mesh: Mesh, town: str) -> None:
    """The wider circle counts while nobody is in the nearer one; a label that changes counts at once."""
    here, there = mesh.nodes[:2]
    servers = [
        server("a", there, **{LOCALITY: "north.one"}),
        server("b", here, **{LOCALITY: "north.two"}),
        server("c", here, **{LOCALITY: "south.one", "istio-locality": "north.one"}),
    ]
    client = pod("client", here, ["sleep", "3600"], labels={LOCALITY: "north.one.rack"})
    apply_in(mesh, town, [*servers, client, service("web", trafficDistribution="PreferClose")])
    until_answered(mesh, town, {"web": {"a"}})
    for place, expected in {
        "north.two": {"b"},
        "south.one": {"c"},
        "north.three": {"a", "b"},
        "west.one": {"a", "b", "c"},
    }.items():
        mesh.kubectl("label", "pod", "client", "-n", town, "--overwrite", f"{LOCALITY}={place}")
        until_answered(mesh, town, {"web": expected})
    mesh.kubectl(
        "label", "pod", "client", "-n", town, "--overwrite", f"{LOCALITY}=", "istio-locality=north.two"
    )
    until_answered(mesh, town, {"web": {"b"}})


@pytest.mark.feature("N25")
def test_services_of_a_namespace_prefer_what_its_annotation_says_unless_they_say_it_themselves(
    mesh: Mesh, town: str
) -> None:
    here, there = mesh.nodes[:2]
    apply_in(
        mesh,
        town,
        [
            *(server(name, here, **{LOCALITY: f"north.{name}"}) for name in ("a", "b")),
            server("c", there, **{LOCALITY: "south.c"}),
            pod("client", here, ["sleep", "3600"], labels={LOCALITY: "north.a"}),
            service("silent"),
            service("own", {DISTRIBUTION: "PreferSameRegion"}),
            service("field", trafficDistribution="PreferSameNode"),
            entry("entry.test"),
        ],
    )
    every = {"a", "b", "c"}
    said = {"own": {"a", "b"}, "field": {"a"}}
    until_answered(mesh, town, {"silent": every, "entry.test": every, **said})
    mesh.kubectl("annotate", "namespace", town, f"{DISTRIBUTION}=PreferSameZone")
    until_answered(mesh, town, {"silent": {"a"}, "entry.test": {"a"}, **said})
    mesh.kubectl("annotate", "namespace", town, f"{DISTRIBUTION}-")
    until_answered(mesh, town, {"silent": every, "entry.test": every, **said})
