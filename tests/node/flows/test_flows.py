"""From Envoy's access-log messages to records, lines and counters."""

import asyncio
import ipaddress

import msgspec
import pytest
from envoy.data.accesslog.v3 import accesslog_pb2 as log
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage

from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.envoy.access_log import CLOSED, RESET
from ambit.model.policy import Action, Authorization, Clause, Match, Presence, Rule, Scope
from ambit.model.service import Service
from ambit.model.view import Snapshot
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.node.flows import metrics
from ambit.node.flows.access_line import access_line
from ambit.node.flows.collector import Collector
from ambit.node.flows.entry import Entry, decode
from ambit.node.flows.record import Flow, Reporter, flow
from ambit.plan.values import LocalPod, LocalPods, NodeSettings

SETTINGS = NodeSettings(node="node1")


def workload(name: str, address: str, tunnel: TunnelProtocol = TunnelProtocol.HBONE) -> Workload:
    return Workload(
        uid=f"Kubernetes//Pod/default/{name}",
        name=name,
        namespace="default",
        identity=Identity("cluster.local", "default", name),
        addresses=(ipaddress.ip_address(address),),
        tunnel=tunnel,
        canonical_name=name,
        canonical_revision="v1",
        workload_name=f"{name}-deployment",
        cluster_id="Kubernetes",
    )


CLIENT, SERVER = workload("client", "10.0.0.1"), workload("server", "10.0.0.2")
PLAIN = workload("plain", "10.0.0.3", TunnelProtocol.NONE)
STRICT = Authorization(
    "strict",
    "default",
    Scope.NAMESPACE,
    Action.DENY,
    (Rule((Clause((Match(not_principals=(Presence(),)),)),)),),
)


def local(value: Workload) -> LocalPod:
    return LocalPod(
        f"uid-{value.name}",
        value.namespace,
        value.name,
        f"s-{value.name}",
        value.identity,
        value.addresses,
        f"/run/netns/{value.name}",
    )


def address(text: str) -> dict[str, object]:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def tcp(
    client: str,
    destination: str,
    tags: dict[str, str],
    *,
    received: int = 0,
    sent: int = 0,
    kind: int = log.TcpConnectionEnd,
    failure: str = "",
    **flags: bool,
) -> bytes:
    common = log.AccessLogCommon(
        downstream_remote_address=address(client),
        downstream_local_address=address(destination),
        start_time={"seconds": 1_800_000_000},
        duration={"nanos": 12_000_000},
        custom_tags=tags,
        access_log_type=kind,
        upstream_transport_failure_reason=failure,
        response_flags=flags,
    )
    entry = log.TCPAccessLogEntry(
        common_properties=common,
        connection_properties={"received_bytes": received, "sent_bytes": sent},
    )
    return StreamAccessLogsMessage(tcp_logs={"log_entry": [entry]}).SerializeToString()


def http(
    client: str, authority: str, identity: str, status: int, policy: str, *, received: int = 0, sent: int = 0
) -> bytes:
    common = log.AccessLogCommon(
        downstream_direct_remote_address=address(client),
        tls_properties={"peer_certificate_properties": {"subject_alt_name": [{"uri": identity}]}},
        start_time={"seconds": 1_800_000_000},
        duration={"nanos": 12_000_000},
        custom_tags={"pod": local(SERVER).key},
        access_log_type=log.DownstreamEnd,
    )
    common.metadata.filter_metadata["envoy.filters.http.rbac"].update(
        {
            "enforced_effective_policy_id": policy,
            "enforced_engine_result": "denied" if status == 401 else "allowed",
        }
    )
    entry = log.HTTPAccessLogEntry(
        common_properties=common,
        request={"authority": authority, "request_body_bytes": received},
        response={"response_code": {"value": status}, "response_body_bytes": sent},
    )
    return StreamAccessLogsMessage(http_logs={"log_entry": [entry]}).SerializeToString()


class Node:
    def __init__(self, *policies: Authorization) -> None:
        service = Service("web", "default", "web.default.svc.cluster.local")
        self.lines: list[Flow] = []
        self.cut: list[Entry] = []
        self.collector = Collector(
            Snapshot([CLIENT, SERVER, PLAIN], [service], policies),
            lambda: LocalPods([local(CLIENT), local(SERVER)]),
            SETTINGS,
            self.lines.append,
            self.cut.append,
        )

    def count(self, counter: int, **labels: str) -> int:
        total = 0
        for values, counts in self.collector.counters._series.items():
            found = dict(zip(metrics.LABELS, values, strict=True))
            if all(found[name] == value for name, value in labels.items()):
                total += counts[counter]
        return total


TUNNEL = {
    "pod": local(CLIENT).key,
    "service": "default/web.default.svc.cluster.local",
    "host.workload": SERVER.uid,
    "host.identity": SERVER.identity.uri,
    "host.route": "tunnel",
    "host.target": "10.0.0.2:8080",
}


def test_a_tunnelled_connection_names_both_ends() -> None:
    node = Node()
    node.collector.take(names.LOG_OUTBOUND, tcp("10.0.0.1:1", "10.96.0.1:80", TUNNEL, received=5, sent=7))
    (flow,) = node.lines
    assert flow.reporter is Reporter.SOURCE
    assert flow.mutual_tls
    assert flow.source.identity == CLIENT.identity.uri
    assert flow.destination.workload == "server"
    assert flow.destination.service == "default/web.default.svc.cluster.local"
    labels = {
        "reporter": "source",
        "source_workload": "client-deployment",
        "destination_workload": "server-deployment",
        "destination_service_name": "web",
        "connection_security_policy": "mutual_tls",
        "response_flags": "-",
    }
    assert node.count(metrics.OPENED, **labels) == node.count(metrics.CLOSED, **labels) == 1
    assert node.count(metrics.RECEIVED, **labels) == 5
    assert node.count(metrics.SENT, **labels) == 7
    line = access_line(flow)
    assert line.split("\t")[1:4] == ["info", "access", "connection complete"]
    assert "src.addr=10.0.0.1:1" in line
    assert "dst.addr=10.0.0.2:8080" in line
    assert 'dst.service="web.default.svc.cluster.local"' in line
    assert "bytes_sent=5 bytes_recv=7" in line
    assert 'duration="12ms"' in line


@pytest.mark.parametrize(
    ("services", "port", "expected"),
    [
        ({}, 8080, ""),
        ({"default/web": (Port(80, 8080),)}, 9999, "default/web"),
        ({"default/a": (Port(80, 1),), "default/web": (Port(80, 8080),)}, 8080, "default/web"),
        ({"default/web": (Port(80, 1),), "default/a": (Port(80, 2),)}, 9999, "default/a"),
    ],
)
def test_the_destination_names_a_service_that_its_pod_serves(
    services: dict[str, tuple[Port, ...]], port: int, expected: str
) -> None:
    server = msgspec.structs.replace(SERVER, services=services)
    entry = next(
        decode(
            names.LOG_INBOUND,
            http("10.0.0.1:9", f"10.0.0.2:{port}", CLIENT.identity.uri, 200, "default"),
        )
    )
    (found,) = flow(entry, Snapshot([CLIENT, server], [], []), LocalPods([local(server)]), SETTINGS)
    assert found.destination.service == expected
    assert found.source.service == ""


def test_a_connection_on_one_node_is_reported_by_both_sides() -> None:
    node = Node()
    tags = {**TUNNEL, "host.route": "same-node"}
    node.collector.take(names.LOG_OUTBOUND, tcp("10.0.0.1:1", "10.0.0.2:80", tags, received=5, sent=7))
    assert [flow.reporter for flow in node.lines] == [Reporter.SOURCE, Reporter.DESTINATION]
    assert all(flow.mutual_tls for flow in node.lines)
    assert node.count(metrics.SENT, reporter="destination") == 7
    assert "bytes_sent=7 bytes_recv=5" in access_line(node.lines[1])


def test_inbound_believes_the_certificate_not_the_address() -> None:
    node = Node()
    stranger = "spiffe://cluster.local/ns/elsewhere/sa/stranger"
    node.collector.take(names.LOG_INBOUND, http("10.0.0.1:9", "10.0.0.2:8080", stranger, 200, "default"))
    node.collector.take(
        names.LOG_INBOUND, http("10.0.0.1:9", "10.0.0.2:8080", CLIENT.identity.uri, 200, "default")
    )
    assert (node.lines[0].source.namespace, node.lines[0].source.workload) == ("elsewhere", "")
    assert node.lines[1].source.workload == "client"
    assert node.lines[1].policy == ""


def test_a_denied_tunnel_names_the_rule() -> None:
    node = Node()
    node.collector.take(
        names.LOG_INBOUND,
        http("10.0.0.1:9", "10.0.0.2:8080", CLIENT.identity.uri, 401, "default/deny[0]", sent=19),
    )
    (flow,) = node.lines
    assert (flow.decision, flow.policy, flow.sent) == ("deny", "default/deny[0]", 0)
    assert access_line(flow).endswith('error="denied by policy default/deny[0]"')
    assert node.count(metrics.FAILED, response_flags="DENY") == 1
    assert node.count(metrics.OPENED) == 0


def test_denied_plaintext_is_decided_again_to_name_the_rule() -> None:
    node = Node(STRICT)
    tags = {"pod": local(SERVER).key}
    node.collector.take(
        names.LOG_PLAINTEXT, tcp("10.0.0.3:5", "10.0.0.2:8080", tags, no_healthy_upstream=True)
    )
    (flow,) = node.lines
    assert (flow.decision, flow.policy) == ("deny", "default/strict[0]")
    assert flow.source.workload == "plain"
    assert flow.source.identity == ""
    assert not flow.mutual_tls


def test_a_refused_destination_gives_its_reason() -> None:
    node = Node()
    tags = {"pod": local(CLIENT).key, "route": "refused", "reason": "service default/web has no port 81"}
    node.collector.take(names.LOG_OUTBOUND, tcp("10.0.0.1:1", "10.96.0.1:81", tags, no_healthy_upstream=True))
    (flow,) = node.lines
    assert (flow.decision, flow.error) == ("allow", "service default/web has no port 81")
    assert node.count(metrics.FAILED, response_flags="CONNECT") == 1


@pytest.mark.parametrize(
    ("failure", "decision", "flag"),
    [
        ("tunnel_response:401", "deny", "DENY"),
        ("tunnel_response:503", "allow", "CONNECT"),
        ("TLS_error:x", "allow", "TLS_FAILURE"),
    ],
)
async def test_a_failed_tunnel_is_joined_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, failure: str, decision: str, flag: str
) -> None:
    monkeypatch.setattr("ambit.node.flows.collector._JOIN", 0.01)
    node = Node()
    node.collector.take(names.LOG_OUTBOUND, tcp("10.0.0.1:1", "10.0.0.2:8080", TUNNEL, received=2))
    node.collector.take(
        names.LOG_TUNNEL,
        tcp("10.0.0.1:1", "10.0.0.2:15008", {}, failure=failure, upstream_connection_failure=True),
    )
    assert node.lines == []
    follower = node.collector.follow()
    async with asyncio.timeout(5):
        flow = await anext(follower)
    assert node.lines == [flow]
    assert flow.decision == decision
    assert metrics.flags(flow) == flag


def test_a_tunnel_that_was_cut_short_is_told_at_once() -> None:
    node = Node()
    node.collector.take(names.LOG_TUNNEL, tcp("10.0.0.1:1", "10.0.0.2:15008", {CLOSED: "Normal"}))
    assert node.cut == []
    node.collector.take(names.LOG_TUNNEL, tcp("10.0.0.1:2", "10.0.0.2:15008", {CLOSED: RESET}, sent=9))
    assert [entry.client for entry in node.cut] == ["10.0.0.1:2"]
    assert node.lines == []


def test_bytes_of_a_long_connection_are_counted_once() -> None:
    node = Node()
    for received, sent in ((10, 1), (30, 2)):
        node.collector.take(
            names.LOG_OUTBOUND,
            tcp("10.0.0.1:1", "10.0.0.2:1", TUNNEL, received=received, sent=sent, kind=log.TcpPeriodic),
        )
    assert (node.count(metrics.OPENED), node.count(metrics.CLOSED)) == (1, 0)
    assert len(node.collector.open) == 1
    node.collector.take(names.LOG_OUTBOUND, tcp("10.0.0.1:1", "10.0.0.2:1", TUNNEL, received=31, sent=4))
    assert (node.count(metrics.OPENED), node.count(metrics.CLOSED)) == (1, 1)
    assert (node.count(metrics.RECEIVED), node.count(metrics.SENT)) == (31, 4)
    assert len(node.collector.open) == 0


def test_label_sets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 2)
    counters = metrics.TcpMetrics()
    for number in range(10):
        counters.series(("source", *(str(number) for _ in metrics.LABELS[1:])))[metrics.OPENED] += 1
    assert len(counters) == 3
    lines = list(counters.render())
    assert any(line.startswith('istio_tcp_connections_opened_total{reporter="source"') for line in lines)
    assert sum(int(line.rpartition(" ")[2]) for line in lines if "opened_total{" in line) == 10


def test_ipv6_addresses_have_brackets() -> None:
    (entry,) = decode(names.LOG_OUTBOUND, tcp("fd00::1:5", "fd00::2:80", TUNNEL))
    assert (entry.client, entry.destination) == ("[fd00::1]:5", "[fd00::2]:80")
