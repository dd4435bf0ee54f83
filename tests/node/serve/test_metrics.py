"""The text of metrics that have no object of their own."""

from ambit.node.enrol.names import Asked, Question
from ambit.node.netns.counters import Count
from ambit.node.serve import metrics
from ambit.node.serve.udp import Udp
from tests.node.flows.test_flows import CLIENT, SERVER, local


def test_dns_questions_and_what_became_of_them() -> None:
    asked = Asked(requests=5)
    for seconds, answered in ((0.0004, True), (0.05, True), (9.0, False)):
        asked.took(seconds, answered)
    labels = (
        'request_query_type="A",request_protocol="udp",'
        'source_canonical_service="web",source_canonical_revision="unknown"'
    )
    found = list(metrics.dns({Question("A", "udp", "web", ""): asked}))
    assert f"istio_dns_requests_total{{{labels}}} 5" in found
    assert f"istio_dns_upstream_requests_total{{{labels}}} 3" in found
    assert f"istio_dns_upstream_failures_total{{{labels}}} 1" in found
    name = "istio_dns_upstream_request_duration_seconds"
    buckets = [line.rpartition(" ") for line in found if line.startswith(f"{name}_bucket")]
    assert [(line.split('le="')[1], count) for line, _, count in buckets] == [
        (f'{most}"}}', count)
        for most, count in (
            ("0.0005", "1"),
            ("0.001", "1"),
            ("0.01", "1"),
            ("0.1", "2"),
            ("1.0", "2"),
            ("5.0", "2"),
            ("+Inf", "3"),
        )
    ]
    assert f"{name}_sum{{{labels}}} 9.050400" in found
    assert f"{name}_count{{{labels}}} 3" in found


def test_udp_of_a_pod_whose_namespace_is_going_is_left_out() -> None:
    found = list(
        metrics.udp([local(CLIENT), local(SERVER)], {local(SERVER).key: Udp(Count(1, 40), Count(2, 90))})
    )
    shown = [line for line in found if not line.startswith("#")]
    assert shown == [
        'ambit_udp_packets_total{direction="sent",pod_namespace="default",pod_name="server"} 1',
        'ambit_udp_packets_total{direction="received",pod_namespace="default",pod_name="server"} 2',
        'ambit_udp_bytes_total{direction="sent",pod_namespace="default",pod_name="server"} 40',
        'ambit_udp_bytes_total{direction="received",pod_namespace="default",pod_name="server"} 90',
    ]
