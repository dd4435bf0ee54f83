"""Which of its own ports a gateway does not call, by whatever way they are named."""

import ipaddress
from typing import Any

from ambit.model.view import Snapshot
from ambit.plan.backends import of_hosts
from ambit.plan.l7.circles import Circles, circles
from tests.ingest.build import Given, endpoint_slice, pod, service
from tests.ingest.gateway.build import edge, listener, to, to_edge
from tests.ingest.test_mesh import compiler

POD, OWN, ELSE = map(ipaddress.ip_address, ("10.0.0.1", "10.96.8.1", "10.0.0.9"))
LABELS = {"gateway.networking.k8s.io/gateway-name": "edge"}
PORTS: list[dict[str, Any]] = [{"name": "http", "port": 8080, "targetPort": 80, "protocol": "TCP"}]
GATEWAY = [
    edge(listener("http", 80), listener("inner", 81)),
    pod("edge-1", str(POD), labels=LABELS, redirected=False, serviceAccountName="edge-ambit"),
    service("edge-ambit", LABELS, ip=str(OWN), ports=PORTS),
    service("written", None, ip="10.96.8.2"),
]


def found(*objects: Given, asked: frozenset[tuple[str, int]] = frozenset()) -> Circles:
    made = compiler(*GATEWAY, *objects)
    routes = {each.listener: each for each in made.listener_routes.values()}
    view = Snapshot(made.workloads.values(), made.services.values())
    hosts = (host for each in routes.values() for host in each.hosts)
    return circles(made.proxies["default/edge"], routes, {}, of_hosts(hosts), asked, view)


def written(address: str, port: int) -> Given:
    return endpoint_slice("written", address, port)


def leads(name: str, port: int = 80) -> Given:
    return to_edge({"backendRefs": [to(name, port)]}, parents=({"sectionName": "http"},))


def test_the_address_of_its_pod_and_that_of_its_service() -> None:
    for address, port in ((POD, 80), (OWN, 8080)):
        made = found(written(str(address), port), leads("written"))
        assert made.places == {(POD, 80), (OWN, 8080)}
        assert made.has(POD, 80)
        assert not made.has(POD, 81)


def test_what_is_none() -> None:
    assert not found(written(str(ELSE), 80), leads("written")).places
    assert not found(written(str(POD), 81), leads("written")).places
    assert not found(written(str(OWN), 8081), leads("written")).places


def test_who_is_asked_about_all_requests() -> None:
    key = "default/written.default.svc.cluster.local"
    made = found(written(str(POD), 81), asked=frozenset({(key, 80)}))
    assert made.places == {(POD, 81)}
