"""Pruning, defaults, type checks; and the protobuf bodies that kubectl sends."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.objects import builtin, wire
from ambit.objects.structural import apply_defaults, drop_nulls, mismatch, prune
from ambit.objects.validation import CompiledSchema

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "size": {"type": "integer", "default": 1},
        "inner": {
            "type": "object",
            "default": {},
            "properties": {"deep": {"type": "boolean", "default": True}},
        },
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "map": {
            "type": "object",
            "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}},
        },
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "size", "inner", "any", "map", "a", "x"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@given(JSON)
def test_pruning_and_defaulting_settle(value: Any) -> None:
    prune(SCHEMA, value)
    assert prune(SCHEMA, value) == []
    apply_defaults(SCHEMA, value)
    assert prune(SCHEMA, value) == []
    once = repr(value)
    apply_defaults(SCHEMA, value)
    assert repr(value) == once


def test_pruning_names_the_places() -> None:
    value = {"x": 1, "any": {"x": 1}, "map": {"k": {"a": "1", "b": 2}}, "inner": {"y": 1}}
    assert prune(SCHEMA, value) == ["x", "map.k.b", "inner.y"]
    assert value == {"any": {"x": 1}, "map": {"k": {"a": "1"}}, "inner": {}}


def test_defaults_reach_inside_defaults() -> None:
    value: dict[str, Any] = {"size": None}
    apply_defaults(SCHEMA, value)
    assert value == {"size": 1, "inner": {"deep": True}}


def test_nulls_of_builtin_kinds_are_absent() -> None:
    schema = builtin.schema_of("", "v1", "Pod") or {}
    body: dict[str, Any] = {"spec": {"containers": [None, {"name": "a", "env": None}], "nodeName": None}}
    drop_nulls(schema, body, builtin.resolve)
    assert body == {"spec": {"containers": [{}, {"name": "a"}]}}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"spec": {"replicas": "1"}},
            "cannot unmarshal string into Go struct field spec.replicas of type int32",
        ),
        (
            {"spec": {"template": {"spec": {"containers": {}}}}},
            "object into Go struct field spec.template.spec",
        ),
        ({"metadata": {"labels": {"a": 1}}}, "number into Go struct field metadata.labels.a of type string"),
    ],
)
def test_wrong_types_of_builtin_kinds(body: Any, text: str) -> None:
    schema = builtin.schema_of("apps", "v1", "Deployment") or {}
    assert text in (mismatch(schema, body, builtin.resolve) or "")


@pytest.mark.parametrize(
    ("schema", "value", "reason", "message"),
    [
        (
            {"type": "string"},
            1,
            "FieldValueTypeInvalid",
            "Invalid value: 1: a in body must be of type string: 1",
        ),
        ({"enum": ["x"]}, "y", "FieldValueNotSupported", 'Unsupported value: "y": supported values: "x"'),
        ({"maxItems": 1}, [1, 2], "FieldValueTooMany", "Too many: 2: must have at most 1 items"),
        ({"maxLength": 1}, "ab", "FieldValueTooLong", "Too long: may not be more than 1 bytes"),
        (
            {"minimum": 2},
            1,
            "FieldValueInvalid",
            "Invalid value: 1: a in body should be greater than or equal to 2",
        ),
    ],
)
def test_complaints_read_like_kubernetes(schema: Any, value: Any, reason: str, message: str) -> None:
    found = CompiledSchema({"type": "object", "properties": {"a": schema}}).validate({"a": value}, None)
    assert found == [(reason, message, "a")]


def test_required_fields_are_named() -> None:
    inner = {"type": "object", "required": ["b"]}
    found = CompiledSchema({"type": "object", "properties": {"a": inner}}).validate({"a": {}}, None)
    assert found == [("FieldValueRequired", "Required value", "a.b")]


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def test_a_protobuf_body() -> None:
    meta = field(1, b"web") + field(11, field(1, b"app") + field(2, b"web"))
    port = field(1, b"http") + field(3, 80) + field(4, field(1, 1) + field(3, b"named"))
    spec = field(1, port) + field(13, field(1, b"s"))[:0]
    type_meta = field(1, b"v1") + field(2, b"Service")
    data = wire.MAGIC + field(1, type_meta) + field(2, field(1, meta) + field(2, spec))
    assert wire.decode_object(data) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": "named"}]},
    }


@given(st.binary(max_size=60))
def test_no_bytes_break_the_protobuf_decoder(data: bytes) -> None:
    head = field(1, field(1, b"v1") + field(2, b"Pod"))
    for body in (data, wire.MAGIC + data, wire.MAGIC + head + field(2, data)):
        try:
            wire.decode_object(body)
        except wire.WireError:
            continue


def test_what_did_not_change_is_not_judged_again() -> None:
    judge = CompiledSchema(
        {
            "type": "object",
            "properties": {"a": {"type": "object", "properties": {"b": {"minimum": 2}}}, "c": {}},
        }
    )
    old = {"a": {"b": 1}, "c": 1}
    assert judge.validate({"a": {"b": 1}, "c": 2}, old) == []
    assert len(judge.validate({"a": {"b": 0}, "c": 2}, old)) == 1
    assert len(judge.validate({"a": {"b": 1}}, None)) == 1
