"""Routes of services: what becomes of each, and what waypoints are to do."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.http import (
    Action,
    Backend,
    Cors,
    Entry,
    HeaderChanges,
    Mirror,
    NamedMatch,
    PathChange,
    PathKind,
    PathMatch,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    SessionPersistence,
)
from ambit.model.status import RouteStatus
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import GROUP, bound, grant, grpc_route, parent, route, to, waypoint
from tests.ingest.test_mesh import change, compiler

WEB, V2 = "default/web.default.svc.cluster.local", "default/v2.default.svc.cluster.local"
AB = "shop/ab.shop.svc.cluster.local"
BASE: tuple[Given, ...] = (
    bound(service("web", {"app": "web"}), "waypoint"),
    service("v2", {"app": "v2"}),
    service("ab", {"app": "ab"}, namespace="shop"),
    waypoint(),
)
REDIRECT_ALL: dict[str, Any] = {
    "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "other"}}]
}


def made(*given: Given) -> MeshCompiler:
    return compiler(*BASE, *given)


def entries(compiled: MeshCompiler, port: int = 80, of: str = WEB) -> tuple[Entry, ...]:
    (host,) = compiled.routes[f"{of}:{port}"].hosts
    assert host.domains == ("*",)
    return host.entries


def action(rule: dict[str, Any]) -> Action:
    (entry,) = entries(made(route(rule)))
    return entry.action


def match(**given: Any) -> RequestMatch:
    (entry,) = entries(made(route({"matches": [given], "backendRefs": [to("v2")]})))
    return entry.match


def conditions(
    compiled: MeshCompiler, of: str = "HTTPRoute default/route", index: int = 0
) -> dict[str, tuple[str, str]]:
    status = compiled.statuses[of]
    assert isinstance(status, RouteStatus)
    return {each.type: (each.status, each.reason) for each in status.parents[index].conditions}


FINE = {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}


def test_a_split_by_weight() -> None:
    compiled = made(
        route({"name": "split", "backendRefs": [to("web", weight=9), to("v2"), to("v2", weight=0)]})
    )
    (entry,) = entries(compiled)
    assert entry.name == "default/route/split" and entry.match == RequestMatch()
    assert entry.action == Action(backends=(Backend(WEB, 80, 9), Backend(V2, 80, 1)))
    assert str(entry.origin) == "HTTPRoute default/route"
    assert conditions(compiled) == FINE and not compiled.findings


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"path": {"type": "Exact", "value": "/a/"}}, RequestMatch(PathMatch(PathKind.EXACT, "/a/"))),
        ({"path": {"value": "/a/"}}, RequestMatch(PathMatch(PathKind.PREFIX, "/a"))),
        ({"path": {"type": "PathPrefix", "value": "/"}}, RequestMatch()),
        (
            {"path": {"type": "RegularExpression", "value": "/v[0-9]+"}},
            RequestMatch(PathMatch(PathKind.REGEX, "/v[0-9]+")),
        ),
        ({"method": "GET"}, RequestMatch(method="GET")),
        (
            {"headers": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}]},
            RequestMatch(headers=(NamedMatch("x-a", "1"),)),
        ),
        (
            {"headers": [{"name": "a", "value": "1|2", "type": "RegularExpression"}]},
            RequestMatch(headers=(NamedMatch("a", "1|2", is_regex=True),)),
        ),
        (
            {"queryParams": [{"name": "A", "value": "1"}, {"name": "a", "value": "2"}]},
            RequestMatch(queries=(NamedMatch("A", "1"), NamedMatch("a", "2"))),
        ),
    ],
)
def test_a_match(given: dict[str, Any], expected: RequestMatch) -> None:
    assert match(**given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, RequestMatch()),
        ({"method": {"service": "a.B"}}, RequestMatch(PathMatch(PathKind.PREFIX, "/a.B"))),
        ({"method": {"service": "a.B", "method": "C"}}, RequestMatch(PathMatch(PathKind.EXACT, "/a.B/C"))),
        ({"method": {"method": "C"}}, RequestMatch(PathMatch(PathKind.REGEX, "/[^/]+/C"))),
        (
            {"method": {"type": "RegularExpression", "service": "a|b", "method": "C"}},
            RequestMatch(PathMatch(PathKind.REGEX, "/(?:a|b)/(?:C)")),
        ),
        ({"headers": [{"name": "A", "value": "1"}]}, RequestMatch(headers=(NamedMatch("a", "1"),))),
    ],
)
def test_a_match_of_grpc(given: dict[str, Any], expected: RequestMatch) -> None:
    (entry,) = entries(made(grpc_route({"matches": [given], "backendRefs": [to("v2")]})))
    assert entry.match == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {
                    "set": [{"name": "A", "value": "1"}],
                    "add": [{"name": "B", "value": "2"}],
                    "remove": ["C"],
                },
            },
            {"request_headers": HeaderChanges((("a", "1"),), (("b", "2"),), ("c",))},
        ),
        (
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["A"]}},
            {"response_headers": HeaderChanges(remove=("a",))},
        ),
        (
            {"type": "RequestMirror", "requestMirror": {"backendRef": to("v2"), "percent": 20}},
            {"mirrors": (Mirror(V2, 80, 20),)},
        ),
        (
            {
                "type": "RequestMirror",
                "requestMirror": {"backendRef": to("v2"), "fraction": {"numerator": 1, "denominator": 3}},
            },
            {"mirrors": (Mirror(V2, 80, 1, 3),)},
        ),
        (
            {
                "type": "URLRewrite",
                "urlRewrite": {
                    "hostname": "h",
                    "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"},
                },
            },
            {"rewrite": Rewrite("h", PathChange("/x", is_prefix=True))},
        ),
        (
            {"type": "CORS", "cors": {"allowOrigins": ["*"], "allowCredentials": True}},
            {"cors": Cors(("*",), credentials=True)},
        ),
    ],
)
def test_a_filter(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert action({"filters": [given], "backendRefs": [to("v2")]}) == Action(
        backends=(Backend(V2, 80),), **expected
    )


def test_a_redirect_has_no_backends() -> None:
    redirect = {"scheme": "https", "port": 8443, "statusCode": 301, "path": {"type": "ReplaceFullPath"}}
    found = action({"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]})
    assert found == Action(redirect=Redirect("https", "", PathChange(""), 8443, 301))


def test_filters_of_a_backend() -> None:
    change_it = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["a"]}}
    found = action({"backendRefs": [to("v2", filters=[change_it])]})
    assert found.backends == (Backend(V2, 80, request_headers=HeaderChanges(remove=("a",))),)


def test_limits() -> None:
    found = action(
        {
            "timeouts": {"request": "1m500ms", "backendRequest": "0s"},
            "retry": {"codes": [500], "attempts": 3, "backoff": "10ms"},
            "sessionPersistence": {
                "sessionName": "s",
                "absoluteTimeout": "1h",
                "cookieConfig": {"lifetimeType": "Permanent"},
            },
            "backendRefs": [to("v2")],
        }
    )
    assert (found.request_timeout, found.backend_timeout) == (60_500, 0)
    assert found.retry == Retry(3, (500,), 10)
    assert found.session == SessionPersistence("s", lifetime=3_600_000)


@pytest.mark.parametrize(("attempts", "is_accepted"), [(100, True), (101, False), (-1, False)])
def test_a_request_is_not_tried_for_ever(attempts: int, is_accepted: bool) -> None:
    compiled = made(route({"retry": {"attempts": attempts}, "backendRefs": [to("v2")]}))
    said = ("True", "Accepted") if is_accepted else ("False", "UnsupportedValue")
    assert conditions(compiled)["Accepted"] == said


@pytest.mark.parametrize(
    "session",
    [
        {"absoluteTimeout": "1h"},
        {"type": "Header", "absoluteTimeout": "1h"},
        {"cookieConfig": {"lifetimeType": "Permanent"}},
        {"type": "Elsewhere"},
    ],
)
def test_a_session_that_nobody_would_end_is_refused(session: dict[str, Any]) -> None:
    compiled = made(route({"sessionPersistence": session, "backendRefs": [to("v2")]}))
    assert conditions(compiled)["Accepted"] == ("False", "UnsupportedValue")


@pytest.mark.parametrize("rule", [{}, {"backendRefs": []}, {"backendRefs": [to("v2", weight=0)]}])
def test_without_a_backend_the_answer_is_500(rule: dict[str, Any]) -> None:
    assert action(rule) == Action(status=500)


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (to("missing"), "BackendNotFound"),
        (to("v2", 81), "BackendNotFound"),
        ({"name": "v2"}, "BackendNotFound"),
        (to("v2", group="example.com", kind="Other"), "InvalidKind"),
        (to("ab", namespace="shop"), "RefNotPermitted"),
        (to("missing", namespace="shop"), "RefNotPermitted"),
        (to("example.com", group="networking.istio.io", kind="Hostname"), "BackendNotFound"),
    ],
)
def test_a_reference_that_leads_nowhere_answers_its_share_with_500(
    backend: dict[str, Any], reason: str
) -> None:
    compiled = made(route({"backendRefs": [backend, to("v2")]}))
    (entry,) = entries(compiled)
    assert entry.action.backends == (Backend("", 0), Backend(V2, 80))
    assert conditions(compiled) == FINE | {"ResolvedRefs": ("False", reason)}
    assert [each.code for each in compiled.findings] == ["AMB0402"]


@pytest.mark.parametrize(
    ("given", "permitted"),
    [
        (grant("shop", "default"), True),
        (grant("shop", "default", name="ab"), True),
        (grant("shop", "default", name="other"), False),
        (grant("shop", "elsewhere"), False),
        (grant("shop", "default", kind="GRPCRoute"), False),
        (grant("shop", "default", to_kind="Secret"), False),
        (grant("default", "default"), False),
    ],
)
def test_another_namespace_permits_by_a_grant(given: Given, permitted: bool) -> None:
    compiled = made(route({"backendRefs": [to("ab", namespace="shop")]}), given)
    backend = Backend(AB, 80) if permitted else Backend("", 0)
    assert entries(compiled)[0].action.backends == (backend,)
    compiled.apply([Change(f"referencegrants.{GROUP}", f"{given[1]['metadata']['namespace']}/grant")])
    assert entries(compiled)[0].action.backends == (Backend("", 0),)


@pytest.mark.parametrize(
    ("parents", "reason"),
    [
        ((parent("missing"),), "NoMatchingParent"),
        ((parent(port=81),), "NoMatchingParent"),
        ((parent(sectionName="grpc"),), "NoMatchingParent"),
        ((parent("v2"),), "NoWaypoint"),
        (({"name": "waypoint"},), "NotAllowedByListeners"),
    ],
)
def test_a_parent_that_takes_no_route(parents: tuple[dict[str, Any], ...], reason: str) -> None:
    compiled = made(route({"backendRefs": [to("v2")]}, parents=parents))
    assert not compiled.routes
    assert conditions(compiled) == FINE | {"Accepted": ("False", reason)}
    assert [each.code for each in compiled.findings] == ["AMB0401"]


def test_references_are_resolved_whatever_the_parent_says() -> None:
    compiled = made(route({"backendRefs": [to("none")]}, parents=(parent("v2"),)))
    assert conditions(compiled) == {
        "Accepted": ("False", "NoWaypoint"),
        "ResolvedRefs": ("False", "BackendNotFound"),
    }


def test_a_parent_that_is_not_ours_has_no_status_of_ours() -> None:
    compiled = made(route({}, parents=({"name": "somebodys-gateway"}, parent())))
    status = compiled.statuses["HTTPRoute default/route"]
    assert isinstance(status, RouteStatus) and [each.parent.kind for each in status.parents] == ["Service"]


def test_a_headless_service_is_no_parent() -> None:
    headless = service("web", {"app": "web"}, ip="None")
    compiled = compiler(bound(headless, "waypoint"), waypoint(), route({}))
    assert conditions(compiled)["Accepted"] == ("False", "UnsupportedValue")


def two_ports() -> Given:
    ports = [{"name": name, "port": port, "protocol": "TCP"} for name, port in (("http", 80), ("alt", 8080))]
    return bound(service("web", {"app": "web"}, ports=ports), "waypoint")


@pytest.mark.parametrize(
    ("given", "ports"),
    [({}, {80, 8080}), ({"port": 8080}, {8080}), ({"sectionName": "alt"}, {8080}), ({"port": 80}, {80})],
)
def test_a_route_is_for_all_ports_or_one(given: dict[str, Any], ports: set[int]) -> None:
    compiled = compiler(two_ports(), waypoint(), route({}, parents=(parent(**given),)))
    assert set(compiled.routes) == {f"{WEB}:{port}" for port in ports}


def test_grpc_routes_go_before_http_routes_of_a_port() -> None:
    http = route(REDIRECT_ALL, name="http")
    grpc = grpc_route({"backendRefs": [to("web")]}, name="grpc", parents=(parent(port=80),))
    compiled = compiler(two_ports(), waypoint(), http, grpc)
    assert entries(compiled)[0].name == "default/grpc/0"
    assert entries(compiled, 8080)[0].name == "default/http/0"
    assert conditions(compiled, "HTTPRoute default/http") == FINE
    compiled = made(http, grpc)
    assert conditions(compiled, "HTTPRoute default/http")["Accepted"] == ("False", "Conflicted")
    compiled.apply([Change(f"grpcroutes.{GROUP}", "default/grpc")])
    assert conditions(compiled, "HTTPRoute default/http") == FINE
    assert entries(compiled)[0].name == "default/http/0"


def test_a_rule_that_cannot_be_carried_out_answers_500_and_the_others_count() -> None:
    extension = {
        "type": "ExtensionRef",
        "extensionRef": {"group": "example.com", "kind": "Filter", "name": "x"},
    }
    bad = {"matches": [{"path": {"value": "/a"}}], "filters": [extension], "backendRefs": [to("v2")]}
    compiled = made(route(bad, {"backendRefs": [to("v2")]}))
    first, second = entries(compiled)
    assert first.action == Action(status=500) and second.action.backends
    assert conditions(compiled) == FINE | {"PartiallyInvalid": ("True", "UnsupportedValue")}
    assert [each.code for each in compiled.findings] == ["AMB0403"]
    compiled = made(route(bad))
    assert not compiled.routes
    assert conditions(compiled) == FINE | {"Accepted": ("False", "UnsupportedValue")}


@pytest.mark.parametrize(
    "match",
    [
        {"path": {"type": "RegularExpression", "value": "(?=a)"}},
        {"headers": [{"name": "a", "value": "(", "type": "RegularExpression"}]},
        {"path": {"type": "Nonsense", "value": "/"}},
        {"path": {"type": "RegularExpression", "value": ""}},
        {"path": {"type": "PathPrefix", "value": "/a?b"}},
    ],
)
def test_a_match_that_cannot_be_made_is_left_out(match: dict[str, Any]) -> None:
    compiled = made(route({"matches": [match, {"method": "GET"}], "backendRefs": [to("v2")]}, {}))
    assert [each.match.method for each in entries(compiled)] == ["GET", ""]
    assert conditions(compiled)["PartiallyInvalid"] == ("True", "UnsupportedValue")


@pytest.mark.parametrize(
    "rule",
    [
        {"timeouts": {"request": "soon"}},
        {"sessionPersistence": {"type": "Nonsense"}},
        {"filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "Nonsense"}}}]},
        {"filters": [REDIRECT_ALL["filters"][0], {"type": "URLRewrite", "urlRewrite": {"hostname": "h"}}]},
        {"backendRefs": [to("v2", filters=[{"type": "CORS", "cors": {}}])]},
        {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [":path"]}}]},
        {"retry": {"attempts": -1}, "backendRefs": [to("v2")]},
    ],
)
def test_a_part_that_cannot_be_carried_out_is_never_left_out(rule: dict[str, Any]) -> None:
    compiled = made(route(rule, {"backendRefs": [to("v2")]}))
    assert entries(compiled)[0].action == Action(status=500)
    assert conditions(compiled)["PartiallyInvalid"] == ("True", "UnsupportedValue")


def consumer(*rules: dict[str, Any], **more: Any) -> Given:
    return route(*rules, namespace="shop", parents=(parent(namespace="default"),), **more)


def test_a_route_of_another_namespace_concerns_its_own_requests_only() -> None:
    compiled = made(consumer({"matches": [{"method": "GET"}], "backendRefs": [to("ab")]}))
    mine, no_match, others = entries(compiled)
    assert mine.match == RequestMatch(method="GET", source_namespaces=("shop",))
    assert mine.action.backends == (Backend(AB, 80),)
    assert (no_match.match, no_match.action) == (
        RequestMatch(source_namespaces=("shop",)),
        Action(status=404),
    )
    assert (others.match, others.action) == (RequestMatch(), Action(backends=(Backend(WEB, 80),)))
    compiled.apply([change(route({"backendRefs": [to("v2")]}))])
    assert [each.name for each in entries(compiled)] == [
        "shop/route/0",
        "shop/-/no-match",
        "default/route/0",
    ]


def test_a_consumer_may_send_to_its_parent_and_to_nothing_else_of_that_namespace() -> None:
    backends = [to("web", namespace="default"), to("v2", namespace="default")]
    compiled = made(consumer({"backendRefs": backends}))
    assert entries(compiled)[0].action.backends == (Backend(WEB, 80), Backend("", 0))
    assert conditions(compiled, "HTTPRoute shop/route")["ResolvedRefs"] == ("False", "RefNotPermitted")


def entry_of(host: str, namespace: str = "default", **spec: Any) -> Given:
    return "serviceentries.networking.istio.io", {
        "metadata": {"name": "outside", "namespace": namespace},
        "spec": {
            "hosts": [host],
            "ports": [{"number": 443, "name": "http", "protocol": "HTTP"}],
            "resolution": "DNS",
            **spec,
        },
    }


def test_a_host_of_a_service_entry_is_parent_and_backend() -> None:
    outside = bound(entry_of("api.example.com"), "waypoint")
    back = to("api.example.com", 443, group="networking.istio.io", kind="Hostname")
    parents = ({"group": "networking.istio.io", "kind": "ServiceEntry", "name": "outside"},)
    compiled = made(outside, route({"backendRefs": [back]}, parents=parents))
    (entry,) = entries(compiled, 443, "default/api.example.com")
    assert entry.action.backends == (Backend("default/api.example.com", 443),)
    assert conditions(compiled) == FINE


def test_a_hidden_host_of_another_namespace_is_no_backend() -> None:
    back = to("api.example.com", 443, group="networking.istio.io", kind="Hostname")
    compiled = made(entry_of("api.example.com", "shop", exportTo=["."]), route({"backendRefs": [back]}))
    assert entries(compiled)[0].action.backends == (Backend("", 0),)
    compiled = made(entry_of("api.example.com", "shop"), route({"backendRefs": [back]}))
    assert entries(compiled)[0].action.backends == (Backend("shop/api.example.com", 443),)


def test_a_backend_that_comes_and_goes_moves_its_tables_only() -> None:
    compiled = made(route({"backendRefs": [to("later")]}))
    assert entries(compiled)[0].action.backends == (Backend("", 0),)
    delta = compiled.apply([change(service("later", {"app": "x"}))])
    assert list(delta.routes.upserts) == [f"{WEB}:80"]
    assert list(delta.statuses.upserts) == ["HTTPRoute default/route"]
    delta = compiled.apply([change(service("unrelated", {"app": "x"}))])
    assert not delta.routes and not delta.statuses
    delta = compiled.apply([Change("services", "default/web")])
    assert delta.routes.removals == (f"{WEB}:80",)


def test_a_route_whose_service_loses_its_waypoint_says_so() -> None:
    compiled = made(route({"backendRefs": [to("v2")]}))
    compiled.apply([change(service("web", {"app": "web"}))])
    assert conditions(compiled)["Accepted"] == ("False", "NoWaypoint") and not compiled.routes
