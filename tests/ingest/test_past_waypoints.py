"""Gateways that call services past their waypoints are told, unless it is written."""

from typing import Any

import pytest

from ambit.core.finding import Level
from ambit.ingest.mesh import MeshCompiler
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import bound, edge, listener, namespace, parent, route, to, to_edge, waypoint
from tests.ingest.test_mesh import change, compiler

LABEL = "istio.io/ingress-use-waypoint"
PORTS = {"name": "http", "port": 80, "appProtocol": "http"}
BOUND = bound(service("web", {"app": "web"}, ports=[PORTS]), "waypoint")
RULE = {"backendRefs": [to("web"), to("web")]}


def labelled(value: str) -> Given:
    resource, body = BOUND
    labels = {**body["metadata"]["labels"], LABEL: value}
    return resource, {**body, "metadata": {**body["metadata"], "labels": labels}}


def told(made: MeshCompiler) -> list[tuple[str, Level, str]]:
    return [(each.code, each.level, str(each.origin)) for each in made.findings]


def test_a_gateway_that_goes_past_a_waypoint_is_told_once_for_a_route() -> None:
    made = compiler(BOUND, waypoint(), edge(), to_edge(RULE, RULE))
    assert told(made) == [("AMB0409", Level.WARNING, "HTTPRoute default/route")]
    (finding,) = made.findings
    assert (
        "gateway default/edge calls default/web.default.svc.cluster.local past its waypoint default/waypoint"
        in (finding.text)
    )
    assert f"{LABEL}=true" in finding.text
    made.apply([change(labelled("true"))])
    assert told(made) == []


@pytest.mark.parametrize(
    "given",
    [
        [labelled("true"), waypoint(), edge(), to_edge(RULE)],
        [labelled("false"), waypoint(), edge(), to_edge(RULE)],
        [BOUND, namespace("default", **{LABEL: "true"}), waypoint(), edge(), to_edge(RULE)],
        [service("web", {"app": "web"}), waypoint(), edge(), to_edge(RULE)],
        [BOUND, waypoint(of_class="ambit-inline"), edge(), to_edge(RULE)],
        [BOUND, waypoint(), edge(), route(RULE, parents=(parent("web"),))],
    ],
    ids=["through it", "meant", "by namespace", "no waypoint", "inline", "no gateway"],
)
def test_nothing_to_tell(given: list[Any]) -> None:
    assert told(compiler(*given)) == []


def test_connections_go_past_it_as_well() -> None:
    tcp = to_edge({"backendRefs": [to("web")]}, kind="tcproutes")
    made = compiler(BOUND, waypoint(), edge(listener("tcp", 80, "TCP")), tcp)
    assert told(made) == [("AMB0409", Level.WARNING, "TCPRoute default/route")]


def test_a_gateway_is_not_told_to_go_to_itself_through_a_waypoint() -> None:
    """A namespace's label binds the Services in front of gateways as well."""
    labels = {"gateway.networking.k8s.io/gateway-name": "edge"}
    own = service("edge-ambit", labels, ports=[PORTS])
    rule = {"backendRefs": [to("edge-ambit")]}
    all_bound = namespace("default", **{"istio.io/use-waypoint": "waypoint"})
    made = compiler(all_bound, waypoint(), edge(), edge(name="other"), own, to_edge(rule))
    assert told(made) == []
    made.apply([change(to_edge(rule, parents=({}, {"name": "other"})))])
    (finding,) = made.findings
    assert finding.code == "AMB0409"
    assert "gateway default/other calls default/edge-ambit.default.svc" in finding.text
