"""Schemas that a CRD may not have, and all vendored ones, which it may."""

from typing import Any

import pytest

from ambit.objects.crds import read_bundle
from ambit.objects.schema_rules import schema_complaints


def complaints(**properties: Any) -> list[tuple[str, str]]:
    found = schema_complaints({"type": "object", "properties": properties}, "schema")
    return [(path, text) for _, text, path in found]


@pytest.mark.parametrize("bundle", ["istio", "gateway-standard", "gateway-experimental"])
def test_vendored_definitions_are_in_order(bundle: str) -> None:
    definitions: Any = read_bundle(bundle)
    definitions = [each for each in definitions if each["kind"] == "CustomResourceDefinition"]
    assert definitions
    for definition in definitions:
        for version in definition["spec"]["versions"]:
            assert schema_complaints(version["schema"]["openAPIV3Schema"], "") == []


def test_types_are_known_and_there() -> None:
    [(path, text)] = complaints(a={"type": "nope"})
    assert path == "schema.properties[a].type"
    assert text.startswith('Unsupported value: "nope": supported values: "array", "boolean"')
    assert complaints(a={}) == [
        ("schema.properties[a].type", "Required value: must not be empty for specified object fields")
    ]
    assert complaints(a={"type": "array", "items": {}}) == [
        ("schema.properties[a].items.type", "Required value: must not be empty for specified array items")
    ]
    assert complaints(a={"type": "array"}) == [
        ("schema.properties[a].items", "Required value: must be specified")
    ]
    assert (
        complaints(a={"x-kubernetes-int-or-string": True}, b={"x-kubernetes-preserve-unknown-fields": True})
        == []
    )
    assert complaints(a={"type": "object", "additionalProperties": {"type": "x"}})[0][0].endswith(
        "properties[a].additionalProperties.type"
    )


def test_the_root_is_an_object() -> None:
    assert [text for _, text, _ in schema_complaints({"type": "string"}, "")] == [
        'Invalid value: "string": must be object at the root'
    ]
    assert [path for _, _, path in schema_complaints({}, "s")] == ["s.type"]


def test_patterns_compile() -> None:
    [(path, text)] = complaints(a={"type": "string", "pattern": "("})
    assert path == "schema.properties[a].pattern"
    assert "must be a valid regular expression" in text


def test_narrowing_parts_need_no_type() -> None:
    assert complaints(a={"type": "string", "anyOf": [{"pattern": "a"}, {"minLength": 2}]}) == []
