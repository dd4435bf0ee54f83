"""Which flows an agent hands out."""

import pytest

from ambit.node.flows.record import End, Flow, Reporter
from ambit.node.serve.endpoints import flow_choice

FLOW = Flow(
    1.0,
    "node1",
    Reporter.SOURCE,
    End("10.244.1.2:40000", workload="client", namespace="shop"),
    End("10.244.1.3:80", workload="web", namespace="shop"),
)
LOST = Flow(
    1.0, "node1", Reporter.SOURCE, FLOW.source, End("10.96.0.5:80", service="shop/db.shop.svc.cluster.local")
)
DENIED = Flow(1.0, "node1", Reporter.SOURCE, End("192.0.2.1:40000"), FLOW.destination, decision="deny")


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
    ],
)
def test_a_query_chooses(query: dict[str, str], wanted: list[Flow]) -> None:
    assert [flow for flow in (FLOW, LOST, DENIED) if flow_choice(query)(flow)] == wanted
