"""Texts that others wrote: as Kubernetes reads them, and bounded whatever they are."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ambit.objects.documents import (
    ALIASED,
    DEPTH,
    Document,
    Duplicate,
    Malformed,
    json_duplicates,
    read_documents,
    read_yaml,
    too_deep,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def one(text: str) -> Any:
    (document,) = read_documents(text)
    return document.value


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@given(PLAIN)
def test_what_was_written_is_read(value: Any) -> None:
    assert one(json.dumps([value])) == [value]
    assert one(yaml.safe_dump([value])) == [value]


def test_as_kubernetes_reads_it() -> None:
    text = """
    when: 2024-01-02
    text: [yes, on, 'true', !!str 7, ~]
    flag: true
    numbers: [1, 0x10, 1.5, 99999999999999999999]
    1: one
    true: two
    base: &base {a: 1, b: 2}
    merged: {<<: *base, b: 3}
    several:
      <<: [{c: 1}, *base]
    """
    assert one(text) == {
        "when": "2024-01-02",
        "text": ["yes", "on", "true", "7", None],
        "flag": True,
        "numbers": [1, 16, 1.5, 1e20],
        "1": "one",
        "true": "two",
        "base": {"a": 1, "b": 2},
        "merged": {"a": 1, "b": 3},
        "several": {"a": 1, "b": 2, "c": 1},
    }


def test_documents_are_apart_and_aliases_are_copies() -> None:
    first, empty, second = read_documents("a: &x [1]\nb: *x\n---\n---\nc: 1\n")
    assert (empty, second) == (Document(None), Document({"c": 1}))
    first.value["a"].append(2)
    assert first.value["b"] == [1]
    with pytest.raises(Malformed, match=r"line 3: \*x has no anchor before it"):
        list(read_yaml("a: &x 1\n---\nb: *x"))


@pytest.mark.parametrize("levels", [DEPTH + 1, 5_000, 200_000])
@pytest.mark.parametrize("form", ["%s", "a: %s", '{"a": %s}', "- &x %s\n- *x"])
def test_depth_is_bounded_before_anything_is_built(form: str, levels: int) -> None:
    with pytest.raises(Malformed, match=f"line 1: nested deeper than {DEPTH} levels"):
        list(read_documents(form % nested(levels)))


def test_depth_that_is_allowed() -> None:
    value = one(nested(DEPTH))
    assert not too_deep(value) and too_deep([value]) and too_deep(value, 1)
    assert not too_deep(one("- " * DEPTH + "a"))


def test_depth_by_aliases_and_block_style() -> None:
    chain = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, DEPTH + 1))
    for text in (chain, "- " * (DEPTH + 1) + "a"):
        with pytest.raises(Malformed, match="nested deeper"):
            list(read_documents(text))


def test_an_alias_bomb_is_refused() -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)
    )
    with pytest.raises(Malformed, match=rf"line \d+: aliases come to more than {ALIASED} values"):
        list(read_documents(bomb))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spec: &x {rules: [*x]}", r"line 1: \*x is inside what it refers to"),
        ("a: 1\nb: [", "line 2|line 3"),
        ("a: !!python/object:os.system x", "line 1: the tag .*python/object:os.system is not known"),
        ("a: !!set {b}", "the tag .*set is not known"),
        ("a: !!int x", "'x' is not a value of"),
        ("? [a]\n: 1", "line 1: a key must be a text"),
        ("~: 1", "a key must be a text"),
        ("<<: 1", "`<<` takes a mapping"),
        ("a: 1" + "0" * 5000, "is not a value of"),
        ("a: \x00", "control characters"),
        ("a: '\ud800'", "surrogates"),
    ],
)
def test_what_cannot_be_taken_is_said(text: str, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        list(read_documents(text))


def test_keys_given_twice_are_told() -> None:
    (found,) = read_documents("spec:\n  rules:\n  - from: 1\n    from: 2\nspec:\n  action: ALLOW\n")
    assert found.value == {"spec": {"action": "ALLOW"}}
    assert found.duplicates == (Duplicate("from", "spec.rules[0].from", 4), Duplicate("spec", "spec", 5))
    (found,) = read_documents('{"a": 1,\n "a": 2}')
    assert found.duplicates == (Duplicate("a", "a", 2),)
    # A merge is no second key.
    assert not next(read_yaml("b: &b {a: 1}\nc: {<<: *b, a: 2}")).duplicates


def test_keys_of_json_given_twice() -> None:
    text = '{"a": [{"b": 1, "b": 2}], "c.d": {"e": 1, "e": 1, "e": 2}, "n": 1%s}' % ("0" * 5000)
    assert json_duplicates(text) == (Duplicate("b", "a[0].b"), Duplicate("e", "c.d.e"))
    assert json_duplicates(text.encode()) == json_duplicates(text)
    assert json_duplicates('{"a": {"b": 1}, "b": ["a"]}') == ()


@given(st.text(alphabet="{}[]&*<>a: -,!|'\"\n1?~%#", max_size=60))
def test_whatever_the_text_nothing_else_is_raised(text: str) -> None:
    try:
        for document in read_documents(text):
            json.dumps(document.value)
    except Malformed:
        pass
