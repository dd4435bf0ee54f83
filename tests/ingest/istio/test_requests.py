"""AuthorizationPolicy with targets as policy for requests: `ambit.ingest.istio.requests`."""

import ipaddress
from typing import Any

import msgspec
import pytest

from ambit.core.finding import Level
from ambit.ingest.istio.requests import CompiledRequestPolicy, request_policy
from ambit.ingest.settings import MeshSettings
from ambit.model.jwt import Target
from ambit.model.policy import Exact, Prefix, Presence, ServiceAccountMatch, Suffix
from ambit.model.request_policy import (
    NEVER,
    Attribute,
    Clause,
    Condition,
    Match,
    PathTemplate,
    RequestAction,
    Rule,
    Value,
)
from ambit.objects.istio import decode_authorization_policy

SETTINGS = MeshSettings(trust_domain="new", trust_domain_aliases=("old",))
WEB = {"kind": "Service", "name": "web"}
CLASS = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio-waypoint"}


def compiled(*rules: Any, namespace: str = "default", **spec: Any) -> CompiledRequestPolicy:
    given = {
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"targetRefs": [WEB], "rules": list(rules), **spec},
    }
    found = request_policy(decode_authorization_policy(msgspec.json.encode(given)), SETTINGS)
    assert found is not None
    return found


def one(
    attribute: Attribute, *values: Value, unwanted: tuple[Value, ...] = (), way: tuple[str, ...] = ()
) -> Rule:
    return Rule((Clause((Match((Condition(attribute, values, unwanted, way),)),)),))


def source(**fields: list[str]) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def operation(**fields: list[str]) -> dict[str, Any]:
    return {"to": [{"operation": fields}]}


def when(key: str, *values: str, **more: list[str]) -> dict[str, Any]:
    return {"when": [{"key": key, "values": list(values), **more}]}


TEN = ipaddress.ip_network("10.0.0.0/8")
READ = [
    (source(principals=["a/*"]), one(Attribute.PRINCIPAL, Prefix("a/"))),
    (
        source(principals=["new/ns/a/sa/b"]),
        one(Attribute.PRINCIPAL, *map(Exact, ("new/ns/a/sa/b", "old/ns/a/sa/b"))),
    ),
    (source(namespaces=["*"]), one(Attribute.NAMESPACE, Presence())),
    (source(serviceAccounts=["b"]), one(Attribute.SERVICE_ACCOUNT, ServiceAccountMatch("default", "b"))),
    (source(trustDomains=["new"]), one(Attribute.TRUST_DOMAIN, Exact("new"), Exact("old"))),
    (source(trustDomains=["other"]), one(Attribute.TRUST_DOMAIN, Exact("other"))),
    (source(ipBlocks=["10.1.0.0/8"]), one(Attribute.SOURCE_IP, TEN)),
    (source(remoteIpBlocks=["10.0.0.0/8"]), one(Attribute.REMOTE_IP, TEN)),
    (source(notRequestPrincipals=["*"]), one(Attribute.REQUEST_PRINCIPAL, unwanted=(Presence(),))),
    (operation(hosts=["*.a"], notHosts=["b.a"]), one(Attribute.HOST, Suffix(".a"), unwanted=(Exact("b.a"),))),
    (operation(ports=["80"]), one(Attribute.PORT, 80)),
    (operation(methods=["GET"]), one(Attribute.METHOD, Exact("GET"))),
    (operation(paths=["/a", "/b/*"]), one(Attribute.PATH, Exact("/a"), Prefix("/b/"))),
    (operation(paths=["/a/{*}/b/{**}"]), one(Attribute.PATH, PathTemplate("/a/{*}/b/{**}"))),
    (when("request.headers[X-A]", "1"), one(Attribute.HEADER, Exact("1"), way=("x-a",))),
    (when("request.headers[Host]", "a"), one(Attribute.HOST, Exact("a"))),
    (when("request.auth.claims[a][b]", "1"), one(Attribute.CLAIM, Exact("1"), way=("a", "b"))),
    (when("request.auth.audiences", "1"), one(Attribute.CLAIM, Exact("1"), way=("aud",))),
    (when("request.auth.presenter", "1"), one(Attribute.CLAIM, Exact("1"), way=("azp",))),
    (when("request.auth.principal", "a/b"), one(Attribute.REQUEST_PRINCIPAL, Exact("a/b"))),
    (when("source.ip", "10.0.0.0/8"), one(Attribute.SOURCE_IP, TEN)),
    (when("remote.ip", "10.0.0.0/8"), one(Attribute.REMOTE_IP, TEN)),
    (when("destination.ip", notValues=["10.0.0.0/8"]), one(Attribute.DESTINATION_IP, unwanted=(TEN,))),
    (when("destination.port", "80"), one(Attribute.PORT, 80)),
    ({}, Rule()),
]


@pytest.mark.parametrize(("given", "rule"), READ)
def test_every_condition_is_read(given: dict[str, Any], rule: Rule) -> None:
    found = compiled(given)
    assert (found.policy.rules, found.findings) == ((rule,), ())


def test_parts_of_a_rule_are_clauses() -> None:
    given = {
        "from": [
            {"source": {"namespaces": ["a"]}},
            {"source": {"namespaces": ["b"], "notPrincipals": ["*"]}},
        ],
        **operation(methods=["GET"]),
        **when("source.ip", "10.0.0.0/8"),
    }
    [rule] = compiled(given).policy.rules
    assert [len(each.matches) for each in rule.clauses] == [2, 1, 1]
    assert [len(each.conditions) for each in rule.clauses[0].matches] == [1, 2]


MALFORMED = [
    (operation(ports=["http"]), "AMB0210"),
    (source(ipBlocks=["10.0.0/8"]), "AMB0212"),
    (source(principals=["spiffe://a"]), "AMB0213"),
    (source(trustDomains=["a/b"]), "AMB0213"),
    (operation(paths=["/a/{*}.html"]), "AMB0213"),
    (operation(paths=["/{**}/a/{*}"]), "AMB0213"),
    (operation(paths=["/{*}/*"]), "AMB0213"),
    (operation(paths=["/{**}/{**}"]), "AMB0213"),
    (operation(), "AMB0214"),
    (when("source.ip"), "AMB0214"),
    (when("request.headers[]", "a"), "AMB0216"),
    (when("request.headers[:path]", "a"), "AMB0216"),
    (when("source.pod", "a"), "AMB0216"),
]


@pytest.mark.parametrize(("given", "code"), MALFORMED)
def test_a_malformed_value_closes_its_rule(given: dict[str, Any], code: str) -> None:
    for action, closed in (("ALLOW", NEVER), ("DENY", Rule()), ("CUSTOM", Rule())):
        found = compiled(given, operation(methods=["GET"]), action=action)
        assert found.policy.rules == (closed, one(Attribute.METHOD, Exact("GET")))
        assert [(each.code, each.level) for each in found.findings] == [(code, Level.ERROR)]


@pytest.mark.parametrize(
    ("spec", "code", "rules"),
    [
        ({"action": "BLOCK"}, "AMB0215", (NEVER,)),
        ({"rules": 1}, "AMB0002", (NEVER,)),
        ({"rules": 1, "action": "DENY"}, "AMB0002", (Rule(),)),
        ({"rules": [source(namespaces=[f"n{i}" for i in range(10_001)])]}, "AMB0217", (NEVER,)),
    ],
)
def test_what_cannot_be_read_is_closed(spec: dict[str, Any], code: str, rules: tuple[Rule, ...]) -> None:
    found = compiled(**spec)
    assert ([each.code for each in found.findings], found.policy.rules) == ([code], rules)


@pytest.mark.parametrize("key", ["connection.sni", "experimental.envoy.filters.network.mysql_proxy[a.b]"])
def test_what_nobody_sees_is_said(key: str) -> None:
    found = compiled(when(key, "a"))
    attribute = Attribute.SNI if key == "connection.sni" else Attribute.UNSEEN
    assert found.policy.rules == (one(attribute, Exact("a"), way=(key,)),)
    assert [each.code for each in found.findings] == ["AMB0207"]


TARGETS = [
    (WEB, "default", Target("Service", "default", "web")),
    ({**WEB, "group": "core"}, "default", Target("Service", "default", "web")),
    ({**WEB, "namespace": "default"}, "default", Target("Service", "default", "web")),
    ({**WEB, "namespace": "other"}, "default", None),
    ({**WEB, "group": "apps"}, "default", None),
    ({"kind": "Deployment", "name": "web", "group": "apps"}, "default", None),
    (CLASS, "istio-system", Target("GatewayClass", "", "istio-waypoint")),
    (CLASS, "default", None),
]


@pytest.mark.parametrize(("given", "namespace", "target"), TARGETS)
def test_targets(given: dict[str, str], namespace: str, target: Target | None) -> None:
    found = compiled({}, namespace=namespace, targetRefs=[given])
    assert found.policy.targets == ((target,) if target else ())
    assert [each.code for each in found.findings] == ([] if target else ["AMB0206"])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"kind": "Gateway"}, "core Gateway is no target; write group: gateway.networking.k8s.io"),
        ({"kind": "Service", "group": "apps"}, 'apps Service is no target; write group: ""'),
        (
            {"kind": "Deployment", "group": "apps"},
            "apps Deployment is no target; name a Service, ServiceEntry, Gateway or GatewayClass",
        ),
    ],
)
def test_a_target_of_another_group_is_told_its_own(given: dict[str, str], problem: str) -> None:
    (finding,) = compiled({}, targetRefs=[{"name": "web", **given}]).findings
    assert problem in finding.text


def test_actions() -> None:
    for action in RequestAction:
        found = compiled(action=action.value, provider={"name": "x"})
        assert (found.policy.action, found.policy.rules) == (action, ())
        assert found.policy.provider == ("x" if action is RequestAction.CUSTOM else "")
