"""The pinned Envoy takes every table and policy that tenants' objects are compiled to, whatever their matches hold."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.ingest.settings import MeshSettings
from ambit.insight.manifests import compile_objects
from ambit.model.proxy import ServiceRoutes
from ambit.model.view import Snapshot
from ambit.plan.l7 import waypoint
from ambit.plan.values import ROUTES, NodeSettings, PlannedResource
from tests.plan.static_tables import check_tables
from tests.soak import fuzz

pytestmark = pytest.mark.envoy

GATEWAY, ISTIO = "gateway.networking.k8s.io/v1", "security.istio.io/v1"
PARTS = (
    *(r"\Q", r"\E", "(", ")", "(?:", "(?i)", "(?s)", "(?P<a>", "[", "]", "[^", "[[:alpha:]]", "{", "}", "|", "*"),
    *("+", "?", "^", "$", ".", "\\", "\\\\", r"\C", r"\pL", r"\b", r"\d", r"\x{10FFFF}", r"\1", r"\n", "{2,1}"),
    *("{1000}", "{1001}", "{100}{100}", "a", "B", "0", "-", "_", "/", " ", "#", "&", "~", "%2f", "\x00", "\n", "\t"),
    *("\x7f", "é", "\U0001f600", "\ufeff", ",", ";", ":", "=", "{*}", "{**}", "**", "x" * 300),
)  # fmt: skip
WORDS = st.one_of(
    st.lists(st.sampled_from(PARTS), max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
KINDS = st.sampled_from(("Exact", "RegularExpression"))
NAMED = st.fixed_dictionaries({"type": KINDS, "name": st.one_of(st.just("x-a"), WORDS), "value": WORDS})
PATHS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(("Exact", "PathPrefix", "RegularExpression")),
        "value": st.one_of(WORDS, WORDS.map("/{}".format)),
    }
)
HTTP_MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "path": PATHS,
        "method": st.sampled_from(("GET", "POST")),
        "headers": st.lists(NAMED, max_size=2),
        "queryParams": st.lists(NAMED, max_size=2),
    },
)
GRPC_MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "method": st.fixed_dictionaries({"type": KINDS}, optional={"service": WORDS, "method": WORDS}),
        "headers": st.lists(NAMED, max_size=2),
    },
)
ORIGINS = st.fixed_dictionaries({"allowOrigins": st.lists(WORDS, min_size=1, max_size=2)})
REPLACED = st.fixed_dictionaries(
    {
        "path": st.one_of(
            WORDS.map(lambda text: {"type": "ReplaceFullPath", "replaceFullPath": text}),
            WORDS.map(lambda text: {"type": "ReplacePrefixMatch", "replacePrefixMatch": text}),
        )
    },
    optional={"hostname": WORDS},
)
FILTERS = st.one_of(
    ORIGINS.map(lambda cors: {"type": "CORS", "cors": cors}),
    REPLACED.map(lambda change: {"type": "URLRewrite", "urlRewrite": change}),
)
SEVERAL = st.lists(WORDS, min_size=1, max_size=3)
CONDITIONS = st.fixed_dictionaries(
    {"key": st.one_of(st.sampled_from(("request.headers[x-a]", "request.auth.claims[a][b]")), WORDS)},
    optional={"values": SEVERAL, "notValues": SEVERAL},
)
OPERATIONS = st.fixed_dictionaries(
    {},
    optional={f"{word}{of}": SEVERAL for of in ("aths", "osts") for word in ("p" if of == "aths" else "h",)},
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "to": st.lists(OPERATIONS.map(lambda each: {"operation": each}), min_size=1, max_size=2),
        "from": st.lists(
            st.fixed_dictionaries({}, optional={"principals": SEVERAL, "namespaces": SEVERAL}).map(
                lambda each: {"source": each}
            ),
            min_size=1,
            max_size=2,
        ),
        "when": st.lists(CONDITIONS, min_size=1, max_size=2),
    },
)
POLICIES = st.fixed_dictionaries(
    {"action": st.sampled_from(("ALLOW", "DENY", "AUDIT")), "rules": st.lists(RULES, max_size=2)}
)


def named(kind: str, version: str, name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": f"{kind}-{name}"},
        "spec": spec,
    }


def mesh() -> list[dict[str, Any]]:
    """Service `web` of namespace `shop`, bound to a waypoint."""
    bound = {"istio.io/use-waypoint": "waypoint", "kubernetes.io/metadata.name": "shop"}
    hbone = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": bound}},
        named("Gateway", GATEWAY, "waypoint", "shop", {"gatewayClassName": "ambit-waypoint", "listeners": [hbone]}),
        named(
            "Service", "v1", "web", "shop",
            {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{"name": "http", "port": 80}]},
        ),
    ]  # fmt: skip


def route(kind: str, name: str, rules: list[dict[str, Any]], namespace: str = "shop") -> dict[str, Any]:
    parent = {"group": "", "kind": "Service", "name": "web", "namespace": "shop"}
    return named(kind, GATEWAY, name, namespace, {"parentRefs": [parent], "rules": rules})


def planned(*objects: dict[str, Any]) -> tuple[PlannedResource, ...]:
    """What the waypoint's Envoy gets for the mesh and these objects."""
    compiled = compile_objects([("test", each) for each in (*mesh(), *objects)], MeshSettings())
    (proxy,) = compiled.proxies
    routes = {each.key: each for each in compiled.routes if isinstance(each, ServiceRoutes)}
    services = tuple(each for each in compiled.services if each.waypoint is not None)
    bound = waypoint.Bound(services, routes, authorization=compiled.request_policies)
    return waypoint.resources(
        proxy, bound, Snapshot(services=compiled.services, workloads=compiled.workloads), NodeSettings("test")
    )


@fuzz(12)
@given(
    st.lists(st.tuples(HTTP_MATCHES, st.lists(FILTERS, max_size=1)), max_size=12),
    st.lists(GRPC_MATCHES, max_size=12),
)
def test_envoy_takes_tables_of_any_matches(
    tmp_path: Path, http: list[tuple[dict[str, Any], list[dict[str, Any]]]], grpc: list[dict[str, Any]]
) -> None:
    rules = [{"matches": [match], "filters": filters} for match, filters in http]
    check_tables(
        planned(
            route("HTTPRoute", "h", rules),
            route("HTTPRoute", "c", rules, "other"),
            route("GRPCRoute", "g", [{"matches": [match]} for match in grpc], "other"),
        ),
        tmp_path,
    )


@fuzz(12)
@given(st.lists(POLICIES, max_size=8))
def test_envoy_takes_policies_of_any_fields(tmp_path: Path, given: list[dict[str, Any]]) -> None:
    named_web = {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}]}
    policies = [
        named("AuthorizationPolicy", ISTIO, f"p{index}", "shop", {**named_web, **each})
        for index, each in enumerate(given)
    ]
    check_tables(planned(*policies), tmp_path)


def test_a_part_that_leaves_a_quote_open_is_kept_from_the_table(tmp_path: Path) -> None:
    quoted = {"method": {"type": "RegularExpression", "service": r"\Q", "method": r"\Q"}}
    resources = planned(route("GRPCRoute", "g", [{"matches": [quoted]}], "other"))
    check_tables(resources, tmp_path)
    assert not any(rb"\Q" in each.body for each in resources if each.type_url == ROUTES)


def test_envoys_validation_finds_a_table_that_it_would_reject(tmp_path: Path) -> None:
    """So that the tests of this file can fail."""
    resources = [
        PlannedResource(each.type_url, each.name, each.version, each.body.replace(b"/fine/x", b"/fine/("))
        if each.type_url == ROUTES
        else each
        for each in planned(
            route(
                "HTTPRoute", "h", [{"matches": [{"path": {"type": "RegularExpression", "value": "/fine/x"}}]}]
            )
        )
    ]
    with pytest.raises(AssertionError, match="missing"):
        check_tables(resources, tmp_path)
