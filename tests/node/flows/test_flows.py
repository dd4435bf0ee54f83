"""From Envoy's access-log messages to records, lines and counters."""

import asyncio
import ipaddress
import shlex
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.agent import connection_metrics as metrics
from ambit.agent.lanes import Lanes
from ambit.agent.record import Flow, Reporter
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.envoy.logs.access_log import CLOSED, RESET
from ambit.model.policy import (
    Action,
    Authorization,
    Clause,
    Match,
    Presence,
    Rule,
    Scope,
    ServiceAccountMatch,
)
from ambit.model.service import Service
from ambit.model.view import Snapshot
from ambit.model.workload import Locality, Port, TunnelProtocol, Workload
from ambit.node.flows.collector import Collector
from ambit.node.flows.entry import lines, read
from ambit.node.flows.record import flows
from ambit.plan.values import LocalPod, LocalPods, NodeSettings
from tests.node.flows.envoy_lines import STARTED, line, message

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


CLIENT = workload("client", "10.0.0.1")
SERVER = msgspec.structs.replace(workload("server", "10.0.0.2"), locality=Locality("eu", "eu-1"))
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


def tcp(
    client: str,
    destination: str,
    tags: dict[str, str],
    *,
    kind: str = names.LOG_OUTBOUND,
    received: int = 0,
    sent: int = 0,
    **fields: str,
) -> bytes:
    return message(line(kind, client, destination, (received, sent), **tags, **fields))


def http(
    client: str,
    authority: str,
    identity: str,
    status: int,
    policy: str,
    *,
    received: int = 0,
    sent: int = 0,
    **more: str,
) -> bytes:
    fields = {
        "pod": local(SERVER).key,
        "status": str(status),
        "identity": identity,
        "policy": policy,
        **more,
    }
    return message(line(names.LOG_INBOUND, client, authority, (received, sent), **fields))


class Node:
    def __init__(self, *policies: Authorization, as_json: bool = False) -> None:
        service = Service("web", "default", "web.default.svc.cluster.local")
        self.lines: list[str] = []
        self.cut: list[tuple[str, str]] = []
        pods = LocalPods([local(CLIENT), local(SERVER)])
        self.collector = Collector(
            Snapshot([CLIENT, SERVER, PLAIN], [service], policies),
            lambda: pods,
            SETTINGS,
            self.lines.extend,
            lambda *ends: self.cut.append(ends),
            as_json=as_json,
        )

    @property
    def flows(self) -> list[Flow]:
        """Oldest first."""
        return list(self.collector.newest())[::-1]

    def count(self, counter: int, **labels: str) -> int:
        total = 0
        for found, _, counts in self.collector.counters.sets():
            if all(found[name] == value for name, value in labels.items()):
                total += counts[counter]
        return total


TUNNEL = {
    "pod": local(CLIENT).key,
    "service": "default/web.default.svc.cluster.local",
    "host_workload": SERVER.uid,
    "host_identity": SERVER.identity.uri,
    "host_route": "tunnel",
    "host_target": "10.0.0.2:8080",
}


def test_a_tunnelled_connection_names_both_ends() -> None:
    node = Node()
    node.collector.take(tcp("10.0.0.1:1", "10.96.0.1:80", TUNNEL, received=5, sent=7))
    (flow,) = node.flows
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
    (line,) = node.lines
    assert line.split("\t")[0] == "2027-01-15T08:00:00.012000Z"
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
    (entry,) = lines(http("10.0.0.1:9", f"10.0.0.2:{port}", CLIENT.identity.uri, 200, "default"))
    about = read(entry[-1])
    assert about is not None
    (found,) = flows(about, Snapshot([CLIENT, server], [], []), LocalPods([local(server)]), SETTINGS)
    assert found.destination.service == expected
    assert found.source.service == ""


def test_a_connection_on_one_node_is_reported_by_both_sides() -> None:
    node = Node()
    tags = {**TUNNEL, "host_route": "same-node"}
    node.collector.take(tcp("10.0.0.1:1", "10.0.0.2:80", tags, received=5, sent=7))
    assert [flow.reporter for flow in node.flows] == [Reporter.SOURCE, Reporter.DESTINATION]
    assert all(flow.mutual_tls for flow in node.flows)
    assert node.count(metrics.SENT, reporter="destination") == 7
    assert "bytes_sent=7 bytes_recv=5" in node.lines[1]


def test_inbound_believes_the_certificate_not_the_address() -> None:
    node = Node()
    stranger = "spiffe://cluster.local/ns/elsewhere/sa/stranger"
    node.collector.take(http("10.0.0.1:9", "10.0.0.2:8080", stranger, 200, "default"))
    node.collector.take(http("10.0.0.1:9", "10.0.0.2:8080", CLIENT.identity.uri, 200, "default"))
    assert (node.flows[0].source.namespace, node.flows[0].source.workload) == ("elsewhere", "")
    assert node.flows[1].source.workload == "client"
    assert node.flows[1].policy == ""


def test_a_denied_tunnel_names_the_rule() -> None:
    node = Node()
    node.collector.take(
        http("10.0.0.1:9", "10.0.0.2:8080", CLIENT.identity.uri, 401, "default/deny[0]", sent=19),
    )
    (flow,) = node.flows
    assert (flow.decision, flow.policy, flow.sent) == ("deny", "default/deny[0]", 0)
    assert node.lines[0].endswith('error="denied by policy default/deny[0]"')
    assert node.count(metrics.FAILED, response_flags="DENY") == 1
    assert node.count(metrics.OPENED) == 0


def test_denied_plaintext_is_decided_again_to_name_the_rule() -> None:
    node = Node(STRICT)
    tags = {"pod": local(SERVER).key}
    node.collector.take(
        tcp("10.0.0.3:5", "10.0.0.2:8080", tags, kind=names.LOG_PLAINTEXT, flags="NoHealthyUpstream")
    )
    (flow,) = node.flows
    assert (flow.decision, flow.policy) == ("deny", "default/strict[0]")
    assert flow.source.workload == "plain"
    assert flow.source.identity == ""
    assert not flow.mutual_tls


@pytest.mark.feature("N7")
def test_what_dry_run_policies_would_deny_is_told_of_every_way() -> None:
    """As the destination tells it: of a tunnel Envoy, inside the node and of plain text the same decision."""
    trial = msgspec.structs.replace(STRICT, name="trial", dry_run=True)
    client = Match(service_accounts=(ServiceAccountMatch("default", "client"),))
    rule = Rule((Clause((client,)),))
    other = msgspec.structs.replace(trial, name="other", rules=(rule,))
    node = Node(trial, other)
    near = {**TUNNEL, "host_route": "same-node"}
    node.collector.take(tcp("10.0.0.1:1", "10.0.0.2:80", near))
    node.collector.take(
        tcp("10.0.0.3:5", "10.0.0.2:8080", {"pod": local(SERVER).key}, kind=names.LOG_PLAINTEXT, sent=1)
    )
    told = {"dry_run": "default/other[0]", "dry_run_result": "denied"}
    node.collector.take(http("10.0.0.1:9", "10.0.0.2:8080", CLIENT.identity.uri, 200, "default", **told))
    node.collector.take(
        http("10.0.0.1:9", "10.0.0.2:8080", CLIENT.identity.uri, 401, "default/deny[0]", **told)
    )
    assert [(flow.reporter, flow.decision, flow.dry_run) for flow in node.flows] == [
        (Reporter.SOURCE, "allow", ""),
        (Reporter.DESTINATION, "allow", "default/other[0]"),
        (Reporter.DESTINATION, "allow", "default/trial[0]"),
        (Reporter.DESTINATION, "allow", "default/other[0]"),
        (Reporter.DESTINATION, "deny", ""),
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_new_policy_cuts_is_no_allowed_connection(as_json: bool) -> None:
    """Told by both sides inside a node, by the destination of tunnels and of plain text; no other connection."""
    node = Node(as_json=as_json)
    server = ipaddress.ip_address("10.0.0.2")
    began, ended = STARTED, STARTED + 0.012
    for plain, client in ((False, CLIENT), (True, PLAIN)):
        (address,) = client.addresses
        node.collector.cuts.note(began + 0.006, address, server, 8080, "default/try[0]", plain=plain)
    near = {**TUNNEL, "host_route": "same-node"}
    local_server = {"pod": local(SERVER).key}

    def everything() -> list[tuple[str, str, bool]]:
        before = len(node.flows)
        node.collector.take(tcp("10.0.0.1:1", "10.96.0.1:80", near, received=1, sent=2))
        node.collector.take(http("10.0.0.1:9", "10.0.0.2:8080", CLIENT.identity.uri, 200, "default"))
        plain = names.LOG_PLAINTEXT
        node.collector.take(tcp("10.0.0.3:5", "10.0.0.2:8080", local_server, kind=plain, sent=1))
        return [(each.decision, each.policy, each.cut) for each in node.flows[before:]]

    assert everything() == [("deny", "default/try[0]", True)] * 4
    assert all("cut by policy default/try[0]" in each for each in node.lines)
    assert node.count(metrics.OPENED) == node.count(metrics.CLOSED) == 4, "they were open, and have ended"
    written = len(node.lines)
    # Of other ends: another port, another way.
    node.collector.take(http("10.0.0.1:9", "10.0.0.2:9090", CLIENT.identity.uri, 200, "default"))
    node.collector.take(http("10.0.0.3:9", "10.0.0.2:8080", PLAIN.identity.uri, 200, "default"))
    assert [each.cut for each in node.flows[-2:]] == [False, False]
    # What ended before the cut, or began after it, has nothing to do with it.
    for moment in (ended + 1, began - 1):
        for plain, client in ((False, CLIENT), (True, PLAIN)):
            (address,) = client.addresses
            node.collector.cuts.note(moment, address, server, 8080, "default/try[0]", plain=plain)
        assert everything() == [("allow", "", False)] * 4
    assert not any("cut by" in each for each in node.lines[written:])


def test_what_another_node_cut_is_told_by_the_source_as_well() -> None:
    """It was open when policies changed, ended since, and would be denied now. All three count."""
    allow_nobody = Authorization("nobody", "default", Scope.NAMESPACE, Action.ALLOW)
    began, ended = STARTED, STARTED + 0.012

    def told(*policies: Authorization, changed: float | None, **tags: str) -> tuple[str, str, bool]:
        node = Node(*policies)
        if changed is not None:
            node.collector.cuts.policies_changed(changed)
        # The last change is another one, which came when it was over.
        node.collector.cuts.policies_changed(ended + 1)
        node.collector.take(tcp("10.0.0.1:1", "10.96.0.1:80", {**TUNNEL, **tags}, received=1, sent=2))
        (flow,) = node.flows
        return flow.decision, flow.policy, flow.cut

    assert told(allow_nobody, changed=began + 0.006) == ("deny", "default/nobody", True)
    allowed = ("allow", "", False)
    assert told(changed=began + 0.006) == allowed
    assert told(allow_nobody, changed=None) == allowed
    assert told(allow_nobody, changed=began - 1) == allowed
    assert told(allow_nobody, changed=began + 0.006, host_workload="unknown") == allowed
    assert told(allow_nobody, changed=began + 0.006, host_target="web.test:80") == allowed
    assert told(allow_nobody, changed=began + 0.006, host_route="direct") == allowed


def test_cuts_of_ipv6_are_found_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ambit.node.flows.cuts._KEPT", 2)
    node = Node()
    client, server = ipaddress.ip_address("fd00::1"), ipaddress.ip_address("fd00::2")
    for port in (1, 2, 80):
        node.collector.cuts.note(STARTED + 0.006, client, server, port, "default/try", plain=False)
    assert len(node.collector.cuts._cuts) == 2
    node.collector.take(http("fd00::1:5", "[fd00::2]:80", CLIENT.identity.uri, 200, "default"))
    assert [(each.cut, each.policy) for each in node.flows] == [(True, "default/try")]


def test_a_refused_destination_gives_its_reason() -> None:
    node = Node()
    tags = {"pod": local(CLIENT).key, "route": "refused", "reason": "service default/web has no port 81"}
    node.collector.take(tcp("10.0.0.1:1", "10.96.0.1:81", tags, flags="NoHealthyUpstream"))
    (flow,) = node.flows
    assert (flow.decision, flow.error) == ("allow", "service default/web has no port 81")
    assert node.count(metrics.FAILED, response_flags="CONNECT") == 1


FAILURES = pytest.mark.parametrize(
    ("failure", "decision", "flag"),
    [
        ("tunnel_response:401", "deny", "DENY"),
        ("tunnel_response:503", "allow", "CONNECT"),
        ("TLS_error:x", "allow", "TLS_FAILURE"),
    ],
)


@FAILURES
def test_a_failed_tunnel_without_a_hop_tells_its_reason(failure: str, decision: str, flag: str) -> None:
    node = Node()
    fields = {"upstream_failure": failure, "flags": "UpstreamConnectionFailure"}
    node.collector.take(tcp("10.0.0.1:1", "10.0.0.2:80", TUNNEL, **fields))
    (flow,) = node.flows
    assert (flow.decision, metrics.flags(flow)) == (decision, flag)
    assert node.count(metrics.FAILED) == 1


@FAILURES
async def test_a_failed_tunnel_is_joined_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, failure: str, decision: str, flag: str
) -> None:
    monkeypatch.setattr("ambit.node.flows.collector._JOIN", 0.01)
    node = Node()
    node.collector.take(tcp("10.0.0.1:1", "10.0.0.2:8080", TUNNEL, received=2))
    node.collector.take(
        tcp(
            "10.0.0.1:1",
            "10.0.0.2:15008",
            {},
            kind=names.LOG_TUNNEL,
            upstream_failure=failure,
            flags="UpstreamConnectionFailure",
        ),
    )
    assert node.flows == []
    with node.collector.follow() as to_come:
        async with asyncio.timeout(60):
            flow = await to_come.get()
    assert node.flows == [flow]
    assert len(node.lines) == 1
    assert flow.decision == decision
    assert metrics.flags(flow) == flag


def test_a_tunnel_that_was_cut_short_is_told_at_once() -> None:
    node = Node()
    node.collector.take(tcp("10.0.0.1:1", "10.0.0.2:15008", {CLOSED: "Normal"}, kind=names.LOG_TUNNEL))
    assert node.cut == []
    node.collector.take(tcp("10.0.0.1:2", "10.0.0.2:15008", {CLOSED: RESET}, kind=names.LOG_TUNNEL, sent=9))
    assert node.cut == [("10.0.0.1:2", "10.0.0.2:15008")]
    assert node.flows == []


def test_bytes_of_a_long_connection_are_counted_once() -> None:
    node = Node()
    for received, sent in ((10, 1), (30, 2)):
        node.collector.take(
            tcp("10.0.0.1:1", "10.0.0.2:1", TUNNEL, received=received, sent=sent, type="TcpPeriodic"),
        )
    assert (node.count(metrics.OPENED), node.count(metrics.CLOSED)) == (1, 0)
    assert len(node.collector.open) == 1
    node.collector.take(tcp("10.0.0.1:1", "10.0.0.2:1", TUNNEL, received=31, sent=4))
    assert (node.count(metrics.OPENED), node.count(metrics.CLOSED)) == (1, 1)
    assert (node.count(metrics.RECEIVED), node.count(metrics.SENT)) == (31, 4)
    assert len(node.collector.open) == 0


def test_label_sets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 2)
    counters = metrics.series()
    for number in range(10):
        counters.of(("source", *(str(number) for _ in metrics.LABELS[1:])))[metrics.OPENED] += 1
    assert len(counters) == 3
    found = list(metrics.render(counters))
    assert any(each.startswith('istio_tcp_connections_opened_total{reporter="source"') for each in found)
    assert sum(int(each.rpartition(" ")[2]) for each in found if "opened_total{" in each) == 10


def test_ipv6_addresses_have_brackets() -> None:
    node = Node()
    node.collector.take(tcp("fd00::1:5", "[fd00::2]:80", {**TUNNEL, "host_target": ""}, sent=1))
    (flow,) = node.flows
    assert (flow.source.address, flow.destination.address) == ("[fd00::1]:5", "[fd00::2]:80")


def test_regions_and_zones_are_labels() -> None:
    node = Node()
    node.collector.take(tcp("10.0.0.1:1", "10.0.0.2:80", TUNNEL, sent=1))
    places = {"source_region": "unknown", "source_zone": "unknown"}
    assert node.count(metrics.OPENED, **places, destination_region="eu", destination_zone="eu-1") == 1


def test_records_keep_the_names_of_their_time() -> None:
    node = Node()
    node.collector.take(tcp("10.0.0.1:1", "10.0.0.2:80", TUNNEL, sent=1))
    renamed = msgspec.structs.replace(SERVER, name="other", workload_name="other")
    node.collector._view = Snapshot([CLIENT, renamed], [], [])
    node.collector.forget()
    node.collector.take(tcp("10.0.0.1:2", "10.0.0.2:80", TUNNEL, sent=1))
    assert [flow.destination.workload for flow in node.flows] == ["server", "other"]
    assert node.count(metrics.OPENED, destination_workload="other") == 1


def test_pods_that_come_are_known_at_once() -> None:
    node = Node()
    table = LocalPods([])
    node.collector._pods = lambda: table
    node.collector.take(tcp("10.0.0.1:1", "10.0.0.2:80", TUNNEL, sent=1))
    table = LocalPods([local(CLIENT)])
    node.collector.take(tcp("10.0.0.1:2", "10.0.0.2:80", TUNNEL, sent=1))
    assert [flow.source.identity for flow in node.flows] == ["", CLIENT.identity.uri]


def test_json_lines_say_the_same() -> None:
    denied = http("10.0.0.1:9", "10.0.0.2:8080", CLIENT.identity.uri, 401, "default/deny[0]")
    found: dict[bool, list[str]] = {}
    for as_json in (False, True):
        node = Node(as_json=as_json)
        node.collector.take(tcp("10.0.0.1:1", "10.96.0.1:80", TUNNEL, received=5, sent=7))
        node.collector.take(denied)
        found[as_json] = node.lines
    for plain, text in zip(found[False], found[True], strict=True):
        fields = msgspec.json.decode(text)
        stamp, level, scope, words, rest = plain.split("\t")
        assert [fields.pop(key) for key in ("time", "level", "scope", "message")] == [
            stamp,
            level,
            scope,
            words,
        ]
        assert dict(each.split("=", 1) for each in shlex.split(rest)) == fields
        assert list(fields)[:2] == ["src.addr", "src.workload"]


def test_what_a_peer_sends_cannot_pretend_anything_else() -> None:
    node = Node()
    hostile = "evil\tTcpPeriodic\tdefault/allow\tspiffe://cluster.local/ns/default/sa/admin"
    bad = line(names.LOG_INBOUND, "10.0.0.9:1", hostile, pod=local(SERVER).key, status="401")
    not_text = line(names.LOG_INBOUND, "10.0.0.9:2", "NOT TEXT", pod=local(SERVER).key).encode()
    good = line(names.LOG_OUTBOUND, "10.0.0.1:1", "10.0.0.2:80", (5, 7), **TUNNEL)
    node.collector.take(message(bad, not_text.replace(b"NOT TEXT", b"\xff\xfe"), "nonsense", good))
    denied, strange, usual = node.flows
    assert (denied.decision, denied.source.identity, denied.destination.address) == ("deny", "", "evil")
    assert strange.destination.address == "\ufffd\ufffd"
    assert usual.source.workload == "client"


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_no_line_breaks_the_others(texts: list[bytes]) -> None:
    node = Node()
    node.collector.take(
        message(*texts, line(names.LOG_OUTBOUND, "10.0.0.1:1", "10.0.0.2:80", (5, 7), **TUNNEL))
    )
    assert node.flows[-1].received == 5


@given(st.lists(st.tuples(st.sampled_from(["", "NoHealthyUpstream"]), st.integers(1, 9), st.integers(1, 9))))
def test_every_connection_is_counted_once(connections: list[tuple[str, int, int]]) -> None:
    node = Node()
    for number, (flags, received, sent) in enumerate(connections):
        node.collector.take(
            tcp(f"10.0.0.1:{number}", "10.0.0.2:80", TUNNEL, received=received, sent=sent, flags=flags)
        )
    failed = sum(bool(flags) for flags, _, _ in connections)
    assert node.count(metrics.FAILED) == failed
    assert node.count(metrics.OPENED) == node.count(metrics.CLOSED) == len(connections) - failed
    assert node.count(metrics.RECEIVED) == sum(received for _, received, _ in connections)
    assert node.count(metrics.SENT) == sum(sent for _, _, sent in connections)
    assert len(node.lines) == len(node.flows) == len(connections)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a pod scans: what is kept about kinds of connections has a limit."""
    monkeypatch.setattr("ambit.node.flows.collector.Lanes", partial(Lanes, most=10))
    node = Node()
    for number in range(100):
        for sent, flags in ((1, ""), (0, "NoHealthyUpstream")):
            target = {**TUNNEL, "host_target": ""}
            node.collector.take(tcp("10.0.0.1:1", f"10.0.0.2:{number}", target, sent=sent, flags=flags))
    assert 0 < len(node.collector._lanes) <= 10
    assert 0 < len(node.collector._silent) <= 10
    assert len(node.flows) == 200


def test_a_peers_words_take_no_more_memory_than_there_is() -> None:
    node = Node()
    hostile = f"10.0.0.2:{'9' * 50_000}"
    node.collector.take(http("10.0.0.9:1", hostile, CLIENT.identity.uri, 401, "strict[0]"))
    node.collector.take(http("10.0.0.9:2", "10.0.0.2:80", CLIENT.identity.uri, 200, "", baggage="x" * 50_000))
    assert len(node.flows) == 2 and not node.collector._lanes and not node.collector._silent
    assert all(len(each.destination.address) < 400 for each in node.flows)
