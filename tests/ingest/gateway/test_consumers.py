"""A route of another namespace than its Service's changes what its own namespace sends, and nothing else."""

from typing import Any

import pytest

from ambit.model.http import Backend
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import bound, grpc_route, parent, route, to, waypoint
from tests.ingest.gateway.test_routes import WEB, conditions, entries, made
from tests.ingest.gateway.test_streams import tcp_route
from tests.ingest.test_mesh import compiler

REFUSED = ("False", "UnsupportedValue")
OF = {**parent("web"), "namespace": "default"}
HTTP = {"name": "http", "port": 80, "appProtocol": "http"}
ADMIN = {"name": "http-admin", "port": 9090, "appProtocol": "http"}
DATABASE = {"name": "tcp-db", "port": 5432, "protocol": "TCP"}
REWRITE = {
    "type": "URLRewrite",
    "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/admin"}},
}
FORGED = {
    "type": "RequestHeaderModifier",
    "requestHeaderModifier": {"set": [{"name": "x-user", "value": "root"}]},
}
TOLD = {
    "type": "ResponseHeaderModifier",
    "responseHeaderModifier": {"set": [{"name": "x-by", "value": "shop"}]},
}


def consumer(*rules: dict[str, Any], **more: Any) -> Given:
    return route(*rules, **{"namespace": "shop", "parents": (OF,), **more})


def with_ports(*ports: dict[str, Any]) -> Given:
    return bound(service("web", {"app": "web"}, ports=list(ports)), "waypoint")


@pytest.mark.parametrize("filters", [REWRITE, FORGED])
@pytest.mark.parametrize("of_backend", [False, True])
def test_requests_for_the_service_are_not_changed_after_its_rules_have_decided(
    filters: dict[str, Any], of_backend: bool
) -> None:
    backend = to("web", namespace="default")
    if of_backend:
        compiled = made(consumer({"backendRefs": [{**backend, "filters": [filters]}]}))
    else:
        compiled = made(consumer({"filters": [filters], "backendRefs": [backend]}))
    assert not compiled.routes
    assert conditions(compiled, "HTTPRoute shop/route")["Accepted"] == REFUSED


def test_a_rule_that_would_change_them_is_answered_with_500_beside_others() -> None:
    rules = (
        {
            "matches": [{"method": "GET"}],
            "filters": [FORGED],
            "backendRefs": [to("web", namespace="default")],
        },
    )
    compiled = made(consumer(*rules, {"backendRefs": [to("ab")]}))
    assert [each.action.status for each in entries(compiled) if not each.action.backends] == [500, 404]


def test_answers_are_the_consumers_to_change() -> None:
    compiled = made(consumer({"filters": [TOLD], "backendRefs": [to("web", namespace="default")]}))
    assert entries(compiled)[0].action.backends == (Backend(WEB, 80),)


def test_a_producer_changes_requests() -> None:
    compiled = made(route({"filters": [REWRITE, FORGED], "backendRefs": [to("web")]}))
    (entry,) = entries(compiled)
    assert entry.action.rewrite is not None


def test_another_port_has_rules_of_its_own() -> None:
    """Requests would be let in by those of the port they were sent to."""
    rule = {"backendRefs": [to("web", 9090, namespace="default")]}
    here = compiler(with_ports(HTTP, ADMIN), waypoint(), consumer(rule, parents=({**OF, "port": 80},)))
    assert not here.routes
    assert conditions(here, "HTTPRoute shop/route")["Accepted"] == REFUSED
    every = compiler(with_ports(HTTP, ADMIN), waypoint(), consumer(rule))
    assert list(every.routes) == [f"{WEB}:9090"]


def test_a_port_of_bytes_is_none_of_requests_by_somebody_elses_route() -> None:
    rule = {"backendRefs": [to("ab")]}
    compiled = compiler(
        with_ports(DATABASE), service("ab", {"app": "ab"}, namespace="shop"), waypoint(), consumer(rule)
    )
    assert not compiled.routes
    assert conditions(compiled, "HTTPRoute shop/route")["Accepted"] == REFUSED


def test_no_route_of_the_services_own_namespace_conflicts_with_a_consumers() -> None:
    own = route({"backendRefs": [to("web")]})
    theirs = grpc_route({"backendRefs": [to("ab")]}, namespace="shop", name="theirs", parents=(OF,))
    alone, beside = made(own), made(own, theirs)
    assert conditions(beside) == conditions(alone)
    assert [each.name for each in entries(alone)] == [
        each.name for each in entries(beside) if not each.match.source_namespaces
    ]


def test_bytes_are_for_the_services_own_namespace() -> None:
    theirs = tcp_route(to("ab", 5432), namespace="shop", name="theirs", parents=({**OF, "port": 5432},))
    compiled = compiler(with_ports(DATABASE), waypoint(), theirs)
    assert not compiled.routes
    assert conditions(compiled, "TCPRoute shop/theirs")["Accepted"] == REFUSED


@pytest.mark.parametrize(("own", "status"), [("shop", None), ("third", 500)])
def test_hosts_are_those_of_its_own_namespace(own: str, status: int | None) -> None:
    """Another's would be called by the waypoint, with its identity."""
    outside = (
        "serviceentries.networking.istio.io",
        {
            "metadata": {"name": "bank", "namespace": own},
            "spec": {"hosts": ["bank.test"], "ports": [{"number": 80, "name": "http"}], "resolution": "DNS"},
        },
    )
    named = {"group": "networking.istio.io", "kind": "Hostname", "name": "bank.test", "port": 80}
    compiled = made(outside, consumer({"backendRefs": [named]}))
    (backend,) = entries(compiled)[0].action.backends
    assert bool(backend.service) is (status is None)


def test_a_mirror_is_another_port_of_the_service_as_well() -> None:
    mirror = {
        "type": "RequestMirror",
        "requestMirror": {"backendRef": to("web", 9090, namespace="default")},
    }
    rule = {"filters": [mirror], "backendRefs": [to("ab")]}
    compiled = compiler(with_ports(HTTP, ADMIN), waypoint(), consumer(rule, parents=({**OF, "port": 80},)))
    assert not compiled.routes
