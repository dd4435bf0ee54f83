"""Waypoints without pods: `ambit.ingest.inline`, and what their Gateways say."""

import pytest

from ambit.ingest.mesh import Change
from ambit.model.proxy import ProxyKind
from ambit.model.status import GatewayStatus, RouteStatus
from tests.ingest.build import pod, service
from tests.ingest.gateway import test_backend_tls as backend_tls
from tests.ingest.gateway.build import bound, gateway_class, route, to, waypoint
from tests.ingest.test_mesh import compiler
from tests.ingest.test_unenforced import WEB_SERVICE, policy

KEY = "default/web.default.svc.cluster.local"
BOUND = bound(service("web", {"app": "web"}), "waypoint")
INLINE = waypoint(of_class="ambit-inline")


def test_a_bound_service_has_its_tables_instead_of_a_waypoint() -> None:
    made = compiler(BOUND, INLINE, route({"backendRefs": [to("web")]}))
    found = made.services[KEY]
    assert found.waypoint is None
    assert found.inline == (made.routes[f"{KEY}:80"],)
    status = made.statuses["HTTPRoute default/route"]
    assert isinstance(status, RouteStatus)
    assert all(each.holds for parent in status.parents for each in parent.conditions)


def test_what_may_go_past_a_waypoint_is_routed_nevertheless() -> None:
    """There is no waypoint that might not be ready."""
    resource, body = BOUND
    labels = {**body["metadata"]["labels"], "ambit.io/fail-open": "true"}
    lenient = resource, {**body, "metadata": {**body["metadata"], "labels": labels}}
    assert compiler(lenient, INLINE).services[KEY].inline == ()


def test_its_gateway_is_programmed_without_pods_and_address() -> None:
    made = compiler(INLINE)
    assert made.proxies["default/waypoint"].kind is ProxyKind.INLINE
    status = made.statuses["Gateway default/waypoint"]
    assert isinstance(status, GatewayStatus)
    assert {each.type: each.holds for each in status.conditions} == {"Accepted": True, "Programmed": True}
    assert status.addresses == ()


def test_a_route_that_goes_takes_its_table_with_it() -> None:
    given = route({"backendRefs": [to("web")]})
    made = compiler(BOUND, INLINE, given)
    made.apply([Change(given[0], "default/route")])
    assert made.services[KEY].inline == ()
    made.apply([Change(INLINE[0], "default/waypoint")])
    found = made.services[KEY]
    assert found.inline is None and found.waypoint is not None


@pytest.mark.parametrize("takes", ["workload", "all"])
def test_pods_by_their_own_addresses_have_no_inline_waypoint(takes: str) -> None:
    """What asks for it nevertheless has a waypoint that is nowhere."""
    made = compiler(BOUND, waypoint(of_class="ambit-inline", takes=takes))
    assert not made.proxies
    found = made.services[KEY]
    assert found.inline is None and found.waypoint is not None


def test_routes_of_bytes_are_not_for_it() -> None:
    """A Gateway class that cannot do what a route says does not say that it does."""
    ports = [{"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    web = bound(service("web", {"app": "web"}, ports=ports), "waypoint")
    made = compiler(web, INLINE, route({"backendRefs": [to("web")]}, kind="tcproutes"))
    status = made.statuses["TCPRoute default/route"]
    assert isinstance(status, RouteStatus)
    (accepted,) = [each for each in status.parents[0].conditions if each.type == "Accepted"]
    assert not accepted.holds and "inline" in accepted.message
    assert not made.routes


def test_a_policy_for_the_service_closes_it() -> None:
    """Nodes do not enforce policies about requests."""
    made = compiler(BOUND, INLINE, pod("web", "10.1.0.1", labels={"app": "web"}), policy(WEB_SERVICE))
    found = made.services[KEY]
    assert found.inline is None
    assert found.waypoint is not None


@pytest.mark.parametrize(
    "target",
    [
        {"kind": "Service", "name": "web"},
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"},
    ],
)
def test_rules_about_tokens_close_it(target: dict[str, str]) -> None:
    spec = {"targetRefs": [target], "jwtRules": [{"issuer": "me", "jwks": '{"keys": []}'}]}
    rules = (
        "requestauthentications.security.istio.io",
        {
            "metadata": {"name": "tokens", "namespace": "default"},
            "spec": spec,
        },
    )
    found = compiler(BOUND, INLINE, rules).services[KEY]
    assert found.inline is None and found.waypoint is not None


@pytest.mark.parametrize(("backend", "port"), [("web", 80), ("db", 5432)])
def test_tls_to_a_backend_closes_it(backend: str, port: int) -> None:
    db = service("db", {"app": "db"}, ip="10.96.0.8", port=5432)
    to_db = route({"backendRefs": [to("db", 5432)]})
    tls = backend_tls.policy(target={"name": backend})
    found = compiler(BOUND, db, to_db, INLINE, backend_tls.roots(), tls).services[KEY]
    assert found.inline is None and found.waypoint is not None


def test_a_class_is_inline_by_its_controller() -> None:
    mine = gateway_class("mine", "ambit.io/inline-controller")
    assert compiler(waypoint(of_class="mine"), mine).proxies["default/waypoint"].kind is ProxyKind.INLINE
    other = gateway_class("ambit-inline", "someone.else/controller")
    assert not compiler(INLINE, other).proxies
