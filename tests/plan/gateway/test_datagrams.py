"""Datagrams (UDP) at a gateway."""

import contextlib
import select
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.agent import datagram_metrics
from ambit.agent.record import Flow, SessionPart
from tests.ingest.build import Given, authorization_policy, udp_service
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import listener, route, to
from tests.plan.dataplane.network import REFUSED
from tests.plan.dataplane.served import until
from tests.plan.gateway.conftest import Edge

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

PORT, TARGET = 5300, 7000


@pytest.fixture(scope="module", autouse=True)
def servers(edge: Edge) -> Iterator[None]:
    """Each server says its name, and how many bytes it was sent."""
    listening = [
        host.listen_udp(TARGET, lambda asked, name=name: f"{name} {len(asked)}".encode())
        for name, host in edge.servers.items()
    ]
    yield
    for each in listening:
        each.close()


def services(edge: Edge) -> list[Given]:
    return [
        each
        for name, host in edge.servers.items()
        for each in udp_service(f"{name}-udp", (str(host.four), TARGET))
    ]


def udp_route(*backends: dict[str, Any], **more: Any) -> Given:
    parents = ({"name": "edge", "sectionName": "udp"},)
    return route({"backendRefs": list(backends)}, parents=parents, kind="udproutes", **more)


def to_udp(name: str, weight: int = 1) -> dict[str, Any]:
    return to(f"{name}-udp", 53, weight=weight)


def ask(edge: Edge, question: bytes = b"hi", *, timeout: float = 60.0, family: int = 4) -> str:
    """The answer to one datagram from a socket of its own, or REFUSED when there is none in time."""
    address = edge.host.four if family == 4 else edge.host.six
    with edge.client.datagrams(address, PORT, timeout=timeout) as sending:
        sending.send(question)
        try:
            return sending.recv(100).decode()
        except (TimeoutError, ConnectionError):
            return REFUSED


def silent(edge: Edge) -> bool:
    return ask(edge, timeout=0.3) == REFUSED


def answers(edge: Edge, expected: str = "one 2", **more: Any) -> None:
    """Waits until what was applied answers: Envoy's workers lay aside what was there before a moment after it is
    acknowledged."""
    until(lambda: ask(edge, timeout=2, **more) == expected, "an answer")


def ends(edge: Edge) -> None:
    """Waits until nobody answers any more."""
    until(lambda: silent(edge), "silence")
    assert silent(edge)


UDP = gateway(listener("udp", PORT, "UDP"))


@pytest.mark.parametrize("family", [4, 6])
def test_a_datagram_of_any_size_is_answered(edge: Edge, family: int) -> None:
    edge.apply(*services(edge), UDP, udp_route(to_udp("one")))
    answers(edge, family=family)
    assert ask(edge, b"x" * 60_000, family=family) == "one 60000"


def test_clients_are_shared_by_weight_and_stay_where_they_are(edge: Edge) -> None:
    edge.apply(*services(edge), UDP, udp_route(to_udp("one", 7), to_udp("two", 3), to_udp("gone", 0)))
    until(lambda: ask(edge, timeout=2) != REFUSED, "an answer")
    found = Counter(ask(edge).split()[0] for _ in range(100))
    assert abs(found["one"] - 70) <= 5 and sum(found.values()) == 100, found
    edge.settle()
    with edge.client.datagrams(edge.host.four, PORT) as kept:

        def said() -> bytes:
            kept.send(b"x")
            return kept.recv(100)

        first = said()
        assert {said() for _ in range(10)} == {first}
        edge.apply(*services(edge), UDP, udp_route(to_udp("one", 1), to_udp("two", 9)))
        assert said() == first, "other weights move no client"
        other = "two" if first.startswith(b"one") else "one"
        edge.apply(*services(edge), UDP, udp_route(to_udp(other)))
        assert said().decode().startswith(other), "a service that is none any more has no clients"


def test_the_share_of_a_service_that_is_not_there_is_nobodys(edge: Edge) -> None:
    edge.apply(*services(edge), UDP, udp_route(to_udp("one"), to_udp("gone")))
    answers(edge)
    with contextlib.ExitStack() as stack:
        waiting = {
            stack.enter_context(edge.client.datagrams(edge.host.four, PORT, timeout=0)) for _ in range(8)
        }
        for each in waiting:
            each.send(b"hi")
        while len(waiting) > 4:
            answered = select.select([*waiting], [], [], 60)[0]
            assert answered, waiting
            assert {each.recv(100) for each in answered} == {b"one 2"}
            waiting -= {*answered}
        # The other half wait for nobody.
        assert select.select([*waiting], [], [], 1)[0] == []
    edge.apply(*services(edge), UDP, udp_route(to_udp("one", 0)))
    ends(edge)


def test_only_ready_endpoints_are_sent_to(edge: Edge) -> None:
    one = (str(edge.servers["one"].four), TARGET)
    edge.apply(*udp_service("one-udp", one, ready=False), UDP, udp_route(to_udp("one")))
    ends(edge)
    edge.apply(*udp_service("one-udp", one), UDP, udp_route(to_udp("one")))
    answers(edge)


def test_the_oldest_route_has_all(edge: Edge) -> None:
    edge.apply(
        *services(edge),
        UDP,
        udp_route(to_udp("one"), name="z"),
        udp_route(to_udp("two"), name="a", created="2026-02-01T00:00:00Z"),
    )
    answers(edge)
    assert {ask(edge) for _ in range(5)} == {"one 2"}


def test_tcp_has_the_same_port_for_itself(edge: Edge) -> None:
    both = gateway(listener("http", PORT, "HTTP"), listener("udp", PORT, "UDP"))
    web = route({"backendRefs": [to("two")]}, name="web", parents=({"name": "edge", "sectionName": "http"},))
    edge.apply(*services(edge), both, udp_route(to_udp("one")), web)
    answers(edge)
    assert edge.said("a.example.com", port=PORT) == "two"


def test_a_listener_without_a_route_is_silent_and_so_is_one_that_a_policy_closes(edge: Edge) -> None:
    edge.apply(UDP)
    ends(edge)
    edge.apply(*services(edge), UDP, udp_route(to_udp("one")))
    answers(edge)
    edge.apply(*services(edge), UDP, udp_route(to_udp("one")), authorization_policy("p"))
    ends(edge)
    edge.apply(*services(edge), UDP, udp_route(to_udp("one")))
    answers(edge)


def test_policies_say_who_may_send(edge: Edge) -> None:
    def enforce(action: str, *addresses: str, **more: Any) -> None:
        rule = {"from": [{"source": {"ipBlocks": list(addresses)}}], **more}
        policy = authorization_policy("p", action=action, rules=[rule])
        edge.apply(*services(edge), UDP, udp_route(to_udp("one")), policy)

    def answers_to(action: str, *addresses: str, **more: Any) -> None:
        enforce(action, *addresses, **more)
        answers(edge)

    def is_closed_to(action: str, *addresses: str, **more: Any) -> None:
        enforce(action, *addresses, **more)
        ends(edge)

    mine, others = f"{edge.client.four}/32", "203.0.113.0/24"
    answers_to("ALLOW", mine)
    is_closed_to("ALLOW", others)
    answers_to("DENY", others)
    is_closed_to("DENY", mine)
    hello = [{"key": "connection.sni", "values": ["*"]}]
    answers_to("DENY", mine, when=hello)
    is_closed_to("ALLOW", mine, when=hello)
    here = [{"key": "destination.ip", "values": [str(edge.host.four)]}]
    answers_to("ALLOW", mine, when=here)
    is_closed_to("DENY", mine, when=here)


def record(edge: Edge, port: int) -> Flow | None:
    """Of the client with this port."""
    with edge.lock:
        found = [each for each in edge.requests.newest() if each.datagrams is not None]
    return next((each for each in found if each.source.address == f"{edge.client.four}:{port}"), None)


def ended(edge: Edge, port: int) -> Flow:
    """Sessions end when nothing is behind the listener any more."""
    edge.apply(UDP)
    until(lambda: record(edge, port) is not None, "a record")
    found = record(edge, port)
    assert found is not None
    return found


@pytest.mark.feature("F121")
def test_a_session_that_has_ended_leaves_a_record_and_is_counted(edge: Edge) -> None:
    edge.apply(*services(edge), UDP, udp_route(to_udp("one"), name="dns"))
    answers(edge)
    with edge.client.datagrams(edge.host.four, PORT) as sending:
        port = sending.getsockname()[1]
        for size in (3, 5):
            sending.send(b"x" * size)
            assert sending.recv(100).decode() == f"one {size}"
    assert record(edge, port) is None, "it goes on"
    found = ended(edge, port)
    assert found.destination.address == f"{edge.servers['one'].four}:{TARGET}"
    assert found.destination.service == "default/one-udp.default.svc.cluster.local"
    assert found.datagrams == SessionPart("udp", "default/dns/0", 2, 2)
    assert (found.received, found.sent) == (8, 10)
    assert (found.hop, found.decision, found.error) == ("direct", "allow", "")
    with edge.lock:
        lines = list(datagram_metrics.render(edge.requests.sessions.series))
    (counted,) = [
        each
        for each in lines
        if each.startswith("ambit_udp_sessions_total{")
        and 'destination_service_name="one-udp"' in each
        and 'response_flags="-"' in each
    ]
    assert 'source_workload="edge"' in counted and 'request_protocol="udp"' in counted


@pytest.mark.feature("F121")
def test_who_is_led_to_nobody_leaves_a_record_of_that(edge: Edge) -> None:
    edge.apply(*services(edge), UDP, udp_route(to_udp("gone")))
    with edge.client.datagrams(edge.host.four, PORT, timeout=0.3) as sending:
        port = sending.getsockname()[1]
        # The first may meet what was there before.
        for _ in range(3):
            sending.send(b"hi")
            with pytest.raises((TimeoutError, ConnectionError)):
                sending.recv(100)
    found = ended(edge, port)
    assert (found.hop, found.error) == ("refused", "no endpoint")
    assert found.destination.address == f"listener:{PORT}"


@pytest.mark.feature("F121")
def test_datagrams_that_a_policy_denies_are_counted(edge: Edge) -> None:
    edge.apply(*services(edge), UDP, udp_route(to_udp("one")), authorization_policy("p"))
    until(lambda: silent(edge), "silence")
    before = denied(edge)
    for _ in range(3):
        assert silent(edge)
    until(lambda: denied(edge) >= before + 3, "three datagrams counted")


def denied(edge: Edge) -> int:
    """As Envoy counts them."""
    name = "envoy_udp_downstream_sess_no_route{"
    lines = edge.admin("/stats/prometheus").splitlines()
    return sum(int(each.rpartition(" ")[2]) for each in lines if each.startswith(name))
