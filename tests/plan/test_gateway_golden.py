"""What the Envoy of a gateway gets where it differs from waypoints, as text. (That Envoy accepts it:
`tests/plan/gateway`.)"""

import ipaddress
from pathlib import Path

import pytest

from ambit.model.http import Backend
from ambit.model.proxy import Listener, ListenerRoutes, Protocol
from ambit.model.streams import Datagrams, Stream
from ambit.plan.l7 import datagrams
from ambit.plan.values import CLUSTER, ENDPOINTS, LISTENER
from tests.plan.as_text import content_of, text_of

GOLDEN = Path(__file__).parent.parent / "golden" / "gateway"
SHOWN = {LISTENER: "udp_listener", CLUSTER: "udp_cluster", ENDPOINTS: "udp_endpoints"}


@pytest.mark.parametrize("kind", SHOWN)
def test_golden(kind: str, pytestconfig: pytest.Config) -> None:
    service = "shop/dns.shop.svc.cluster.local"
    backends = (Backend(service, 53, 3), Backend("", 53))
    routes = ListenerRoutes("shop/front", "dns", streams=(Stream("shop/names/0", backends),))
    behind = Datagrams(service, 53, ((ipaddress.ip_address("10.244.1.2"), 5353),))
    listener = Listener("dns", 53, Protocol.UDP)
    made = {each.type_url: each for each in datagrams.resources(listener, routes, {behind.key: behind})}
    text = text_of(content_of(made[kind]))
    path = GOLDEN / f"{SHOWN[kind]}.yaml"
    if pytestconfig.getoption("--update-golden"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_is_unused() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SHOWN.values())
