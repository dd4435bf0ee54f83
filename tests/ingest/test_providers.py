"""`extensionProviders`: what is read of them, and that nothing else passes."""

import json
from typing import Any

import pytest

from ambit.core.errors import BadInput
from ambit.ingest.mesh_settings.mesh_config import MeshConfig, mesh_config
from ambit.ingest.settings import MeshSettings
from ambit.model.policy import Exact, Prefix, Suffix
from ambit.model.provider import Authorizer, BodyInCheck, OverHttp, ProviderService

WHOLE = """
extensionProviders:
- name: web
  envoyExtAuthzHttp:
    service: edge/authz.example.com
    port: 8000
    timeout: 1.5s
    pathPrefix: /check
    failOpen: true
    clearRouteCache: true
    statusOnError: "503"
    includeHeadersInCheck: [x-not-read]
    includeRequestHeadersInCheck: [Cookie, x-team-*, "*-id"]
    includeAdditionalHeadersInCheck: {X-Mesh: ambit, a: b}
    includeRequestBodyInCheck: {maxRequestBytes: 1024, allowPartialMessage: true}
    headersToUpstreamOnAllow: [x-user]
    headersToDownstreamOnDeny: [x-reason*]
    headersToDownstreamOnAllow: [set-cookie]
- name: rpc
  envoyExtAuthzGrpc:
    service: authz.shop.svc.cluster.local
    port: 9000
    timeout: 0.25s
    failOpen: true
    clearRouteCache: true
    statusOnError: 429
    includeRequestBodyInCheck: {maxRequestBytes: 1, packAsBytes: true}
"""
WEB = Authorizer(
    "web",
    ProviderService("authz.example.com", 8000, "edge"),
    timeout=1500,
    fail_open=True,
    clear_route_cache=True,
    status_on_error=503,
    body=BodyInCheck(1024, allow_partial=True),
    http=OverHttp(
        path_prefix="/check",
        check=(Exact("cookie"), Prefix("x-team-"), Suffix("-id")),
        added=(("a", "b"), ("x-mesh", "ambit")),
        upstream_on_allow=(Exact("x-user"),),
        downstream_on_deny=(Prefix("x-reason"),),
        downstream_on_allow=(Exact("set-cookie"),),
    ),
)
RPC = Authorizer(
    "rpc",
    ProviderService("authz.shop.svc.cluster.local", 9000),
    timeout=250,
    fail_open=True,
    clear_route_cache=True,
    status_on_error=429,
    body=BodyInCheck(1, as_bytes=True),
)


def test_all_of_istios_fields_are_read() -> None:
    assert mesh_config(WHOLE, "f") == MeshConfig(authorizers=(WEB, RPC))


def test_what_is_not_said_is_closed_and_patient() -> None:
    text = "extensionProviders: [{name: x, envoyExtAuthzHttp: {service: n/a.b, port: 1}}]"
    assert mesh_config(text, "f").authorizers == (
        Authorizer("x", ProviderService("a.b", 1, "n"), 600_000, False, False, 403, None, OverHttp()),
    )


def test_the_deprecated_name_of_headers_counts_where_it_is_alone() -> None:
    text = provider({"includeHeadersInCheck": ["x"]}, "envoyExtAuthzHttp")
    http = mesh_config(text, "f").authorizers[0].http
    assert http is not None
    assert http.check == (Exact("x"),)


def test_the_file_settles_what_the_compiler_is_told() -> None:
    given = mesh_config(WHOLE, "f").applied(MeshSettings(trust_domain="t"))
    assert given == MeshSettings(trust_domain="t", authorizers=(WEB, RPC))


def test_a_kind_that_nothing_uses_is_said() -> None:
    text = "extensionProviders: [{name: p, prometheus: {}}, {name: n, prometheus: }]"
    assert mesh_config(text, "f").ignored == (
        "extensionProviders: nothing uses p, which is of the kind prometheus",
        "extensionProviders: nothing uses n, which is of the kind prometheus",
    )


def provider(fields: dict[str, Any], kind: str = "envoyExtAuthzGrpc") -> str:
    given = {"service": "n/a.b", "port": 1, **fields}
    return f"extensionProviders: [{{name: x, {kind}: {json.dumps(given)}}}]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extensionProviders: {}", "extensionProviders"),
        ("extensionProviders: [{prometheus: {}}]", "extensionProviders[0]: it has no name"),
        ("extensionProviders: [{name: '', prometheus: {}}]", "it has no name"),
        ("extensionProviders: [{name: x, sds: {}}, {name: x, sds: {}}]", "'x' is given twice"),
        ("extensionProviders: [{name: x}]", "has nothing beside its name"),
        ("extensionProviders: [{name: x, sds: {}, zipkin: {}}]", "has sds and zipkin beside"),
        ("extensionProviders: [{name: x, oauth: {}}]", "has oauth beside"),
        ("extensionProviders: [{name: x, sds: 3}]", "is no mapping"),
        (provider({"failOpne": True}), "failOpne"),
        (provider({"pathPrefix": "/x"}), "pathPrefix"),
        (provider({"service": "authz"}), "'authz' names no service"),
        (provider({"service": "shop/authz"}), "'shop/authz' names no service"),
        (provider({"service": "/a.b"}), "'/a.b' names no service"),
        (provider({"service": "a.b"}), "'a.b' does not say whose it is"),
        (provider({"service": "a.b|c"}), "names no service"),
        (provider({"port": 0}), "port: 0"),
        (provider({"port": 65536}), "port: 65536"),
        (provider({"port": "80"}), "port"),
        (provider({"timeout": "5"}), "timeout: '5'"),
        (provider({"timeout": "0s"}), "timeout: '0s'"),
        (provider({"statusOnError": "418"}), "statusOnError: '418'"),
        (provider({"statusOnError": "forbidden"}), "statusOnError"),
        (provider({"includeRequestBodyInCheck": {}}), "maxRequestBytes"),
        (provider({"pathPrefix": "check"}, "envoyExtAuthzHttp"), "'check' is no path"),
        (provider({"pathPrefix": "/a b"}, "envoyExtAuthzHttp"), "is no path"),
        (provider({"headersToUpstreamOnAllow": ["*"]}, "envoyExtAuthzHttp"), "headersToUpstreamOnAllow[0]"),
        (provider({"headersToUpstreamOnAllow": ["*a*"]}, "envoyExtAuthzHttp"), "'*a*' names no header"),
        (provider({"includeAdditionalHeadersInCheck": {"a b": "c"}}, "envoyExtAuthzHttp"), "'a b'"),
        (provider({"includeAdditionalHeadersInCheck": {"a": "c\n"}}, "envoyExtAuthzHttp"), "'a'"),
    ],
)
def test_what_could_not_be_asked_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        mesh_config(text, "mesh.yaml")
    assert raised.value.message.startswith("mesh.yaml")
    assert said in raised.value.message
