"""Judges objects by their CRD schema, in kubectl's words: (reason, message, field path).

jsonschema-rs does the work; a structural schema is translated into plain JSON Schema first (nullable,
int-or-string, extensions removed). List keys are checked here. Spec: kube-openapi validation messages.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema_rs
import msgspec

from ambit.objects.structural import INT_OR_STRING, Schema

Reason = Literal[
    "FieldValueRequired",
    "FieldValueInvalid",
    "FieldValueNotSupported",
    "FieldValueDuplicate",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
]
Complaint = tuple[Reason, str, str]

_DROPPED = {"description", "default", "example", "externalDocs", "title", "nullable"}
_GO_DURATION = re.compile(r"[-+]?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+|0")
_FORMATS = {
    "duration": lambda text: _GO_DURATION.fullmatch(text) is not None,
    "int-or-string": lambda _: True,
}


def _plain(schema: Any) -> Any:
    if isinstance(schema, bool):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key.startswith("x-kubernetes-") or key in _DROPPED:
            continue
        if key == "properties":
            out[key] = {name: _plain(member) for name, member in value.items()}
        elif key in {"items", "additionalProperties", "not"}:
            out[key] = _plain(value)
        elif key in {"allOf", "anyOf", "oneOf"}:
            out[key] = [_plain(part) for part in value]
        else:
            out[key] = value
    _exclusive(schema, out)
    _loosen(schema, out)
    return out


def _loosen(schema: Schema, out: dict[str, Any]) -> None:
    """Adds the types that extensions allow."""
    if schema.get(INT_OR_STRING):
        out["type"] = ["integer", "string"]
    if schema.get("nullable"):
        if isinstance(out.get("type"), str):
            out["type"] = [out["type"], "null"]
        elif "type" in out:
            out["type"] = [*out["type"], "null"]
        if "enum" in out:
            out["enum"] = [*out["enum"], None]


def _exclusive(schema: Schema, out: dict[str, Any]) -> None:
    """OpenAPI's boolean exclusive bounds become JSON Schema's numeric ones."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(out.get(exclusive), bool):
            del out[exclusive]
        if schema.get(exclusive) is True and bound in out:
            out[exclusive] = out.pop(bound)


def field_path(parts: Any) -> str:
    """`spec.rules[0].name`; map keys that are no identifiers stay as they are."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else str(part)
    return text


def show(value: Any) -> str:
    """The value as JSON, shortened."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else text[:197] + "..."


class CompiledSchema:
    """One openAPIV3Schema, ready to judge objects. Construction compiles; keep it."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._judge = jsonschema_rs.Draft202012Validator(
            _plain(schema), validate_formats=True, formats=_FORMATS, ignore_unknown_formats=True
        )
        self._has_lists = _declares_lists(schema)

    def validate(self, body: Any, old: Any | None) -> list[Complaint]:
        """All complaints, in document order of the schema, but none about parts that are as they were in `old`
        (Kubernetes' validation ratcheting)."""
        found: list[Complaint] = []
        if not self._judge.is_valid(body):
            for error in self._judge.iter_errors(body):
                if old is None or not unchanged(error.instance_path, body, old):
                    found.extend(_complaints(error))
        if self._has_lists and body != old:
            found.extend(_duplicates(self._schema, body, ""))
        return found


def unchanged(path: Any, body: Any, old: Any) -> bool:
    """Whether the value at `path`, or something around it, is the same in both; list items have no counterpart."""
    for step in path:
        if not (isinstance(step, str) and isinstance(body, dict) and isinstance(old, dict)):
            return False
        if step not in body or step not in old:
            return False
        body, old = body[step], old[step]
        if body == old:
            return True
    return False


def _complaints(error: Any) -> Iterator[Complaint]:
    path = field_path(error.instance_path)
    keyword = str(error.schema_path[-1]) if error.schema_path else ""
    for part in reversed(error.schema_path):
        if isinstance(part, str) and part in _WORDS:
            keyword = part
            break
    kind = error.kind
    value = error.instance
    if keyword == "required":
        missing = getattr(kind, "property", "")
        yield ("FieldValueRequired", "Required value", f"{path}.{missing}" if path else missing)
        return
    words = _WORDS.get(keyword)
    if words is None:
        yield ("FieldValueInvalid", f"Invalid value: {show(value)}: {error.message}", path)
        return
    yield words(path, value, kind)


def _limit(kind: Any) -> Any:
    return getattr(kind, "limit", "")


def _invalid(path: str, value: Any, text: str) -> Complaint:
    return ("FieldValueInvalid", f"Invalid value: {show(value)}: {path} in body {text}", path)


def _type(path: str, value: Any, kind: Any) -> Complaint:
    wanted = [one for one in getattr(kind, "types", []) if one != "null"]
    shown = f'"{_type_name(value)}"' if isinstance(value, dict | list) else show(value)
    text = f"{path} in body must be of type {','.join(wanted)}: {shown}"
    return ("FieldValueTypeInvalid", f"Invalid value: {shown}: {text}", path)


def _type_name(value: Any) -> str:
    return "object" if isinstance(value, dict) else "array"


def _enum(path: str, value: Any, kind: Any) -> Complaint:
    options = getattr(kind, "options", [])
    listed = ", ".join(show(one) for one in options)
    return ("FieldValueNotSupported", f"Unsupported value: {show(value)}: supported values: {listed}", path)


def _max_length(path: str, _value: Any, kind: Any) -> Complaint:
    return ("FieldValueTooLong", f"Too long: may not be more than {_limit(kind)} bytes", path)


def _too_many(path: str, value: Any, kind: Any) -> Complaint:
    return ("FieldValueTooMany", f"Too many: {len(value)}: must have at most {_limit(kind)} items", path)


_WORDS: dict[str, Any] = {
    "required": None,
    "type": _type,
    "enum": _enum,
    "pattern": lambda p, v, k: _invalid(p, v, f"should match '{getattr(k, 'pattern', '')}'"),
    "format": lambda p, v, k: _invalid(p, v, f"must be of type {getattr(k, 'format', '')}: {show(v)}"),
    "minLength": lambda p, v, k: _invalid(p, v, f"should be at least {_limit(k)} chars long"),
    "maxLength": _max_length,
    "minItems": lambda p, v, k: _invalid(p, v, f"should have at least {_limit(k)} items"),
    "maxItems": _too_many,
    "minProperties": lambda p, v, k: _invalid(p, v, f"should have at least {_limit(k)} properties"),
    "maxProperties": lambda p, v, k: _invalid(p, v, f"must have at most {_limit(k)} properties"),
    "minimum": lambda p, v, k: _invalid(p, v, f"should be greater than or equal to {_limit(k)}"),
    "maximum": lambda p, v, k: _invalid(p, v, f"should be less than or equal to {_limit(k)}"),
    "exclusiveMinimum": lambda p, v, k: _invalid(p, v, f"should be greater than {_limit(k)}"),
    "exclusiveMaximum": lambda p, v, k: _invalid(p, v, f"should be less than {_limit(k)}"),
    "multipleOf": lambda p, v, k: _invalid(p, v, f"should be a multiple of {getattr(k, 'multiple_of', '')}"),
    "oneOf": lambda p, v, k: _invalid(p, v, "must validate one and only one schema (oneOf)"),
    "anyOf": lambda p, v, k: _invalid(p, v, "must validate at least one schema (anyOf)"),
    "not": lambda p, v, k: _invalid(p, v, "must not validate the schema (not)"),
}


def _declares_lists(schema: Schema) -> bool:
    if schema.get("x-kubernetes-list-type") in {"map", "set"}:
        return True
    parts = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return any(_declares_lists(part) for part in parts if isinstance(part, dict))


def _duplicates(schema: Schema, value: Any, path: str) -> Iterator[Complaint]:
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        for name, item in value.items():
            member = properties.get(name, extra)
            if isinstance(member, dict) and isinstance(item, dict | list):
                yield from _duplicates(member, item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        yield from _duplicate_items(schema, value, path)
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                yield from _duplicates(items, item, f"{path}[{index}]")


def _duplicate_items(schema: Schema, value: list[Any], path: str) -> Iterator[Complaint]:
    kind = schema.get("x-kubernetes-list-type")
    if kind not in {"map", "set"}:
        return
    keys = schema.get("x-kubernetes-list-map-keys", ())
    seen = set()
    for index, item in enumerate(value):
        identity: Any = item
        if kind == "map":
            identity = {key: item.get(key) for key in keys if key in item} if isinstance(item, dict) else item
        text = show(identity)
        if text in seen:
            yield ("FieldValueDuplicate", f"Duplicate value: {text}", f"{path}[{index}]")
        seen.add(text)
