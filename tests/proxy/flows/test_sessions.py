"""From Envoy's access-log messages about clients of UDP to records and counters."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.agent import datagram_metrics
from ambit.agent.record import End, Flow, Reporter, SessionPart
from ambit.envoy.logs import datagram_log
from ambit.proxy.flows import collector as collecting
from ambit.proxy.flows.collector import RequestCollector
from ambit.proxy.flows.sessions import Sessions
from tests.node.flows.envoy_lines import STARTED, message
from tests.proxy.flows.test_connections import text as connection

KNOWN = datagram_log.known("dns", "shop/names/0", "shop/dns.shop.svc.cluster.local")


def text(
    client: str = "203.0.113.7",
    port: int | str = 4711,
    *counts: int,
    known: str = KNOWN,
    upstream: str = "10.0.0.2:53",
    seconds: int = 0,
) -> str:
    numbers = "\t".join(map(str, counts or (10, 20, 1, 2)))
    first = f"{datagram_log.KIND}\t{STARTED + seconds}.012000\t{client}\t{port}\t{numbers}"
    return f"{first}\n{known}\t{upstream}\t10.0.0.9:5300"


def collector(*texts: str) -> RequestCollector:
    made = RequestCollector(proxy="shop/front", node="node1", own=End("", workload_name="front"))
    for each in texts:
        made.take(message(each))
    return made


def flow(**fields: str) -> Flow:
    (found,) = collector(text(**fields)).newest()  # type: ignore[arg-type]
    return found


def lines(made: RequestCollector) -> list[str]:
    return list(datagram_metrics.render(made.sessions.series))


def test_a_record_says_who_sent_what_and_where_it_went() -> None:
    found = flow()
    assert (found.reporter, found.proxy, found.hop, found.error) == (
        Reporter.GATEWAY,
        "shop/front",
        "direct",
        "",
    )
    assert found.source == End("203.0.113.7:4711")
    assert found.destination == End("10.0.0.2:53", service="shop/dns.shop.svc.cluster.local")
    assert found.datagrams == SessionPart("dns", "shop/names/0", 1, 2)
    assert (found.received, found.sent, found.milliseconds) == (10, 20, 12.0)
    assert flow(client="fd00::7").source == End("[fd00::7]:4711")


@pytest.mark.parametrize("upstream", ["-", "127.0.0.1:15021"])
def test_who_was_led_to_nobody(upstream: str) -> None:
    found = flow(upstream=upstream)
    assert (found.hop, found.error) == ("refused", "no endpoint")
    assert found.destination.address == "dns.shop.svc.cluster.local:5300"
    assert flow(upstream=upstream, known="-").destination == End("listener:5300")


def test_sessions_are_counted_with_the_labels_of_connections() -> None:
    made = collector(text(), text(port=1), text(upstream="-"))
    sessions = [each for each in lines(made) if each.startswith("ambit_udp_sessions_total{")]
    assert [each.rpartition(" ")[2] for each in sessions] == ["2", "1"]
    assert 'reporter="source",source_workload="front"' in sessions[0]
    assert 'request_protocol="udp",response_flags="-"' in sessions[0]
    assert 'response_flags="CONNECT"' in sessions[1]
    sums = {each.partition("{")[0]: each.rpartition(" ")[2] for each in lines(collector(text(), text()))}
    names = ("received_datagrams", "sent_datagrams", "received_bytes", "sent_bytes")
    assert [sums[f"ambit_udp_{each}_total"] for each in names] == ["2", "4", "20", "40"]


def test_a_flood_of_made_up_clients_pushes_nothing_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from memory nor from what followers have before them; and it makes no lanes and no series."""
    monkeypatch.setattr(collecting, "KEPT_SESSIONS", 5)
    made = collector(connection())

    async def followed() -> list[Flow]:
        with made.follow() as queue:
            for each in range(2_000):
                made.take(message(text(f"198.51.{each // 250}.{each % 250}")))
            made.take(message(connection()))
            return [queue.get_nowait() for _ in range(queue.qsize())]

    told = asyncio.run(followed())
    assert len(told) == 201 and told[-1].datagrams is None
    kept = list(made.newest())
    assert [each.datagrams is None for each in kept].count(True) == 2
    assert len(kept) == 7
    assert len(made.sessions._lanes) == len(made.sessions.series) == 1


def test_the_newest_come_first_whatever_they_are() -> None:
    made = collector(text(port=1, seconds=1), connection(), text(port=2, seconds=2))
    found = [each.source.address.rpartition(":")[2] for each in made.newest()]
    assert found == ["2", "1", "4711"]


def test_no_more_lanes_than_there_is_room_for() -> None:
    sessions = Sessions(End(""), proxy="shop/front", node="node1")
    for each in range(1_001):
        list(sessions.ended(message(text(upstream=f"10.1.{each // 250}.{each % 250}:53"))))
    assert len(sessions._lanes) == 1


@given(st.text())
def test_strange_texts_are_left_out(garbage: str) -> None:
    start = f"{datagram_log.KIND}\t1\t::1\t3\t4\t5\t6\t7\n"
    made = collector(garbage, f"{start}{garbage}", f"{datagram_log.KIND}\t{garbage}", text(port=garbage))
    list(made.newest())
