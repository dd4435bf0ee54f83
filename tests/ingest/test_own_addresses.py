"""Which addresses are the cluster's own, as far as names of hosts outside could lead there."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.service import ServerNames
from tests.ingest import build
from tests.ingest.istio.test_service_entry import entry
from tests.ingest.test_mesh import change

PUBLIC, RANGED, PRIVATE = "93.184.216.34", "10.20.1.1", "10.21.1.1"


def node(*addresses: str) -> Change:
    kinds = [{"type": "ExternalIP", "address": each} for each in addresses]
    return change(("nodes", {"metadata": {"name": "node1"}, "status": {"addresses": kinds}}))


def service(**said: Any) -> Change:
    resource, given = build.service("web", {"app": "web"}, type="LoadBalancer")
    return change((resource, {**given, "spec": given["spec"] | said.pop("spec", {}), **said}))


def part(namespace: str, name: str) -> Change:
    labels = {"kubernetes.io/service-name": name}
    given = {
        "metadata": {"name": f"{name}-1", "namespace": namespace, "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [PUBLIC]}],
    }
    return change(("endpointslices.discovery.k8s.io", given))


def own(*changes: Change) -> tuple[str, ...]:
    ports = [{"number": 443, "name": "tls"}]
    compiler = MeshCompiler(MeshSettings(server_names=ServerNames(("10.20.0.0/16",))))
    compiler.apply([entry("a", "*.x.test", resolution="DYNAMIC_DNS", ports=ports)])
    compiler.apply(changes)
    names = compiler.services["default/*.x.test"].server_names
    assert names is not None and names.ranges == ("10.20.0.0/16",)
    return names.own


@pytest.mark.parametrize(
    "given",
    [
        node(PUBLIC),
        service(status={"loadBalancer": {"ingress": [{"ip": PUBLIC}, {"hostname": "a.test"}]}}),
        service(spec={"externalIPs": [PUBLIC]}),
        service(spec={"clusterIP": PUBLIC, "clusterIPs": [PUBLIC]}),
        part("default", "kubernetes"),
        change(build.pod("web", PUBLIC)),
    ],
)
def test_they_are_those_of_what_is_in_the_cluster(given: Change) -> None:
    assert own(given) == (PUBLIC,)


def test_only_those_that_could_be_reached_are_told() -> None:
    assert own(node(RANGED, PRIVATE, PUBLIC, "node1", "fd00::1")) == (RANGED, PUBLIC)


def test_nobody_takes_addresses_from_others_by_naming_them() -> None:
    assert own(part("shop", "kubernetes"), part("default", "web")) == ()


def test_they_are_forgotten() -> None:
    assert own(node(PUBLIC), Change("nodes", "node1")) == ()
    assert own(change(build.pod("web", PUBLIC)), change(build.pod("web", PUBLIC, phase="Failed"))) == ()
