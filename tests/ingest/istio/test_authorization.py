"""AuthorizationPolicy to L4 policy: what each field becomes, what is refused, and that refusing closes."""

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.finding import Level
from ambit.core.identity import Identity
from ambit.ingest.istio.authorization import CompiledPolicy, authorization, closed_authorization
from ambit.ingest.settings import MeshSettings
from ambit.model.policy import (
    Action,
    Authorization,
    Clause,
    Exact,
    Match,
    Prefix,
    Presence,
    Rule,
    Scope,
    ServiceAccountMatch,
    Suffix,
)
from ambit.objects.istio import AuthorizationPolicy, decode_authorization_policy
from ambit.policy.decide import ConnectionFacts, decide
from tests.ingest.build import Given, authorization_policy, pod
from tests.ingest.test_mesh import change, compiler

NET = ipaddress.ip_network


def decoded(**spec: Any) -> AuthorizationPolicy:
    _, body = authorization_policy("p", **spec)
    return decode_authorization_policy(json.dumps(body).encode())


def compiled(**spec: Any) -> CompiledPolicy:
    return authorization(decoded(**spec), MeshSettings())


def made(**spec: Any) -> Authorization:
    result = compiled(**spec)
    assert result.authorization is not None and not result.findings
    return result.authorization


def source(**fields: Any) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def operation(**fields: Any) -> dict[str, Any]:
    return {"to": [{"operation": fields}]}


def when(key: str, **fields: Any) -> dict[str, Any]:
    return {"when": [{"key": key, **fields}]}


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (source(principals=["a/ns/b/sa/c"]), Match(principals=(Exact("a/ns/b/sa/c"),))),
        (source(principals=["a/*"]), Match(principals=(Prefix("a/"),))),
        (source(principals=["*/sa/c"]), Match(principals=(Suffix("/sa/c"),))),
        (source(principals=["*"]), Match(principals=(Presence(),))),
        (source(notPrincipals=["x"]), Match(not_principals=(Exact("x"),))),
        (source(namespaces=["a", "b*"]), Match(namespaces=(Exact("a"), Prefix("b")))),
        (source(notNamespaces=["a"]), Match(not_namespaces=(Exact("a"),))),
        (
            source(ipBlocks=["10.0.0.1", "10.1.2.3/8"]),
            Match(source_ips=(NET("10.0.0.1/32"), NET("10.0.0.0/8"))),
        ),
        (source(notIpBlocks=["fd00::/8"]), Match(not_source_ips=(NET("fd00::/8"),))),
        (
            source(serviceAccounts=["a/b", "c"]),
            Match(service_accounts=(ServiceAccountMatch("a", "b"), ServiceAccountMatch("default", "c"))),
        ),
        (source(notServiceAccounts=["a/b"]), Match(not_service_accounts=(ServiceAccountMatch("a", "b"),))),
        (operation(ports=["80", "443"]), Match(destination_ports=(80, 443))),
        (operation(notPorts=["80"]), Match(not_destination_ports=(80,))),
        (when("source.ip", values=["::1"]), Match(source_ips=(NET("::1/128"),))),
        (
            when("source.namespace", values=["*"], notValues=["a"]),
            Match(namespaces=(Presence(),), not_namespaces=(Exact("a"),)),
        ),
        (when("source.principal", notValues=["*"]), Match(not_principals=(Presence(),))),
        (when("destination.ip", values=["10.0.0.0/8"]), Match(destination_ips=(NET("10.0.0.0/8"),))),
        (when("destination.port", notValues=["80"]), Match(not_destination_ports=(80,))),
    ],
)
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_a_field_becomes_a_match(action: str, rule: dict[str, Any], match: Match) -> None:
    assert made(action=action, rules=[rule]).rules == (Rule((Clause((match,)),)),)


def test_entries_are_ored_and_parts_are_anded() -> None:
    rule = {
        "from": [{"source": {"namespaces": ["a"]}}, {"source": {"principals": ["b"]}}],
        "to": [{"operation": {"ports": ["80"]}}],
        "when": [
            {"key": "source.ip", "values": ["10.0.0.0/8"]},
            {"key": "destination.port", "values": ["80"]},
        ],
    }
    [result] = made(rules=[rule]).rules
    assert [len(clause.matches) for clause in result.clauses] == [1, 2, 1, 1]


def test_empty_is_not_absent() -> None:
    assert made().rules == (), "no rules: an ALLOW that allows nothing"
    assert made(rules=[{}]).rules == (Rule(),), "an empty rule: always"
    assert made(rules=[{"from": [], "to": None}]).rules == (Rule(),)


@pytest.mark.parametrize(
    ("namespace", "selector", "scope"),
    [
        ("default", None, Scope.NAMESPACE),
        ("default", {}, Scope.NAMESPACE),
        ("istio-system", None, Scope.GLOBAL),
        ("istio-system", {}, Scope.GLOBAL),
        ("default", {"app": "web"}, Scope.WORKLOAD_SELECTOR),
        ("istio-system", {"app": "web"}, Scope.WORKLOAD_SELECTOR),
    ],
)
def test_scope(namespace: str, selector: dict[str, str] | None, scope: Scope) -> None:
    result = compiled(namespace=namespace, selector=selector, rules=[{}])
    assert result.authorization is not None
    assert (result.authorization.scope, result.selector) == (scope, selector or None)
    assert result.authorization.key == f"{namespace}/p"


HTTP_RULES = [
    operation(methods=["GET"]),
    operation(ports=["80"], paths=["/x"]),
    operation(notHosts=["a"]),
    source(requestPrincipals=["*"]),
    source(remoteIpBlocks=["10.0.0.0/8"], namespaces=["a"]),
    source(trustDomains=["*td"], namespaces=["a"]),
    when("request.headers[x]", values=["y"]),
    when("request.auth.claims[iss]", values=["y"]),
    when("connection.sni", values=["y"]),
]


@pytest.mark.parametrize("rule", HTTP_RULES)
def test_an_allow_rule_with_http_allows_nothing(rule: dict[str, Any]) -> None:
    result = compiled(rules=[rule, operation(ports=["1"])])
    assert result.authorization is not None
    assert result.authorization.rules == (Rule((Clause((Match(destination_ports=(1,)),)),)),)
    assert [(each.code, each.level, each.path) for each in result.findings] == [
        ("AMB0201", Level.WARNING, "spec.rules[0]")
    ]


@pytest.mark.parametrize("rule", HTTP_RULES)
def test_a_deny_rule_with_http_keeps_the_rest(rule: dict[str, Any]) -> None:
    result = compiled(action="DENY", rules=[rule])
    assert result.authorization is not None
    [kept] = result.authorization.rules
    l4 = {"ports", "namespaces"} & {
        key
        for part in rule.values()
        for each in part
        for value in each.values()
        if isinstance(value, dict)
        for key in value
    }
    assert len(kept.clauses) == len(l4), "without any L4 part it always denies"
    assert [each.code for each in result.findings] == ["AMB0202"]


def test_one_unconditional_entry_makes_the_whole_part_unconditional() -> None:
    rule = {"to": [{"operation": {"ports": ["80"]}}, {"operation": {"paths": ["/x"]}}]}
    result = compiled(action="DENY", rules=[rule])
    assert result.authorization is not None and result.authorization.rules == (Rule(),)


MALFORMED = [
    (operation(ports=["http"]), "AMB0210", "spec.rules[0].to[0].operation.ports[0]"),
    (operation(notPorts=["80", "0"]), "AMB0210", "spec.rules[0].to[0].operation.notPorts[1]"),
    (operation(ports=["65536"]), "AMB0210", "spec.rules[0].to[0].operation.ports[0]"),
    (operation(ports=["٣"]), "AMB0210", "spec.rules[0].to[0].operation.ports[0]"),
    (operation(ports=["0000099999"]), "AMB0210", "spec.rules[0].to[0].operation.ports[0]"),
    (source(ipBlocks=["::ffff:10.0.0.1"]), "AMB0212", "spec.rules[0].from[0].source.ipBlocks[0]"),
    (source(ipBlocks=["fe80::1%eth0"]), "AMB0212", "spec.rules[0].from[0].source.ipBlocks[0]"),
    (source(ipBlocks=["10.0.0/8"]), "AMB0212", "spec.rules[0].from[0].source.ipBlocks[0]"),
    (source(notIpBlocks=["10.0.0.0/255.0.0.0"]), "AMB0212", "spec.rules[0].from[0].source.notIpBlocks[0]"),
    (source(ipBlocks=["10.0.0.0/33"]), "AMB0212", "spec.rules[0].from[0].source.ipBlocks[0]"),
    (source(principals=["spiffe://a/ns/b/sa/c"]), "AMB0213", "spec.rules[0].from[0].source.principals[0]"),
    (source(namespaces=[""]), "AMB0213", "spec.rules[0].from[0].source.namespaces[0]"),
    (source(serviceAccounts=["a/b/c"]), "AMB0213", "spec.rules[0].from[0].source.serviceAccounts[0]"),
    (source(serviceAccounts=["a/"]), "AMB0213", "spec.rules[0].from[0].source.serviceAccounts[0]"),
    (source(), "AMB0214", "spec.rules[0].from[0].source"),
    (operation(), "AMB0214", "spec.rules[0].to[0].operation"),
    (when("source.ip"), "AMB0214", "spec.rules[0].when[0]"),
    (when("source.pod", values=["x"]), "AMB0216", "spec.rules[0].when[0].key"),
]


@pytest.mark.parametrize(("rule", "code", "path"), MALFORMED)
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_a_malformed_value_closes_its_rule(action: str, rule: dict[str, Any], code: str, path: str) -> None:
    result = compiled(action=action, rules=[rule, operation(ports=["1"])])
    assert result.authorization is not None
    good = Rule((Clause((Match(destination_ports=(1,)),)),))
    assert result.authorization.rules == ((Rule(), good) if action == "DENY" else (good,))
    assert [(each.code, each.level, each.path) for each in result.findings] == [(code, Level.ERROR, path)]


@pytest.mark.parametrize(
    ("spec", "codes", "sent"),
    [
        ({"action": "CUSTOM", "provider": {"name": "x"}, "rules": [{}]}, ["AMB0203"], None),
        ({"action": "AUDIT", "rules": [{}]}, ["AMB0203"], None),
        ({"action": "BLOCK", "rules": [{}]}, ["AMB0215"], (Action.ALLOW, ())),
        ({"targetRefs": [{"kind": "Service", "name": "x"}]}, [], None),
        (
            {"targetRef": {"kind": "Gateway", "name": "x", "group": "gateway.networking.k8s.io"}},
            [],
            None,
        ),
        (
            {"selector": {"a": "b"}, "targetRefs": [{"kind": "Service", "name": "x"}]},
            ["AMB0205"],
            (Action.ALLOW, ()),
        ),
        (
            {"action": "DENY", "selector": {"a": "b"}, "targetRefs": [{"kind": "Service", "name": "x"}]},
            ["AMB0205"],
            (Action.DENY, (Rule(),)),
        ),
        ({"rules": [{"to": [{"operation": {"ports": [80]}}]}]}, ["AMB0002"], (Action.ALLOW, ())),
        ({"rules": "x"}, ["AMB0002"], (Action.ALLOW, ())),
        ({"rules": [None]}, ["AMB0002"], (Action.ALLOW, ())),
        ({"action": "DENY", "rules": [None]}, ["AMB0002"], (Action.DENY, (Rule(),))),
        ({"targetRefs": [{"kind": "Service", "name": "x"}], "rules": 1}, [], None),
        ({"action": 7}, ["AMB0002"], (Action.ALLOW, ())),
    ],
)
def test_refused_as_a_whole(spec: dict[str, Any], codes: list[str], sent: tuple[Action, Any] | None) -> None:
    result = compiled(**spec)
    assert [each.code for each in result.findings] == codes
    got = result.authorization
    assert (got and (got.action, got.rules)) == sent


def test_a_broken_policy_keeps_its_selector() -> None:
    result = compiled(selector={"app": "web"}, rules="x")
    assert result.selector == {"app": "web"}
    assert closed_authorization(decoded(selector={"app": "web"}, rules=[{}]), MeshSettings()).selector == {
        "app": "web"
    }


@pytest.mark.parametrize(
    ("text", "dry_run", "level"),
    [("true", True, Level.INFO), ("false", False, None), ("yes", False, Level.ERROR)],
)
def test_dry_run(text: str, dry_run: bool, level: Level | None) -> None:
    result = compiled(annotations={"istio.io/dry-run": text}, rules=[{}])
    assert result.authorization is not None and result.authorization.dry_run is dry_run
    assert [each.level for each in result.findings] == ([level] if level else [])


RULES = (
    [rule for rule, _, _ in MALFORMED] + HTTP_RULES + [operation(ports=["80"]), source(namespaces=["a"]), {}]
)
PLACES = st.lists(st.sampled_from(RULES), max_size=3)
FACTS = st.builds(
    ConnectionFacts,
    st.sampled_from([ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("11.0.0.1")]),
    st.just(ipaddress.ip_address("10.9.9.9")),
    st.sampled_from([80, 81]),
    st.sampled_from([None, Identity("td", "a", "b"), Identity("td", "c", "d")]),
)


@given(PLACES, st.sampled_from([rule for rule, _, _ in MALFORMED]), FACTS)
def test_a_malformed_rule_never_opens(rules: list[Any], bad: Any, facts: ConnectionFacts) -> None:
    for action in ("ALLOW", "DENY"):
        without = compiled(action=action, rules=rules).authorization
        broken = compiled(action=action, rules=[*rules, bad]).authorization
        assert without is not None and broken is not None
        assert decide([without], facts).allowed or not decide([broken], facts).allowed
        if action == "DENY":
            assert not decide([broken], facts).allowed


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_a_policy_that_is_too_large_is_closed(action: str) -> None:
    def of(*sizes: int) -> CompiledPolicy:
        return compiled(
            action=action, rules=[source(namespaces=[f"n{i}" for i in range(size)]) for size in sizes]
        )

    assert not of(4_000, 6_000).findings
    result = of(4_000, 6_001)
    assert [(each.code, each.level, each.path) for each in result.findings] == [
        ("AMB0217", Level.ERROR, "spec.rules")
    ]
    assert result.authorization is not None
    assert result.authorization.rules == ((Rule(),) if action == "DENY" else ())
    assert [each.code for each in compiled(action=action, rules=[{}] * 10_001).findings] == ["AMB0217"]


def test_a_policy_that_changes_wakes_only_workloads_with_its_label() -> None:
    """A namespace may have thousands of policies and pods."""
    pods = [
        pod(f"p{number}", f"10.1.0.{number + 1}", labels={"app": f"a{number}", "tier": "front"})
        for number in range(20)
    ]
    others = [selecting(f"o{number}", {"app": f"a{number % 20}", "tier": "front"}) for number in range(40)]
    made = compiler(*pods, *others, selecting("all", {"tier": "front"}))
    [before] = [each.recomputations for each in made.statistics() if each.name == "pod workloads"]
    delta = made.apply([change(selecting("new", {"app": "a7", "tier": "front"}))])
    [after] = [each.recomputations for each in made.statistics() if each.name == "pod workloads"]
    assert [each.name for each in delta.workloads.upserts.values()] == ["p7"]
    assert after == before + 1
    [workload] = delta.workloads.upserts.values()
    assert workload.policies == ("default/all", "default/new", "default/o27", "default/o7")
    other = selecting("new", {"tier": "back", "app": "a8"})
    delta = made.apply([change(other)])
    assert "default/new" not in made.workloads[workload.uid].policies
    delta = made.apply([change(selecting("new", {"version": "v1"}))])
    assert not delta.workloads, "the first selector with a label key selects nothing"


def selecting(name: str, labels: dict[str, str]) -> Given:
    return "authorizationpolicies.security.istio.io", {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}, "rules": [{}]},
    }
