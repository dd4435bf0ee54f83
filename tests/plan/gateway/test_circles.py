"""Routes of a gateway that lead back to it: what comes in is refused, rather than going round."""

from typing import Any

import pytest

from ambit.core.names import GONE_ROUND
from ambit.plan.request_authorization import MOST_HOPS
from tests.ingest.build import Given, endpoint_slice, pod, service, udp_service
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import listener, to, to_edge
from tests.plan.dataplane.served import until
from tests.plan.gateway.conftest import IDENTITY, Edge
from tests.plan.gateway.test_stream_records import told

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

HTTP, INNER, TCP, UDP = 80, 8081, 9100, 5310
OWN = IDENTITY.service_account
LABELS = {"gateway.networking.k8s.io/gateway-name": "edge"}
GATEWAY = gateway(
    listener("http", HTTP),
    listener("inner", INNER),
    listener("tcp", TCP, "TCP"),
    listener("udp", UDP, "UDP"),
)


@pytest.fixture
def own(edge: Edge) -> list[Given]:
    """The gateway with its pod and Service, and other Services that have the same pod."""
    address = str(edge.host.four)
    ports: list[dict[str, Any]] = [
        {"name": f"{kind}-{port}", "port": port, "targetPort": port, "protocol": "TCP"}
        for kind, port in (("http", HTTP), ("http", INNER), ("tcp", TCP))
    ]
    return [
        GATEWAY,
        pod("edge-1", address, labels=LABELS, redirected=False, serviceAccountName=OWN),
        service(OWN, LABELS, ip="10.96.8.1", ports=ports),
        service("also", LABELS, ip="10.96.8.2", ports=ports),
        # Whoever may write a Service can put any address behind it.
        service("written", None, ip="10.96.8.3", ports=ports[:1]),
        endpoint_slice("written", address, HTTP, port_name=f"http-{HTTP}"),
        *udp_service("datagrams", (address, UDP), port=UDP),
    ]


def on(section: str, *backends: dict[str, Any], kind: str = "httproutes", **rule: Any) -> Given:
    parents = ({"sectionName": section},)
    return to_edge({"backendRefs": list(backends), **rule}, parents=parents, name=section, kind=kind)


@pytest.mark.parametrize("name", [OWN, "also", "written"])
def test_requests_do_not_go_round(edge: Edge, own: list[Given], name: str) -> None:
    edge.apply(*own, on("http", to(name, HTTP)))
    assert edge.said("shop.example.com") == "503"
    if name == "written":
        return
    edge.apply(*own, on("http", to(name, INNER)), on("inner", to("also", HTTP)))
    assert edge.said("shop.example.com") == edge.said("shop.example.com", port=INNER) == "503"


def test_one_port_may_lead_to_another(edge: Edge, own: list[Given]) -> None:
    edge.apply(*own, on("http", to(OWN, INNER)), on("inner", to("one")))
    assert edge.said("shop.example.com") == edge.said("shop.example.com", port=INNER) == "one"


def test_what_came_through_too_many_proxies_goes_in_a_circle(edge: Edge, own: list[Given]) -> None:
    """By ways that nobody sees, as through a load balancer. The gateway itself adds one more."""
    edge.apply(*own, on("http", to("one")))
    hops = [f"192.0.2.{number}" for number in range(MOST_HOPS)]
    assert edge.get(x_forwarded_for=", ".join(hops[1:])).status == 200
    assert edge.get(x_forwarded_for=", ".join(hops)).status == 403
    assert edge.get(x_forwarded_for="x," * 1000).status == 403
    until(lambda: GONE_ROUND in {each.policy for each in edge.requests.newest()}, "a record that says so")


def test_copies_do_not_go_round(edge: Edge, own: list[Given]) -> None:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": to(OWN, HTTP)}}
    edge.apply(*own, on("http", to("two"), filters=[mirror]))
    before = len(edge.echoes["two"].seen)
    assert [edge.said("shop.example.com", f"/copied/{n}") for n in range(5)] == ["two"] * 5
    assert edge.echoes["two"].seen[before:] == [f"/copied/{n}" for n in range(5)]


def test_connections_do_not_go_round(edge: Edge, own: list[Given]) -> None:
    edge.apply(*own, on("tcp", to("also", TCP), kind="tcproutes"))
    flow = told(edge, lambda: edge.client.ask(edge.host.four, TCP))
    assert flow.error == "no healthy upstream"


def test_datagrams_do_not_go_round(edge: Edge, own: list[Given]) -> None:
    edge.apply(*own, on("udp", to("datagrams", UDP), kind="udproutes"))
    before = counted(edge, "udp.*downstream_sess_rx_datagrams$")
    with edge.client.datagrams(edge.host.four, UDP) as sending:
        for number in range(1, 4):
            sending.send(b"round")
            until(
                lambda number=number: counted(edge, "udp.*downstream_sess_rx_datagrams$") >= before + number,
                "it has come in",
            )
    assert counted(edge, "udp.*downstream_sess_rx_datagrams$") == before + 3


def counted(edge: Edge, pattern: str) -> int:
    """The sum of Envoy's counters whose names match."""
    lines = edge.admin(f"/stats?filter={pattern}").splitlines()
    return sum(int(each.rpartition(": ")[2]) for each in lines if each.rpartition(": ")[2].isdigit())
