"""Kinds defined by CustomResourceDefinitions: their registration and their shapes.

A definition's schema is decoded and compiled on first use of the kind, not at start.
Spec: apiextensions v1; conversion strategy None only (versions differ in apiVersion alone).
"""

import copy
from typing import Any

import msgspec

from ambit.local.apiserver.failures import Cause
from ambit.local.apiserver.kinds.builtin import read_fields
from ambit.local.apiserver.kinds.definitions import STORAGE, Definition, compile_rules, resources_of
from ambit.local.apiserver.resources import Registry, Resource
from ambit.local.apiserver.shapes import FieldValidation, Shape
from ambit.local.apiserver.storage.store import Event, Json, Store
from ambit.objects import builtin
from ambit.objects.structural import apply_defaults, has_defaults, mismatch
from ambit.objects.validation import CompiledSchema


class CustomShape(Shape):
    """The shape of one version of a custom kind."""

    def __init__(self, resource: Resource, schema: Json) -> None:
        properties = {
            **schema.get("properties", {}),
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": builtin.OBJECT_META},
        }
        super().__init__(resource, {"type": "object", **schema, "properties": properties})
        self._compiled = CompiledSchema(schema)
        self._rules = compile_rules(schema)
        self.defaulted = has_defaults(schema)

    def wrong_type(self, body: Json) -> str | None:
        """Only metadata is decoded here; `validate` judges the rest, with field paths."""
        metadata = body.get("metadata")
        return (
            None if metadata is None else mismatch(builtin.object_meta(), metadata, self.resolve, "metadata")
        )

    def default(self, body: Json) -> None:
        if self.defaulted:
            apply_defaults(self.schema, body, self.resolve)

    def validate(self, body: Json, old: Json | None) -> list[Cause]:
        found = self._compiled.validate(body, old)
        if not found and self._rules is not None:
            found = self._rules.validate(body, old)
        return [Cause(*complaint) for complaint in found]

    def receive(self, body: Json, mode: FieldValidation) -> list[str]:
        """Warns, besides, of rules that cannot be enforced."""
        warnings = super().receive(body, mode)
        return [*warnings, *(self._rules.problems if self._rules else ())]

    def strategic(self) -> bool:
        return False


class CustomKinds:
    """Keeps the registry in step with the stored definitions."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._shapes: dict[tuple[str, str], CustomShape] = {}
        for entry in store.select(STORAGE):
            self._register(entry.name, entry.data)
        store.on_change.append(self._changed)

    def _changed(self, storage: str, event: Event) -> None:
        if storage != STORAGE:
            return
        name = event.new.name
        if event.kind == "MODIFIED" and event.old is not None:
            before, after = _generation(event.old.decode()), _generation(event.new.decode())
            if before == after:
                return
        for key in [key for key in self._shapes if key[0] == name]:
            del self._shapes[key]
        self._registry.remove_custom(name)
        if event.kind == "DELETED":
            self._store.drop(name)
        else:
            self._register(name, event.new.data)
            if event.kind == "MODIFIED":
                self._default_stored(name)

    def _default_stored(self, name: str) -> None:
        """New defaults show in objects that were stored before (Kubernetes applies them on every read)."""
        found = [one for one in self._registry if one.custom == name]
        resource = next((one for one in found if one.version == one.storage_version), None)
        if resource is None or not self._store.select(resource.storage):
            return
        shape = self.shape(resource)

        def change(body: Json) -> bool:
            before = copy.deepcopy(body)
            shape.default(body)
            return body != before

        if shape.defaulted:
            self._store.rewrite(resource.storage, change)

    def _register(self, name: str, data: bytes) -> None:
        spec = msgspec.json.decode(data, type=Definition).spec
        fields: dict[str, None] = {}
        resources = resources_of(spec, name)
        for resource in resources:
            self._registry.add(resource)
            fields.update(dict.fromkeys(resource.selectable))
        if fields:
            self._store.select_by(resources[0].storage, read_fields(tuple(fields)))

    def registry_generation(self) -> int:
        """Changes whenever a definition changes; for caches of what definitions say."""
        return self._registry.generation

    def shape(self, resource: Resource) -> CustomShape:
        """Compiled on first use."""
        key = (resource.custom, resource.version)
        found = self._shapes.get(key)
        if found is None:
            found = self._shapes[key] = CustomShape(resource, self.version(resource).get("schema", {}))
        return found

    def version(self, resource: Resource) -> Json:
        """The version's part of the definition; its schema is `schema` (openAPIV3Schema, or preserve-all)."""
        entry = self._store.get(STORAGE, "", resource.custom)
        versions = entry.decode()["spec"]["versions"] if entry else []
        version: Json = next((one for one in versions if one["name"] == resource.version), {})
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        return {
            **version,
            "schema": schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        }


def _generation(body: Json) -> Any:
    return body["metadata"].get("generation")
