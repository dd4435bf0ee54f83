"""TCPRoutes, TLSRoutes and UDPRoutes of services: what becomes of each, and what waypoints are to do."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.http import Backend
from ambit.model.status import RouteStatus
from ambit.model.streams import Stream
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import GROUP, SERVICE, bound, grant, parent, route, to, waypoint
from tests.ingest.test_mesh import compiler

DB, V2 = "default/db.default.svc.cluster.local", "default/v2.default.svc.cluster.local"
FINE = {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
ON_DB = ({**SERVICE, "name": "db"},)


def tcp(name: str, **more: Any) -> Given:
    ports = [
        {"name": "tcp", "port": 5432, "protocol": "TCP"},
        {"name": "http", "port": 80, "protocol": "TCP"},
    ]
    return service(name, {"app": name}, ports=ports, **more)


def tcp_route(*backends: dict[str, Any], kind: str = "tcproutes", **more: Any) -> Given:
    return route({"backendRefs": list(backends)}, kind=kind, **{"parents": ON_DB, **more})


def tls_route(*backends: dict[str, Any], hosts: tuple[str, ...] = ("a.example.com",), **more: Any) -> Given:
    return tcp_route(*backends, kind="tlsroutes", hostnames=list(hosts), **more)


def made(*given: Given) -> MeshCompiler:
    return compiler(bound(tcp("db"), "waypoint"), tcp("v2"), tcp("ab", namespace="shop"), waypoint(), *given)


def streams(compiled: MeshCompiler, port: int = 5432) -> tuple[Stream, ...]:
    table = compiled.routes[f"{DB}:{port}"]
    assert not table.hosts
    return table.streams


def conditions(compiled: MeshCompiler, of: str = "TCPRoute default/route") -> dict[str, tuple[str, str]]:
    status = compiled.statuses[of]
    assert isinstance(status, RouteStatus)
    return {each.type: (each.status, each.reason) for each in status.parents[0].conditions}


def test_connections_are_shared_out() -> None:
    compiled = made(tcp_route(to("db", 5432, weight=9), to("v2", 5432), to("v2", 80, weight=0)))
    (stream,) = streams(compiled)
    assert (stream.name, str(stream.origin)) == ("default/route/0", "TCPRoute default/route")
    assert stream.backends == (Backend(DB, 5432, 9), Backend(V2, 5432))
    assert conditions(compiled) == FINE and not compiled.findings
    # A port that speaks HTTP is none of its.
    assert set(compiled.routes) == {f"{DB}:5432"}


def test_names_of_hellos() -> None:
    compiled = made(tls_route(to("v2", 5432), hosts=("A.example.com", "*.example.org")))
    assert streams(compiled)[0].hostnames == ("a.example.com", "*.example.org")
    assert conditions(compiled, "TLSRoute default/route") == FINE


def test_of_several_tcp_routes_the_oldest_counts_and_all_are_accepted() -> None:
    older = tcp_route(to("v2", 5432), name="older", created="2025-01-01T00:00:00Z")
    compiled = made(tcp_route(to("db", 5432), name="newer"), older)
    assert [each.name for each in streams(compiled)] == ["default/older/0"]
    assert conditions(compiled, "TCPRoute default/newer") == FINE


def test_tls_routes_are_told_in_the_order_of_their_age() -> None:
    older = tls_route(to("v2", 5432), name="older", created="2025-01-01T00:00:00Z")
    compiled = made(tls_route(to("db", 5432), name="newer", hosts=("a.example.com", "b.example.com")), older)
    assert [each.name for each in streams(compiled)] == ["default/older/0", "default/newer/0"]


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (to("missing", 5432), "BackendNotFound"),
        (to("v2", 81), "BackendNotFound"),
        (to("v2", 5432, group="example.com", kind="Other"), "InvalidKind"),
        (to("ab", 5432, namespace="shop"), "RefNotPermitted"),
    ],
)
def test_a_reference_that_leads_nowhere_refuses_its_share(backend: dict[str, Any], reason: str) -> None:
    compiled = made(tcp_route(backend, to("v2", 5432)))
    assert streams(compiled)[0].backends == (Backend("", 0), Backend(V2, 5432))
    assert conditions(compiled) == FINE | {"ResolvedRefs": ("False", reason)}
    assert [each.code for each in compiled.findings] == ["AMB0402"]


def test_another_namespace_permits_by_a_grant_for_this_kind() -> None:
    given = tcp_route(to("ab", 5432, namespace="shop"))
    compiled = made(given, grant("shop", "default", kind="TCPRoute"))
    assert streams(compiled)[0].backends == (Backend("shop/ab.shop.svc.cluster.local", 5432),)
    compiled = made(given, grant("shop", "default"))
    assert conditions(compiled)["ResolvedRefs"] == ("False", "RefNotPermitted")


@pytest.mark.parametrize(
    ("given", "of", "reason"),
    [
        (
            tcp_route(to("v2", 5432), parents=(parent("missing"),)),
            "TCPRoute default/route",
            "NoMatchingParent",
        ),
        (tcp_route(to("v2", 5432), parents=(parent("v2"),)), "TCPRoute default/route", "NoWaypoint"),
        (
            tcp_route(to("v2", 5432), parents=(parent("db", port=80),)),
            "TCPRoute default/route",
            "UnsupportedValue",
        ),
        (
            tcp_route(to("v2", 5432, weight=-1)),
            "TCPRoute default/route",
            "UnsupportedValue",
        ),
        (tls_route(to("v2", 5432), hosts=("a b",)), "TLSRoute default/route", "UnsupportedValue"),
        (tls_route(to("v2", 5432), hosts=()), "TLSRoute default/route", "UnsupportedValue"),
        (tcp_route(to("v2", 5432), kind="udproutes"), "UDPRoute default/route", "UnsupportedValue"),
        (
            tcp_route(to("ab", 5432), namespace="shop", parents=(parent("db", namespace="default"),)),
            "TCPRoute shop/route",
            "UnsupportedValue",
        ),
    ],
)
def test_a_route_that_is_not_taken_says_why(given: Given, of: str, reason: str) -> None:
    compiled = made(given)
    assert conditions(compiled, of)["Accepted"] == ("False", reason)
    assert not compiled.routes
    # Its references are looked at as well: a UDPRoute's backend has no such UDP port.
    assert "AMB0401" in [each.code for each in compiled.findings]


def test_one_bad_name_of_several_is_left_out() -> None:
    compiled = made(tls_route(to("v2", 5432), hosts=("a b", "b.example.com")))
    assert streams(compiled)[0].hostnames == ("b.example.com",)
    said = conditions(compiled, "TLSRoute default/route")
    assert said["PartiallyInvalid"] == ("True", "UnsupportedValue")


def test_of_several_kinds_on_a_port_one_counts() -> None:
    http = route({"backendRefs": [to("v2", 80)]}, name="http", parents=(parent("db", port=5432),))
    tls, plain = tls_route(to("db", 5432), name="tls"), tcp_route(to("v2", 5432), name="tcp")
    compiled = made(http, tls, plain)
    assert [each.name for each in compiled.routes[f"{DB}:5432"].hosts[0].entries] == ["default/http/0"]
    for of in ("TLSRoute default/tls", "TCPRoute default/tcp"):
        assert conditions(compiled, of)["Accepted"] == ("False", "Conflicted")
    compiled.apply([Change(f"httproutes.{GROUP}", "default/http")])
    assert [each.name for each in streams(compiled)] == ["default/tls/0"]
    assert conditions(compiled, "TCPRoute default/tcp")["Accepted"] == ("False", "Conflicted")
    compiled.apply([Change(f"tlsroutes.{GROUP}", "default/tls")])
    assert [each.name for each in streams(compiled)] == ["default/tcp/0"]
    assert conditions(compiled, "TCPRoute default/tcp") == FINE
