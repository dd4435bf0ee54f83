"""What a CRD's schema must be for objects to be judged by it: typed everywhere, with patterns that compile.

Rules and words: Kubernetes "structural schemas". Inside allOf, anyOf, oneOf and not, which only narrow values,
nothing is demanded.
"""

from collections.abc import Iterator

from ambit.objects.structural import INT_OR_STRING, PRESERVE, Schema
from ambit.objects.validation import CompiledSchema, Complaint

_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def schema_complaints(schema: Schema, path: str) -> list[Complaint]:
    """Everything wrong with a version's openAPIV3Schema, which lies at `path`."""
    found = list(_node(schema, path, "must not be empty at the root"))
    kind = schema.get("type")
    if kind in _TYPES and kind != "object":
        found.append(
            ("FieldValueInvalid", f'Invalid value: "{kind}": must be object at the root', f"{path}.type")
        )
    return found


def _node(schema: Schema, path: str, when_untyped: str) -> Iterator[Complaint]:
    yield from _type(schema, path, when_untyped)
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        try:
            CompiledSchema({"pattern": pattern})
        except ValueError:
            text = f'Invalid value: "{pattern}": must be a valid regular expression'
            yield ("FieldValueInvalid", text, f"{path}.pattern")
    for name, member in schema.get("properties", {}).items():
        yield from _node(
            member, f"{path}.properties[{name}]", "must not be empty for specified object fields"
        )
    for key, what in (("items", "array items"), ("additionalProperties", "object fields")):
        member = schema.get(key)
        if isinstance(member, dict):
            yield from _node(member, f"{path}.{key}", f"must not be empty for specified {what}")
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        yield ("FieldValueRequired", "Required value: must be specified", f"{path}.items")


def _type(schema: Schema, path: str, when_untyped: str) -> Iterator[Complaint]:
    kind = schema.get("type")
    if kind and kind not in _TYPES:
        listed = ", ".join(f'"{each}"' for each in _TYPES)
        text = f'Unsupported value: "{kind}": supported values: {listed}'
        yield ("FieldValueNotSupported", text, f"{path}.type")
    elif not kind and not schema.get(INT_OR_STRING) and not schema.get(PRESERVE):
        yield ("FieldValueRequired", f"Required value: {when_untyped}", f"{path}.type")
