"""What a gateway tells of requests."""

import pytest

from ambit.agent import request_metrics as metrics
from ambit.agent.record import Flow, Reporter
from ambit.model.metrics import MetricsNote, Override
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import to, to_edge
from tests.plan.dataplane.served import until
from tests.plan.gateway.conftest import IDENTITY, TARGET, Edge

pytestmark = [pytest.mark.envoy, pytest.mark.netns]


def told(edge: Edge, path: str) -> Flow:
    found: list[Flow] = []

    def came() -> bool:
        with edge.lock:
            records = list(edge.requests.newest())
        found[:] = [each for each in records if each.request is not None and each.request.path == path]
        return bool(found)

    until(came, f"record of {path}")
    (one,) = found
    return one


def test_a_request_and_what_it_is_counted_under(edge: Edge) -> None:
    edge.apply(gateway(), to_edge({"backendRefs": [to("one")]}))
    edge.get("shop.example.com", "/told?x=y", x_forwarded_for="192.0.2.7")
    flow = told(edge, "/told")
    assert (flow.reporter, flow.hop, flow.proxy) == (Reporter.GATEWAY, "direct", "default/edge")
    assert flow.source.address.rpartition(":")[0] == str(edge.client.four)
    assert flow.source.identity == ""
    assert flow.destination.service == "default/one.default.svc.cluster.local"
    assert flow.destination.address == f"{edge.servers['one'].four}:{TARGET}"
    assert flow.request is not None
    assert (flow.request.host, flow.request.code) == ("shop.example.com", 200)
    with edge.lock:
        lines = "".join(metrics.render(edge.requests.series)).splitlines()
    counted = [
        each
        for each in lines
        if each.startswith("istio_requests_total{")
        and 'destination_service_name="one"' in each
        and 'response_code="200"' in each
    ]
    assert counted
    assert all('reporter="source",source_workload="edge"' in each for each in counted)
    assert all(f'source_principal="{IDENTITY.uri}"' in each for each in counted)


def test_what_a_client_says_is_a_label_where_a_telemetry_wants_it(edge: Edge) -> None:
    labels = {"team": {"value": "request.headers['x-team']"}}
    telemetry = (
        "telemetries.telemetry.istio.io",
        {
            "metadata": {"name": "labels", "namespace": "default"},
            "spec": {"metrics": [{"overrides": [{"tagOverrides": labels}]}]},
        },
    )
    edge.apply(gateway(), to_edge({"backendRefs": [to("one")]}), telemetry)
    edge.get("shop.example.com", "/labelled", x_team="red")
    flow = told(edge, "/labelled")
    assert flow.request is not None and flow.request.host == "shop.example.com"
    note = MetricsNote({"istio_requests": Override(expressions=(("team", labels["team"]["value"]),))})
    with edge.lock:
        lines = "".join(metrics.render(edge.requests.series, note)).splitlines()
    assert [each for each in lines if 'team="red"' in each and each.endswith(" 1")]


def test_what_no_route_takes(edge: Edge) -> None:
    edge.apply(gateway())
    edge.get("shop.example.com", "/nowhere")
    flow = told(edge, "/nowhere")
    assert (flow.hop, flow.error, flow.destination.service) == ("answered", "no route found", "")
    assert flow.destination.address == "listener:80"


def test_who_asks_by_way_of_trusted_proxies_is_who_they_say(edge: Edge) -> None:
    """Who comes past them says nothing."""
    config = "gatewayTopology: {numTrustedProxies: 2}"
    behind = {"infrastructure": {"annotations": {"proxy.istio.io/config": config}}}
    edge.apply(gateway(**behind), to_edge({"backendRefs": [to("one")]}))
    edge.get("shop.example.com", "/led", x_forwarded_for="192.0.2.1, 203.0.113.9, 198.51.100.1")
    edge.get("shop.example.com", "/past", x_forwarded_for="203.0.113.9")
    sources = [told(edge, path).source.address.rpartition(":")[0] for path in ("/led", "/past")]
    assert sources == ["203.0.113.9", str(edge.client.four)]
