"""CEL rules: the shipped ones compile, and they say what is wrong."""

from typing import Any

import pytest

from ambit.objects.cel import Rules
from ambit.objects.crds import read_bundle


def schema(rule: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "x-kubernetes-validations": [{"rule": rule, **more}], "properties": {"a": {}}}


@pytest.mark.parametrize("bundle", ["gateway-standard", "gateway-experimental", "istio"])
def test_every_shipped_rule_compiles(bundle: str) -> None:
    for body in read_bundle(bundle):
        if body["kind"] == "CustomResourceDefinition":
            for version in body["spec"]["versions"]:
                assert Rules(version["schema"]["openAPIV3Schema"]).problems == []


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ("self.a == 'x'", {"a": "x"}, {"a": "y"}),
        ("has(self.a)", {"a": 1}, {}),
        ("isIP(self.a)", {"a": "fd00::1"}, {"a": "host"}),
        ("self.a.substring(1, 3) == 'bc'", {"a": "abcd"}, {"a": "xxxx"}),
        ("self.a.split('/')[0].size() < 3", {"a": "ab/c"}, {"a": "abc/c"}),
        ("url(self.a).getScheme() in ['https']", {"a": "https://x"}, {"a": "http://x"}),
        ("isURL(self.a)", {"a": "https://x/y"}, {"a": "not a url"}),
        ("format.dns1123Label().validate(self.a) == null", {"a": "abc"}, {"a": "A_"}),
        ("duration(self.a) >= duration('1s')", {"a": "1m"}, {"a": "5ms"}),
        ("self.a__dash__b == 1", {"a-b": 1}, {"a-b": 2}),
        ("self.__namespace__ == 'x'", {"namespace": "x"}, {"namespace": "y"}),
    ],
)
def test_rules_hold_or_not(rule: str, good: Any, bad: Any) -> None:
    rules = Rules(schema(rule, message="wrong"))
    assert rules.problems == []
    assert rules.validate(good, None) == []
    ((reason, message, _path),) = rules.validate(bad, None)
    assert reason == "FieldValueInvalid" and message.startswith('Invalid value: "object": wrong')


def test_transition_rules_need_an_old_value() -> None:
    rules = Rules(schema("self.a == oldSelf.a", message="immutable"))
    assert rules.validate({"a": 1}, None) == []
    assert rules.validate({"a": 1}, {"a": 1}) == []
    assert len(rules.validate({"a": 1}, {"a": 2})) == 1


def test_paths_messages_and_reasons() -> None:
    inner = schema("self.a > 1", messageExpression="'a is ' + string(self.a)", fieldPath=".a")
    outer = {"type": "object", "properties": {"list": {"type": "array", "items": inner}}}
    ((_, message, path),) = Rules(outer).validate({"list": [{"a": 2}, {"a": 1}]}, None)
    assert (path, message) == ("list[1].a", 'Invalid value: "object": a is 1')


def test_a_rule_that_does_not_compile_is_a_problem_not_a_pass() -> None:
    assert len(Rules(schema("self.a ==")).problems) == 1
    assert "quantumLeap" in Rules(schema("quantumLeap(self.a)")).problems[0]


def test_a_rule_that_fails_refuses() -> None:
    assert Rules(schema("self.missing == 1", message="m")).validate({"a": 1}, None)


def test_what_did_not_change_is_not_judged_again() -> None:
    inner = {"type": "object", "properties": {"x": schema("self.a > 1"), "y": {"type": "integer"}}}
    rules = Rules(inner)
    old = {"x": {"a": 1}, "y": 1}
    assert rules.validate({"x": {"a": 1}, "y": 2}, old) == []
    assert len(rules.validate({"x": {"a": 0}, "y": 2}, old)) == 1


@pytest.mark.parametrize("rule", ["1" + "+1" * 50_000 + " > 0", "self" + ".a" * 50_000, "(" * 50_000])
def test_a_rule_that_would_end_the_engine_does_not_compile(rule: str) -> None:
    for declared in (schema(rule), schema("true", messageExpression=rule)):
        (problem,) = Rules(declared).problems
        assert "longer than 10000 characters" in problem and len(problem) < 500


@pytest.mark.parametrize("rule", ["1" + "+1" * 4990 + " > 0", "self" + ".a" * 4990])
def test_the_longest_rules_are_survived(rule: str) -> None:
    rules = Rules(schema(rule))
    assert rules.problems == []
    rules.validate({"a": 1}, None)
