"""Which waypoint takes the traffic of what: `ambit.ingest.gateway.binding`, rule by rule."""

import pytest

from ambit.core.finding import ObjectRef
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.status import ObjectStatus
from ambit.model.workload import GatewayAddress
from tests.ingest.build import Given, pod, service
from tests.ingest.gateway.build import bound, gateway_class, namespace, waypoint
from tests.ingest.test_mesh import WEB, change, compiler

KEY = "default/web.default.svc.cluster.local"
HERE = GatewayAddress(15008, "default", "waypoint.default.svc.cluster.local")
INFRA = GatewayAddress(15008, "infra", "shared.infra.svc.cluster.local")
SERVICE, POD = service("web", {"app": "web"}), pod("web-1", "10.244.1.2")


def of_service(*given: Given) -> GatewayAddress | None:
    return compiler(*given).services[KEY].waypoint


def of_pod(*given: Given) -> GatewayAddress | None:
    return compiler(*given).workloads[WEB].waypoint


def condition(made: MeshCompiler, kind: str = "Service", name: str = "web") -> tuple[str, str]:
    status = made.statuses[str(ObjectRef(kind, "default", name))]
    assert isinstance(status, ObjectStatus)
    (only,) = status.conditions
    assert only.type == "istio.io/WaypointBound"
    return only.status, only.reason


def test_without_a_label_there_is_no_waypoint() -> None:
    assert of_service(SERVICE, waypoint(), namespace("default")) is None


def test_a_label_of_its_own_binds_a_service() -> None:
    made = compiler(bound(SERVICE, "waypoint"), waypoint(), POD)
    assert made.services[KEY].waypoint == HERE
    assert made.workloads[WEB].waypoint is None
    assert condition(made) == ("True", "WaypointAccepted")


def test_a_namespace_binds_its_services_not_its_pods() -> None:
    made = compiler(SERVICE, POD, waypoint(), bound(namespace("default"), "waypoint"))
    assert made.services[KEY].waypoint == HERE
    assert made.workloads[WEB].waypoint is None
    assert not made.findings


def test_the_objects_own_label_goes_before_its_namespace() -> None:
    here = bound(namespace("default"), "waypoint")
    assert of_service(bound(SERVICE, "none"), here, waypoint()) is None
    other = GatewayAddress(15008, "default", "other.default.svc.cluster.local")
    assert of_service(bound(SERVICE, "other"), here, waypoint(), waypoint("other")) == other


@pytest.mark.parametrize(
    ("takes", "service_bound", "pod_bound"),
    [("service", True, False), ("workload", False, True), ("all", True, True), ("none", False, False)],
)
def test_a_waypoint_takes_what_it_is_for(takes: str, service_bound: bool, pod_bound: bool) -> None:
    made = compiler(SERVICE, POD, waypoint(takes=takes), bound(namespace("default"), "waypoint"))
    assert made.services[KEY].waypoint == (HERE if service_bound else None)
    assert made.workloads[WEB].waypoint == (HERE if pod_bound else None)
    assert not made.findings


def test_what_it_takes_may_be_said_by_its_class() -> None:
    ours = gateway_class("mine", **{"istio.io_waypoint-for": "workload"})
    given = (POD, bound(namespace("default"), "waypoint"), ours)
    assert of_pod(*given, waypoint(of_class="mine")) == HERE
    assert of_pod(*given, waypoint(of_class="mine", takes="service")) is None


def test_a_label_of_its_own_for_what_the_waypoint_does_not_take_is_told() -> None:
    made = compiler(bound(SERVICE, "waypoint"), waypoint(takes="workload"))
    assert made.services[KEY].waypoint is None
    assert condition(made) == ("False", "UnsupportedTrafficType")
    assert [each.code for each in made.findings] == ["AMB0405"]


def test_nobody_is_sent_past_a_waypoint_that_does_not_exist() -> None:
    made = compiler(bound(SERVICE, "waypoint"), bound(POD, "waypoint"))
    assert made.services[KEY].waypoint == made.workloads[WEB].waypoint == HERE
    assert condition(made) == ("False", "WaypointMissing")
    delta = made.apply([change(waypoint())])
    assert condition(made) == ("True", "WaypointAccepted")
    assert list(delta.proxies.upserts) == ["default/waypoint"]
    assert delta.workloads.upserts[WEB].waypoint is None, "it takes what is sent to services only"
    made.apply([Change("gateways.gateway.networking.k8s.io", "default/waypoint")])
    assert condition(made) == ("False", "WaypointMissing")


def test_nobody_is_sent_past_a_gateway_that_is_not_accepted() -> None:
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    made = compiler(bound(SERVICE, "waypoint"), waypoint(listeners=(listener,)))
    assert made.services[KEY].waypoint == HERE and not made.proxies
    assert condition(made) == ("False", "WaypointMissing")


@pytest.mark.parametrize(
    ("allowed", "admitted"),
    [
        (None, False),
        ({"from": "Same"}, False),
        ({"from": "All"}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "b"}}}, False),
        (
            {"from": "Selector", "selector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}},
            True,
        ),
    ],
)
def test_a_waypoint_of_another_namespace_says_whom_it_lets_in(
    allowed: dict[str, object] | None, admitted: bool
) -> None:
    made = compiler(
        bound(SERVICE, "shared", "infra"),
        namespace("default", team="a"),
        waypoint("shared", namespace="infra", allowed=allowed),
    )
    address = made.services[KEY].waypoint
    if admitted:
        assert address == INFRA and condition(made) == ("True", "WaypointAccepted")
    else:
        assert address == GatewayAddress(15008, "infra", "shared.infra.not-allowed.invalid")
        assert condition(made) == ("False", "AttachmentDenied")


def test_a_namespace_that_gets_the_label_is_let_in() -> None:
    selector = {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}
    shared = waypoint("shared", namespace="infra", allowed=selector)
    made = compiler(bound(SERVICE, "shared", "infra"), namespace("default"), shared)
    assert condition(made) == ("False", "AttachmentDenied")
    made.apply([change(namespace("default", team="a"))])
    assert made.services[KEY].waypoint == INFRA


def test_what_belongs_to_a_waypoint_has_none() -> None:
    resource, body = service("waypoint", {"app": "x"})
    body["metadata"]["labels"] = {"gateway.istio.io/managed": "istio.io-mesh-controller"}
    made = compiler((resource, body), waypoint(takes="all"), bound(namespace("default"), "waypoint"))
    assert made.services["default/waypoint.default.svc.cluster.local"].waypoint is None


def test_a_namespaces_other_labels_wake_no_pod() -> None:
    made = compiler(SERVICE, POD, waypoint(takes="all"), bound(namespace("default"), "waypoint"))
    before = {each.name: each.recomputations for each in made.statistics()}
    made.apply([change(bound(namespace("default", other="label"), "waypoint"))])
    after = {each.name: each.recomputations for each in made.statistics()}
    assert after["pod workloads"] == before["pod workloads"]
