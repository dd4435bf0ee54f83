"""What a gateway calls when a service has a waypoint: the service, or its waypoint when it is asked for."""

import json
from typing import Any

import pytest

from ambit.envoy import names
from ambit.ingest.mesh import MeshCompiler
from ambit.model.view import Snapshot
from ambit.plan.l7 import gateway
from ambit.plan.values import CLUSTER, ENDPOINTS, NodeSettings
from tests.ingest.build import Given, pod, service
from tests.ingest.gateway.build import bound, edge, namespace, to, to_edge, waypoint
from tests.ingest.test_mesh import change, compiler
from tests.plan.as_text import content_of

LABEL = "istio.io/ingress-use-waypoint"
WEB = service("web", {"app": "web"}, ip="10.96.0.9")
SERVICE_OF_WAYPOINT = service("waypoint", {"app": "waypoint"}, ip="10.96.0.10", port=15008, target=15008)
POD_OF_WAYPOINT = pod(
    "wp", "10.244.1.3", labels={"app": "waypoint"}, redirected=False, serviceAccountName="waypoint"
)


def labelled(given: Given, value: str) -> Given:
    resource, body = given
    labels = {**body["metadata"].get("labels", {}), LABEL: value}
    return resource, {**body, "metadata": {**body["metadata"], "labels": labels}}


def made(*more: Given, web: Given = WEB) -> MeshCompiler:
    return compiler(
        bound(web, "waypoint"),
        pod("web", "10.244.1.2", labels={"app": "web"}),
        waypoint(),
        SERVICE_OF_WAYPOINT,
        POD_OF_WAYPOINT,
        edge(),
        to_edge({"backendRefs": [to("web")]}),
        *more,
    )


def called(mesh: MeshCompiler) -> tuple[list[str], set[str]]:
    """Where tunnels go (pod, then what for), and the identities that clusters of tunnels are for."""
    proxy = mesh.proxies["default/edge"]
    attached = gateway.Attached({each.listener: each for each in mesh.listener_routes.values()})
    view = Snapshot(mesh.workloads.values(), mesh.services.values())
    resources = gateway.resources(proxy, attached, view, NodeSettings(node=""))
    name = names.service_cluster("default/web.default.svc.cluster.local", 80)
    (endpoints,) = [each for each in resources if (each.type_url, each.name) == (ENDPOINTS, name)]
    text = json.dumps(content_of(endpoints))
    found = [
        each
        for each in ("10.244.1.2:8080", "10.244.1.3", "web.default.svc.cluster.local:80")
        if f'"{each}' in text
    ]
    tunnels = {each.name for each in resources if each.type_url == CLUSTER and "hbone|" in each.name}
    assert gateway.depends_on(proxy, attached, view) >= {"default/web.default.svc.cluster.local"}
    return found, tunnels


DIRECTLY = (["10.244.1.2:8080"], {"hbone|spiffe://cluster.local/ns/default/sa/default"})
THROUGH = (
    ["10.244.1.3", "web.default.svc.cluster.local:80"],
    {"hbone|spiffe://cluster.local/ns/default/sa/waypoint"},
)


@pytest.mark.parametrize(
    ("own", "of_namespace", "expected"),
    [
        ("", "", DIRECTLY),
        ("true", "", THROUGH),
        ("false", "", DIRECTLY),
        ("", "true", THROUGH),
        ("false", "true", DIRECTLY),
    ],
)
def test_a_gateway_goes_through_a_waypoint_when_a_label_says_so(
    own: str, of_namespace: str, expected: tuple[Any, ...]
) -> None:
    labels = {LABEL: of_namespace} if of_namespace else {}
    web = labelled(WEB, own) if own else WEB
    assert called(made(namespace("default", **labels), web=web)) == expected


def test_a_waypoint_that_is_not_there_is_not_gone_past() -> None:
    mesh = made(web=labelled(WEB, "true"))
    mesh.apply([change(pod("wp", "10.244.1.3", labels={"app": "waypoint"}, redirected=False, ready=False))])
    assert called(mesh) == ([], set())


def test_the_gateways_plan_depends_on_the_waypoint() -> None:
    mesh = made(web=labelled(WEB, "true"))
    attached = gateway.Attached({each.listener: each for each in mesh.listener_routes.values()})
    view = Snapshot(mesh.workloads.values(), mesh.services.values())
    found = gateway.depends_on(mesh.proxies["default/edge"], attached, view)
    assert "default/waypoint.default.svc.cluster.local" in found


def test_nothing_of_another_network_is_called_nor_what_has_its_waypoint_there() -> None:
    def elsewhere(given: Given) -> Given:
        resource, body = given
        labels = {**body["metadata"]["labels"], "topology.istio.io/network": "other"}
        return resource, {**body, "metadata": {**body["metadata"], "labels": labels}}

    assert called(made(elsewhere(POD_OF_WAYPOINT), web=labelled(WEB, "true"))) == ([], set())
    web = pod("web", "10.244.1.2", labels={"app": "web"})
    assert called(made(elsewhere(web))) == ([], set())
