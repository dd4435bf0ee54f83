"""One decision as one line."""

from typing import Any

import click
import pytest

from ambit.cli.render.flow_line import flow_line, is_denied
from ambit.core.names import GONE_ROUND

FLOW: dict[str, Any] = {
    "time": 1_700_000_000.25,
    "node": "node1",
    "reporter": "destination",
    "source": {
        "address": "10.244.2.3:40000",
        "workload": "client",
        "namespace": "shop",
        "identity": "spiffe://cluster.local/ns/shop/sa/buyer",
    },
    "destination": {
        "address": "10.244.1.2:8080",
        "workload": "web",
        "namespace": "shop",
        "identity": "spiffe://cluster.local/ns/shop/sa/seller",
    },
    "hop": "tunnel",
    "mutualTls": True,
    "decision": "allow",
    "received": 10,
    "sent": 20,
    "milliseconds": 1.25,
}


def line(**changes: Any) -> str:
    return click.unstyle(flow_line({**FLOW, **changes})).split(" ", 1)[1]


REQUEST: dict[str, Any] = {
    "proxy": "shop/way",
    "reporter": "waypoint",
    "source": {
        "address": "10.244.2.3:40000",
        "workloadName": "client",
        "namespace": "shop",
        "identity": "spiffe://cluster.local/ns/shop/sa/buyer",
    },
    "request": {
        "method": "GET",
        "host": "web",
        "path": "/a",
        "code": 200,
        "route": "shop/web/0",
        "attempts": 2,
    },
}


def test_a_client_of_udp() -> None:
    part = {"listener": "dns", "route": "shop/names/0", "received": 1, "sent": 2}
    assert "unverified udp shop/names/0 1/2 datagrams 10/20B" in line(mutualTls=False, datagrams=part)
    assert "udp dns 1/0 datagrams" in line(datagrams={"listener": "dns", "received": 1})


def test_a_request() -> None:
    assert line(**REQUEST) == (
        "shop/way/waypoint shop/client:40000 (shop/buyer) → shop/web:8080 (shop/seller)"
        " tunnel verified GET web/a 200 10/20B 1.2ms ALLOWED"
    )
    wide = click.unstyle(flow_line({**FLOW, **REQUEST}, wide=True))
    assert wide.endswith("request[route=shop/web/0 attempts=2]")


@pytest.mark.parametrize(
    ("details", "verdict"),
    [
        ("jwt_authn_access_denied{Jwt_is_expired}", "DENIED: token not valid (Jwt is expired)"),
        ("jwt_authn_access_denied", "DENIED: token not valid"),
        ("rbac_access_denied_matched_policy[none]", "DENIED by default"),
    ],
)
def test_a_refused_token_is_told(details: str, verdict: str) -> None:
    refused = {**REQUEST, "decision": "deny", "request": {"method": "GET", "code": 401, "details": details}}
    assert line(**refused).endswith(verdict)


@pytest.mark.parametrize("hop", ["answered", "inline"])
def test_where_no_server_was_asked_it_is_the_service(hop: str) -> None:
    named = {"address": "10.96.0.78:9080", "service": "shop/web.shop.svc.cluster.local"}
    assert f" → web.shop.svc.cluster.local:9080 {hop} " in line(hop=hop, destination=named)
    assert f" → 10.96.0.78:9080 (no identity) {hop} " in line(
        hop=hop, destination={"address": "10.96.0.78:9080"}
    )


def test_a_request_of_grpc_and_one_without_answer() -> None:
    grpc = {**REQUEST, "request": {"method": "POST", "host": "web", "path": "/s/M", "grpcStatus": "5"}}
    assert " POST web/s/M unanswered grpc-status 5 10/20B" in line(**grpc)


def test_an_allowed_connection() -> None:
    assert line() == (
        "node1/destination shop/client:40000 (shop/buyer) → shop/web:8080 (shop/seller)"
        " tunnel verified 10/20B 1.2ms ALLOWED"
    )


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"decision": "deny", "policy": "shop/p[0]"}, "DENIED by shop/p[0]"),
        ({"decision": "deny", "policy": "shop/p[0]", "cut": True}, "DENIED, cut by shop/p[0]"),
        (
            {"decision": "deny", "policy": "shop/p", "cut": True, "reporter": "source"},
            "DENIED, cut by shop/p: no rule allows it",
        ),
        (
            {"decision": "deny", "policy": "istio-system/istio_converted_static_strict[0]"},
            "DENIED by istio-system/istio_converted_static_strict[0]: mutual TLS is STRICT",
        ),
        ({"decision": "deny", "policy": "shop/p"}, "DENIED by shop/p: no rule allows it"),
        (
            {"decision": "deny", "policy": "none"},
            "DENIED because no rule of several ALLOW policies allows it",
        ),
        (
            {"decision": "deny", "policy": GONE_ROUND},
            "DENIED because there are too many proxies in x-forwarded-for",
        ),
        (
            {"decision": "deny", "policy": "unknown:shop/p"},
            "DENIED because shop/p is not known on the node yet",
        ),
        ({"decision": "deny", "reporter": "source"}, "DENIED at the destination"),
        ({"decision": "deny"}, "DENIED by default"),
        ({"error": "connection refused"}, "FAILED connection refused"),
        ({"policy": "shop/p[1]"}, "ALLOWED by shop/p[1]"),
    ],
)
def test_verdicts(changes: dict[str, Any], verdict: str) -> None:
    assert line(**changes).endswith(verdict)
    assert is_denied({**FLOW, **changes}) == verdict.startswith("DENIED")


def test_a_stranger_has_an_address_and_no_identity() -> None:
    text = line(source={"address": "192.0.2.1:5"}, hop="", mutualTls=False)
    assert " 192.0.2.1:5 (no identity) → " in text
    assert " plain unverified " in text


def test_names_of_others_cannot_drive_the_terminal() -> None:
    text = line(source={"address": "192.0.2.1:5", "workload": "a\x1b[31m", "namespace": "b"}, error="x\r\ny")
    assert text.isprintable()


def test_a_wide_line_has_addresses_identities_and_service() -> None:
    destination = {**FLOW["destination"], "service": "shop/web.shop.svc.cluster.local", "zone": "eu-1"}
    text = click.unstyle(flow_line({**FLOW, "destination": destination}, wide=True))
    assert text.endswith(
        "ALLOWED from[10.244.2.3:40000 spiffe://cluster.local/ns/shop/sa/buyer]"
        " to[10.244.1.2:8080 web.shop.svc.cluster.local spiffe://cluster.local/ns/shop/sa/seller eu-1]"
    )


def test_what_is_audited_is_said_whatever_is_decided() -> None:
    assert line(audited=["shop/a[0]", "shop/b[1]"]).endswith("ALLOWED, audited by shop/a[0], shop/b[1]")
    denied = line(decision="deny", policy="shop/p[0]", audited=["shop/a[0]"])
    assert denied.endswith("DENIED by shop/p[0], audited by shop/a[0]")


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ("ext_authz_denied", ": who was asked said no"),
        ("ext_authz_error", ": nobody could be asked"),
        ("", ""),
    ],
)
def test_somebody_who_was_asked(details: str, said: str) -> None:
    denied = line(decision="deny", policy="shop/p[0]", request={"details": details})
    assert denied.endswith(f"DENIED by shop/p[0]{said}")


def test_a_dry_run_says_what_would_be() -> None:
    assert line(dryRun="shop/p[1]").endswith("ALLOWED, a dry run by shop/p[1] would deny")


def test_a_destination_outside_the_mesh_has_no_identity() -> None:
    told = line(hop="direct", mutualTls=False, reporter="source")
    assert "(shop/buyer) → shop/web:8080 (no identity) direct unverified" in told
