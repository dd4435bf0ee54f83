"""From Envoy's access-log messages about connections to records and counters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.agent import connection_metrics
from ambit.agent.record import End, Flow, Reporter
from ambit.agent.stream_entry import connections, read
from ambit.envoy.logs import access_log, stream_log
from ambit.envoy.logs.access_log import BAGGAGE, HOST, IDENTITY, POD, POLICY, SERVICE
from ambit.envoy.logs.request_log import AUTHORITY
from ambit.proxy.flows import collector as collecting
from ambit.proxy.flows.collector import RequestCollector
from tests.node.flows.envoy_lines import STARTED, message
from tests.proxy.flows.test_requests import text as request

CLIENT = "spiffe://cluster.local/ns/shop/sa/web"
USUAL = {
    "type": "TcpConnectionEnd",
    SERVICE: "shop/db.shop.svc.cluster.local",
    "port": "5432",
    "client": "10.0.0.1",
    IDENTITY: CLIENT,
    HOST + POD: "db-1",
    HOST + IDENTITY: "spiffe://cluster.local/ns/shop/sa/db",
    HOST + AUTHORITY: "10.0.0.2:5432",
    HOST + BAGGAGE: "k8s.namespace.name=shop,k8s.deployment.name=db",
    "dialled": "10.96.0.7:5432",
    BAGGAGE: "k8s.namespace.name=shop,k8s.deployment.name=web",
}


def text(received: int = 10, sent: int = 20, port: int = 4711, **fields: str) -> str:
    """One connection; `fields` by the keys of the layout."""
    known = {**USUAL, **fields}
    assert set(known) <= set(stream_log.ABOUT), known
    about = "\t".join(known.get(key) or "-" for key in stream_log.ABOUT)
    return f"{stream_log.KIND}\t{STARTED}.012000\t{port}\t{received}\t{sent}\n{about}"


def edge(received: int = 10, sent: int = 20, **fields: str) -> str:
    return text(received, sent, **{SERVICE: "", IDENTITY: "", BAGGAGE: "", **fields})


def collector(*texts: str) -> RequestCollector:
    own = End("", workload_name="front", identity="spiffe://cluster.local/ns/shop/sa/front")
    made = RequestCollector(proxy="shop/way", node="node1", own=own)
    for each in texts:
        made.take(message(each))
    return made


def flow(**fields: str) -> Flow:
    (found,) = collector(text(**fields)).newest()  # type: ignore[arg-type]
    return found


def counted(made: RequestCollector, metric: str) -> int:
    lines = connection_metrics.render(made.connections.series)
    return sum(
        int(each.rpartition(" ")[2]) for each in lines if each.startswith(f"istio_tcp_{metric}_total{{")
    )


def test_a_record_has_both_ends_and_the_numbers() -> None:
    found = flow()
    assert (found.reporter, found.hop, found.decision, found.error) == (
        Reporter.WAYPOINT,
        "tunnel",
        "allow",
        "",
    )
    assert (found.source.address, found.source.workload_name) == ("10.0.0.1:4711", "web")
    assert (found.destination.address, found.destination.workload) == ("10.0.0.2:5432", "db-1")
    assert (found.received, found.sent, found.milliseconds, found.request) == (10, 20, 12.0, None)
    assert found.mutual_tls


@pytest.mark.parametrize(
    ("fields", "decision", "policy", "dry_run"),
    [
        ({"ruled": "shop/p[1]  "}, "allow", "shop/p[1]", ""),
        ({"ruled": "default shop/d[0] denied"}, "allow", "", "shop/d[0]"),
        ({"ruled": "- shop/d[0] allowed"}, "allow", "", ""),
        (
            {POLICY: "shop/p[0]", "dry_run": "shop/d", "dry_run_result": "denied"},
            "allow",
            "shop/p[0]",
            "shop/d",
        ),
        ({"chain": "denied|shop/p[2]"}, "deny", "shop/p[2]", ""),
        ({"chain": "denied", POLICY: "shop/p"}, "deny", "shop/p", ""),
        ({"chain": "denied"}, "deny", "", ""),
        ({"chain": "port|9000#shop/r/0"}, "allow", "", ""),
    ],
)
def test_who_decided(fields: dict[str, str], decision: str, policy: str, dry_run: str) -> None:
    found = flow(**fields)
    assert (found.decision, found.policy, found.dry_run) == (decision, policy, dry_run)


def test_what_is_known_of_the_endpoint_is_one_text() -> None:
    known = (USUAL[HOST + POD], USUAL[HOST + IDENTITY], USUAL[HOST + BAGGAGE])
    joined = flow(**{HOST + POD: access_log.known(*known), HOST + IDENTITY: "", HOST + BAGGAGE: ""})
    assert joined == flow()
    assert joined.destination.identity == USUAL[HOST + IDENTITY]


def test_a_tunnel_that_was_denied_led_to_a_service() -> None:
    nobody = {HOST + each: "" for each in (POD, IDENTITY, AUTHORITY, BAGGAGE)}
    given = {
        SERVICE: "",
        "port": "",
        "chain": "denied",
        "cluster": "into|shop/db.shop.svc.cluster.local|5432",
    }
    found = flow(**nobody, **given)
    assert (found.reporter, found.hop) == (Reporter.WAYPOINT, "refused")
    assert found.destination.service == "shop/db.shop.svc.cluster.local"
    assert found.destination.address == "db.shop.svc.cluster.local:5432"


def test_a_gateway_counts_as_the_source() -> None:
    made = collector(edge(cluster="svc|shop/db.shop.svc.cluster.local|5432"))
    (found,) = made.newest()
    assert (found.reporter, found.mutual_tls) == (Reporter.GATEWAY, False)
    assert found.destination.service == "shop/db.shop.svc.cluster.local"
    (line,) = [
        each
        for each in connection_metrics.render(made.connections.series)
        if each.startswith("istio_tcp_connections_opened_total{")
    ]
    assert 'reporter="source",source_workload="front"' in line
    assert 'connection_security_policy="mutual_tls"' in line


def test_what_goes_on_is_counted_once_and_recorded_at_its_end() -> None:
    going = {"type": "TcpPeriodic"}
    made = collector(text(5, 6, **going), text(7, 6, **going))
    assert list(made.newest()) == []
    numbers = ("connections_opened", "connections_closed", "received_bytes", "sent_bytes")
    assert [counted(made, each) for each in numbers] == [1, 0, 7, 6]
    made.take(message(text(9, 10)))
    assert [counted(made, each) for each in numbers] == [1, 1, 9, 10]
    assert [each.received for each in made.newest()] == [9]


def test_what_failed_was_never_open() -> None:
    made = collector(text(flags="NoHealthyUpstream"), text(chain="denied|shop/p[0]"))
    numbers = ("connections_opened", "connections_closed", "connections_failed")
    assert [counted(made, each) for each in numbers] == [0, 0, 2]
    assert {each.error for each in made.newest()} == {"no healthy upstream", ""}


def test_requests_and_connections_do_not_take_each_other() -> None:
    made = RequestCollector(proxy="shop/way", node="node1")
    made.take(message(request(), text()))
    assert len([each for each in made.newest() if each.request is None]) == 1
    assert list(connections(message(request(), request("GET stream\t1\t2 /")))) == []


def test_a_peers_words_are_the_last() -> None:
    found = flow(**{BAGGAGE: "k8s.namespace.name=shop\tx\ty"})
    assert (found.source.identity, found.destination.workload) == (CLIENT, "db-1")


@given(st.text())
def test_strange_texts_are_left_out(garbage: str) -> None:
    made = collector(garbage, f"{stream_log.KIND}\t1\t2\t3\t4\n{garbage}", f"{stream_log.KIND}\t{garbage}")
    assert all(each.request is None for each in made.newest())
    read(garbage)


def test_many_kinds_of_connections_are_counted_on() -> None:
    """Lanes are made anew when there are too many."""
    made = collector(
        *(text(client=f"10.1.{each // 250}.{each % 250}") for each in range(2_001)), text(), text()
    )
    assert counted(made, "connections_opened") == 2_003
    assert collecting.KEPT > 2_003


def test_peers_words_take_no_more_memory_than_there_is() -> None:
    made = collector(
        text(
            chain="denied",
            cluster="into|shop/db|0",
            dialled=f"10.0.0.9:{'9' * 50_000}",
            **{HOST + AUTHORITY: ""},
        ),
        text(**{BAGGAGE: f"k8s.namespace.name=shop,{'x' * 50_000}"}),
        text(),
    )
    assert all(len(each.destination.address) < 400 for each in made.newest())
    assert max(map(len, made.connections._lanes)) < 2_000
    assert counted(made, "connections_opened") + counted(made, "connections_failed") == 3
