"""Walks values along structural schemas: unknown fields, type mismatches, defaults, list keys.

Schemas are OpenAPI v3 as CRDs write them, plus bare-name `$ref` for built-in kinds (`builtin.py`). Rules:
Kubernetes "structural schemas" (pruning, defaulting, x-kubernetes-* extensions).
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]
Resolve = Callable[[Schema], Schema]

PRESERVE = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
INT_OR_STRING = "x-kubernetes-int-or-string"
QUANTITY = "x-kubernetes-quantity"
_RESOURCE_FIELDS = ("apiVersion", "kind", "metadata")


def inline(schema: Schema) -> Schema:
    """The resolver of schemas without references (those of CRDs)."""
    return schema


def child(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def field_schema(schema: Schema, name: str) -> Schema | None:
    """The schema of a member of an object; None when it is not declared."""
    found = schema.get("properties", {}).get(name)
    if found is None:
        found = schema.get("additionalProperties")
        if not isinstance(found, Mapping):
            return {PRESERVE: True} if found is True else None
    return found  # type: ignore[no-any-return]


def prune(schema: Schema, value: Any, resolve: Resolve = inline, path: str = "") -> list[str]:
    """Removes undeclared members in place and returns their paths."""
    schema = resolve(schema)
    if isinstance(value, list):
        items = schema.get("items")
        if items is None:
            return []
        return [
            found
            for index, item in enumerate(value)
            for found in prune(items, item, resolve, f"{path}[{index}]")
        ]
    if not isinstance(value, dict):
        return []
    keep = bool(schema.get(PRESERVE))
    embedded = bool(schema.get(EMBEDDED))
    unknown: list[str] = []
    for name in tuple(value):
        member = field_schema(schema, name)
        if member is not None:
            unknown += prune(member, value[name], resolve, child(path, name))
        elif not keep and not (embedded and name in _RESOURCE_FIELDS):
            del value[name]
            unknown.append(child(path, name))
    return unknown


def drop_nulls(schema: Schema, value: Any, resolve: Resolve = inline) -> None:
    """Removes nulls where the schema does not say `nullable`; a null item of a list of objects is an empty one.

    Decoding into Go types does the same.
    """
    schema = resolve(schema)
    if isinstance(value, list):
        items = schema.get("items", {})
        empty = resolve(items).get("type") == "object" and not resolve(items).get("nullable")
        for index, item in enumerate(value):
            if item is None and empty:
                value[index] = {}
            drop_nulls(items, item, resolve)
    elif isinstance(value, dict):
        for name in tuple(value):
            member = field_schema(schema, name)
            if member is None:
                continue
            if value[name] is None:
                target = resolve(member)
                if not target.get("nullable") and not target.get(PRESERVE):
                    del value[name]
            else:
                drop_nulls(member, value[name], resolve)


def apply_defaults(schema: Schema, value: Any, resolve: Resolve = inline) -> None:
    """Fills in declared defaults in place, from the outside in. A null that is not nullable gets the
    default."""
    schema = resolve(schema)
    if isinstance(value, list):
        for item in value if "items" in schema else ():
            apply_defaults(schema["items"], item, resolve)
        return
    if not isinstance(value, dict):
        return
    for name, member in schema.get("properties", {}).items():
        if "default" in member and (
            name not in value or (value[name] is None and not member.get("nullable"))
        ):
            value[name] = copy.deepcopy(member["default"])
        if name in value:
            apply_defaults(member, value[name], resolve)
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        for name in value.keys() - schema.get("properties", {}).keys():
            apply_defaults(extra, value[name], resolve)


def has_defaults(schema: Schema) -> bool:
    """Whether any node declares a default; then stored objects are defaulted on read as well."""
    if "default" in schema:
        return True
    parts = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return any(has_defaults(part) for part in parts if isinstance(part, Mapping))


_GO_TYPES = {"int32": "int32", "int64": "int64", "double": "float64"}


def mismatch(schema: Schema, value: Any, resolve: Resolve = inline, path: str = "") -> str | None:
    """The first value of a wrong JSON type, in the words of Go's decoder; None when all fit."""
    if value is None:
        return None
    schema = resolve(schema)
    wrong = _wrong_type(schema, value)
    if wrong:
        return (
            f"json: cannot unmarshal {_json_type(value)} into Go struct field {path or '.'} of type {wrong}"
        )
    if isinstance(value, dict):
        for name, item in value.items():
            member = field_schema(schema, name)
            if member is not None and (found := mismatch(member, item, resolve, child(path, name))):
                return found
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            if found := mismatch(schema["items"], item, resolve, path):
                return found
    return None


def _wrong_type(schema: Schema, value: Any) -> str | None:
    if schema.get(INT_OR_STRING):
        return None if isinstance(value, str | int) and not isinstance(value, bool) else "intstr.IntOrString"
    if schema.get(QUANTITY):
        fits = isinstance(value, str | int | float) and not isinstance(value, bool)
        return None if fits else "resource.Quantity"
    match schema.get("type"):
        case "string":
            return None if isinstance(value, str) else "string"
        case "boolean":
            return None if isinstance(value, bool) else "bool"
        case "integer":
            fits = isinstance(value, int) and not isinstance(value, bool)
            return None if fits else _GO_TYPES.get(schema.get("format", ""), "int64")
        case "number":
            fits = isinstance(value, int | float) and not isinstance(value, bool)
            return None if fits else "float64"
        case "array":
            return None if isinstance(value, list) else "[]"
        case "object" if "properties" in schema or "additionalProperties" in schema:
            return None if isinstance(value, dict) else "map"
    return None


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
