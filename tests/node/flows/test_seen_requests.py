"""Requests that are read on a node are counted by who saw them, as the Telemetry of their service says."""

import msgspec

from ambit.core.finding import ObjectRef
from ambit.envoy import names
from ambit.envoy.logs.access_log import BAGGAGE, SERVICE
from ambit.model.metrics import MetricsRule
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.telemetry import InlineTelemetry, Level, TelemetryPolicy
from ambit.model.view import Snapshot
from ambit.node.flows.collector import Collector
from ambit.plan.values import LocalPods, NodeSettings
from tests.node.flows.envoy_lines import message
from tests.node.flows.test_requests import POD, SERVER
from tests.proxy.flows.test_requests import text

A = Service("a", "default", "a.default.svc.cluster.local", canonical=True, inline=())
GATEWAY = Proxy(
    "default/way", ProxyKind.INLINE, SERVER.identity, "way", ObjectRef("Gateway", "default", "way")
)


def counted(service: Service, *texts: str) -> list[str]:
    """What is said of requests and of their duration, without their labels' values."""
    collector = Collector(Snapshot([SERVER], [service]), lambda: LocalPods([POD]), NodeSettings(node="n"))
    collector.take(message(*texts))
    assert collector.requests is not None
    lines = "\n".join(collector.requests.render()).splitlines()
    return [each for each in lines if each.startswith(("istio_requests_total", "istio_request_duration"))]


def test_they_are_counted_as_the_destinations() -> None:
    subject = names.at_pod(POD.key, A.key)
    lines = counted(A, text(**{SERVICE: subject}), text(**{SERVICE: subject}), text(**{SERVICE: "other"}))
    (total,) = (each for each in lines if each.startswith("istio_requests_total"))
    assert total.endswith(" 2")
    for label in (
        'reporter="destination"',
        'destination_service="a.default.svc.cluster.local"',
        'destination_workload="server"',
        'source_principal="spiffe://cluster.local/ns/shop/sa/web"',
        'response_code="200"',
        'request_protocol="http"',
        'connection_security_policy="mutual_tls"',
    ):
        assert label in total


def test_telemetry_of_the_service_changes_them() -> None:
    rules = (
        MetricsRule(("istio_request_duration_milliseconds",), disabled=True),
        MetricsRule(("istio_requests",), labels=(("response_flags", None), ("team", "red"))),
    )
    policy = TelemetryPolicy("default/t", Level.NAMESPACE, namespace="default", metrics=rules)
    told = msgspec.structs.replace(A, telemetry=InlineTelemetry(GATEWAY, (policy,)))
    (total,) = counted(told, text(**{SERVICE: names.at_pod(POD.key, A.key)}))
    assert 'team="red"' in total and "response_flags" not in total


def test_what_a_peer_says_at_length_is_counted_and_not_remembered() -> None:
    subject = names.at_pod(POD.key, A.key)
    collector = Collector(Snapshot([SERVER], [A]), lambda: LocalPods([POD]), NodeSettings(node="n"))
    collector.take(message(text(**{SERVICE: subject}), text(**{SERVICE: subject, BAGGAGE: "x" * 50_000})))
    assert collector.requests is not None
    assert len(list(collector.newest())) == 2 and len(collector.requests._lanes) == 1
