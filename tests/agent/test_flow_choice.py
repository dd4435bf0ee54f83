"""Which flows an agent hands out."""

import pytest

from ambit.agent.flow_choice import flow_choice
from ambit.agent.record import End, Flow, Reporter, RequestPart

FLOW = Flow(
    1.0,
    "node1",
    Reporter.SOURCE,
    End("10.244.1.2:40000", workload="client", namespace="shop"),
    End("10.244.1.3:80", workload="web", namespace="shop"),
)
LOST = Flow(
    1.0,
    "node1",
    Reporter.SOURCE,
    FLOW.source,
    End("10.96.0.5:80", service="shop/db.shop.svc.cluster.local"),
    error="no healthy upstream",
)
STRANGER = End("192.0.2.1:40000")
DENIED = Flow(1.0, "node1", Reporter.SOURCE, STRANGER, FLOW.destination, decision="deny", milliseconds=500)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, [FLOW, LOST, DENIED]),
        ({"limit": "5", "follow": "1"}, [FLOW, LOST, DENIED]),
        ({"denied": "1"}, [DENIED]),
        ({"from": "shop/client"}, [FLOW, LOST]),
        ({"to": "shop/db"}, [LOST]),
        ({"from": "192.0.2.1"}, [DENIED]),
        ({"to": "web", "denied": "true"}, [DENIED]),
        ({"to": "client"}, []),
        ({"namespace": "shop"}, [FLOW, LOST, DENIED]),
        ({"namespace": "sho"}, []),
        ({"namespace": "shop", "from": "192.0.2.1"}, [DENIED]),
        ({"pod": "shop/client"}, [FLOW, LOST]),
        ({"pod": "shop/web"}, [FLOW, DENIED]),
        ({"port": "80"}, [FLOW, LOST, DENIED]),
        ({"port": "8"}, []),
        ({"verdict": "allowed"}, [FLOW]),
        ({"verdict": "denied"}, [DENIED]),
        ({"verdict": "failed"}, [LOST]),
        ({"since": "1.5"}, [DENIED]),
    ],
)
def test_a_query_chooses(query: dict[str, str], wanted: list[Flow]) -> None:
    assert [flow for flow in (FLOW, LOST, DENIED) if flow_choice(query)(flow)] == wanted


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"requests": "1"}, True),
        ({"path": "/admin"}, True),
        ({"path": "/other"}, False),
        ({"code": "404"}, True),
        ({"code": "4xx"}, True),
        ({"code": "5XX"}, False),
        ({"from": "shop/web"}, True),
    ],
)
def test_requests_are_chosen_by_what_was_asked_and_answered(query: dict[str, str], wanted: bool) -> None:
    request = Flow(
        1.0,
        "node1",
        Reporter.WAYPOINT,
        End("10.244.1.2:40000", workload_name="web", namespace="shop"),
        FLOW.destination,
        request=RequestPart(path="/v1/admin", code=404),
    )
    assert [flow for flow in (FLOW, request) if flow_choice(query)(flow)] == ([request] if wanted else [])


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"namespace": "shop"}, True),
        ({"namespace": "sho"}, False),
        ({"to": "shop/front"}, True),
        ({"to": "/front"}, True),
        ({"to": "shop/web"}, False),
        ({"from": "shop/front"}, False),
    ],
)
def test_what_a_gateway_answers_itself_is_to_the_gateway(query: dict[str, str], wanted: bool) -> None:
    """A request that no route takes leads to no service."""
    found = Flow(
        1.0,
        "node1",
        Reporter.GATEWAY,
        STRANGER,
        End("listener:80"),
        hop="answered",
        proxy="shop/front",
        request=RequestPart(path="/", code=404),
    )
    assert flow_choice(query)(found) == wanted


@pytest.mark.parametrize(
    "query", [{"code": "good"}, {"code": "x"}, {"port": "http"}, {"since": "yesterday"}, {"verdict": "maybe"}]
)
def test_a_query_that_means_nothing_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"verdict|http|yesterday|code"):
        flow_choice(query)
