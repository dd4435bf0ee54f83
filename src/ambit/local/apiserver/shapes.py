"""What an object of a kind may contain: unknown fields, types, defaults and validity, the same for
built-in kinds and CRDs."""

from typing import Any, Literal

from ambit.local.apiserver.failures import Cause, bad_request
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.storage.store import Json
from ambit.objects import builtin
from ambit.objects.structural import Schema, drop_nulls, mismatch, prune

FieldValidation = Literal["Strict", "Warn", "Ignore"]


class Shape:
    """A kind in one version. This base class knows schemas; built-in kinds add rules in `strategies`."""

    def __init__(self, resource: Resource, schema: Schema) -> None:
        self.resource = resource
        self.schema = schema

    def resolve(self, schema: Schema) -> Schema:
        return builtin.resolve(schema)

    def receive(self, body: Json, mode: FieldValidation) -> list[str]:
        """Checks types and drops unknown fields in place. Returns warnings; raises ApiFailure 400."""
        if wrong := self.wrong_type(body):
            raise bad_request(self._prefix() + wrong)
        drop_nulls(self.schema, body, self.resolve)
        unknown = [f'unknown field "{path}"' for path in prune(self.schema, body, self.resolve)]
        if unknown and mode == "Strict":
            raise bad_request(self._prefix() + "strict decoding error: " + ", ".join(unknown))
        return unknown if mode == "Warn" else []

    def wrong_type(self, body: Json) -> str | None:
        """The first value that cannot be decoded, in the words of Go's decoder."""
        return mismatch(self.schema, body, self.resolve)

    def _prefix(self) -> str:
        kind, version = self.resource.kind, self.resource.version
        return f'{kind} in version "{version}" cannot be handled as a {kind}: '

    def default(self, body: Json) -> None:
        """Fills in schema defaults in place."""

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        """What the schema forbids; `old` for rules about changes."""
        return []

    def strategic(self) -> bool:
        """Whether strategic merge patches are understood (built-in kinds only)."""
        return True


def builtin_shape(resource: Resource) -> Shape:
    schema: Any = builtin.schema_of(resource.group, resource.version, resource.kind)
    return Shape(resource, schema or {"x-kubernetes-preserve-unknown-fields": True})
