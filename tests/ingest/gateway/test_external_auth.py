"""The filter `ExternalAuth` of routes: whom it names, and what cannot be had."""

from typing import Any

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from ambit.envoy import matchers
from ambit.ingest.gateway.external_auth import MOST_BODY
from ambit.model.http import Action, Backend, ExternalAuth
from ambit.model.policy import Exact
from ambit.model.provider import Authorizer, BodyInCheck, ProviderService
from tests.ingest.build import pod, service
from tests.ingest.gateway.build import grant, route, to, waypoint
from tests.ingest.gateway.test_consumers import HTTP, consumer, with_ports
from tests.ingest.gateway.test_inline import BOUND, INLINE, KEY
from tests.ingest.gateway.test_routes import AB, FINE, V2, action, conditions, entries, made
from tests.ingest.test_mesh import compiler
from tests.ingest.test_only_by_waypoint import EVERYBODY, WAYPOINT, admitted

BACKENDS = [to("v2")]


def asking(protocol: str = "GRPC", **fields: Any) -> dict[str, Any]:
    """A rule that has requests shown to `v2`."""
    given = {"protocol": protocol, "backendRef": to("v2"), protocol.lower(): {}, **fields}
    return {"filters": [{"type": "ExternalAuth", "externalAuth": given}], "backendRefs": BACKENDS}


def asked(rule: dict[str, Any]) -> Authorizer:
    found = action(rule)
    assert found.backends == (Backend(V2, 80),)
    assert found.external_auth is not None and found.external_auth.service == V2
    return found.external_auth.authorizer


def test_over_grpc() -> None:
    rule = asking(grpc={"allowedHeaders": ["X-A"]}, forwardBody={"maxSize": 9})
    place = ProviderService("v2.default.svc.cluster.local", 80)
    expected = Authorizer(f"{V2}:80", place, 5_000, body=BodyInCheck(9), check=(Exact("x-a"),))
    assert action(rule).external_auth == ExternalAuth(V2, expected)


def test_over_http() -> None:
    names = {"allowedHeaders": ["X-A"], "allowedResponseHeaders": ["X-B"]}
    found = asked(asking("HTTP", http={"path": "/check", **names})).http
    assert found is not None
    assert (found.path_prefix, found.check, found.upstream_on_allow) == (
        "/check",
        (Exact("x-a"),),
        (Exact("x-b"),),
    )


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (asking("UDP"), "protocol"),
        (asking("HTTP", http={"path": "check"}), "http.path"),
        (asking("HTTP", http={"path": "/a/../b"}), "http.path"),
        (asking("HTTP", http={"path": "/a?b"}), "http.path"),
        (asking("HTTP", http={"allowedHeaders": ["a b"]}), "http.allowedHeaders"),
        (asking("HTTP", http={"allowedResponseHeaders": [":path"]}), "http.allowedResponseHeaders"),
        (asking(grpc={"allowedHeaders": [""]}), "grpc.allowedHeaders"),
        (asking(forwardBody={"maxSize": MOST_BODY + 1}), "forwardBody.maxSize"),
        (asking(forwardBody={"maxSize": -1}), "forwardBody.maxSize"),
    ],
)
def test_what_cannot_be_had_lets_nobody_pass_and_is_said(rule: dict[str, Any], field: str) -> None:
    compiled = made(route(rule))
    (entry,) = entries(compiled)
    assert entry.action == Action(status=500)
    assert conditions(compiled)["PartiallyInvalid"] == ("True", "UnsupportedValue")
    (finding,) = compiled.findings
    assert f"filters[0].externalAuth.{field}: " in finding.text


def test_two_of_them_let_nobody_pass() -> None:
    rule = asking()
    assert action({**rule, "filters": rule["filters"] * 2}) == Action(status=500)


@pytest.mark.parametrize("place", [to("nobody"), to("ab", namespace="shop")])
def test_nobody_to_ask_lets_nobody_pass(place: dict[str, Any]) -> None:
    compiled = made(route(asking(backendRef=place)))
    (entry,) = entries(compiled)
    assert entry.action == Action(status=500)
    assert conditions(compiled)["ResolvedRefs"][0] == "False"


def test_another_namespace_lets_itself_be_asked() -> None:
    compiled = made(route(asking(backendRef=to("ab", namespace="shop"))), grant("shop", "default"))
    (entry,) = entries(compiled)
    assert entry.action.external_auth is not None and entry.action.external_auth.service == AB
    assert conditions(compiled) == FINE


def test_for_a_single_backend_it_cannot_be_had() -> None:
    rule = asking()
    assert action({"backendRefs": [to("v2", filters=rule["filters"])]}) == Action(status=500)


WEB_POD = pod("web-1", "10.244.1.2", labels={"app": "web"})


@pytest.mark.parametrize(
    ("rule", "expected"), [(asking(), {WAYPOINT}), ({"backendRefs": BACKENDS}, EVERYBODY)]
)
def test_pods_take_what_comes_from_the_waypoint_that_asks(rule: dict[str, Any], expected: set[Any]) -> None:
    assert admitted(made(route(rule), WEB_POD)) == expected


def test_callers_of_another_namespace_protect_nothing_by_it() -> None:
    rule = {**asking(backendRef=to("ab")), "backendRefs": [to("ab")]}
    compiled = compiler(
        with_ports(HTTP), service("ab", {"app": "ab"}, namespace="shop"), waypoint(), consumer(rule), WEB_POD
    )
    assert conditions(compiled, "HTTPRoute shop/route")["Accepted"] == ("True", "Accepted")
    assert admitted(compiled) == EVERYBODY


def test_an_inline_service_is_closed_by_it() -> None:
    compiled = compiler(BOUND, service("v2", {"app": "v2"}), INLINE, route(asking()))
    found = compiled.services[KEY]
    assert found.inline is None and found.waypoint is not None
    (finding,) = compiled.findings
    assert (finding.code, str(finding.origin)) == ("AMB0411", "Service default/web")
    assert "ExternalAuth of default/route/0" in finding.text


def test_callers_close_nothing_to_others_by_it() -> None:
    rule = {**asking(backendRef=to("ab")), "backendRefs": [to("ab")]}
    theirs = service("ab", {"app": "ab"}, namespace="shop")
    compiled = compiler(with_ports(HTTP), theirs, INLINE, consumer(rule))
    found = compiled.services[KEY].inline
    assert found is not None and [
        entry.action.external_auth is not None for entry in found[0].hosts[0].entries
    ]


@given(st.sets(st.text("ab:-", max_size=4), max_size=6), st.text("ab:-x\n", max_size=5))
def test_none_of_matches_every_other_text(words: set[str], text: str) -> None:
    assert (re2.fullmatch(matchers.none_of(words), text) is not None) == (text not in words)
