"""Kinds defined by CustomResourceDefinitions: registration, accepted names, and their shapes.

A definition's schema is decoded and compiled on first use of the kind, not at start.
Spec: apiextensions v1; conversion strategy None only (versions differ in apiVersion alone).
"""

import copy
from collections.abc import Sequence
from typing import Any

import msgspec

from ambit.local.apiserver import clock
from ambit.local.apiserver.failures import Cause
from ambit.local.apiserver.kinds import read_fields
from ambit.local.apiserver.resources import ALL_VERBS, Registry, Resource, ScalePaths
from ambit.local.apiserver.shapes import FieldValidation, Shape
from ambit.local.apiserver.store import Event, Json, Store
from ambit.objects import builtin
from ambit.objects.cel import Rules
from ambit.objects.structural import Schema, apply_defaults, has_defaults, mismatch
from ambit.objects.validation import CompiledSchema

RULES_CONDITION = "ValidationRulesCompile"
"""Our own condition: False when CEL rules of a definition cannot be enforced."""
STORAGE = "customresourcedefinitions.apiextensions.k8s.io"


class _Names(msgspec.Struct, frozen=True, rename="camel"):
    plural: str
    kind: str
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class _Scale(msgspec.Struct, frozen=True, rename="camel"):
    spec_replicas_path: str
    status_replicas_path: str
    label_selector_path: str = ""


class _Subresources(msgspec.Struct, frozen=True):
    status: dict[str, Any] | None = None
    scale: _Scale | None = None


class _SelectableField(msgspec.Struct, frozen=True, rename="camel"):
    json_path: str


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    served: bool = True
    storage: bool = False
    deprecated: bool = False
    deprecation_warning: str = ""
    subresources: _Subresources = _Subresources()
    selectable_fields: tuple[_SelectableField, ...] = ()


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    group: str
    names: _Names
    scope: str
    versions: tuple[_Version, ...]


class _Definition(msgspec.Struct, frozen=True):
    spec: _Spec


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(".") if part)


def resources_of(spec: _Spec, definition: str) -> list[Resource]:
    """One resource per served version."""
    names = spec.names
    stored = next((version.name for version in spec.versions if version.storage), spec.versions[0].name)
    found = []
    for version in spec.versions:
        if not version.served:
            continue
        scale = version.subresources.scale
        warning = version.deprecation_warning or (
            f"{spec.group}/{version.name} {names.kind} is deprecated" if version.deprecated else ""
        )
        found.append(
            Resource(
                group=spec.group,
                version=version.name,
                plural=names.plural,
                kind=names.kind,
                singular=names.singular or names.kind.lower(),
                list_kind=names.list_kind or f"{names.kind}List",
                namespaced=spec.scope == "Namespaced",
                short_names=names.short_names,
                categories=names.categories,
                verbs=ALL_VERBS,
                has_status=version.subresources.status is not None,
                scale=ScalePaths(
                    _path(scale.spec_replicas_path),
                    _path(scale.status_replicas_path),
                    _path(scale.label_selector_path),
                )
                if scale
                else None,
                generation=True,
                storage=f"{names.plural}.{spec.group}",
                storage_version=stored,
                custom=definition,
                selectable=tuple(field.json_path.lstrip(".") for field in version.selectable_fields),
                deprecation=warning,
            )
        )
    return found


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


def schema_problem(schema: Schema) -> str | None:
    """Why objects cannot be judged by a schema (a pattern that is no regular expression, say); None when they can."""
    if schema.get("type") != "object":
        return 'the root of a schema must have type "object"'
    try:
        CompiledSchema(schema)
    except ValueError as error:
        return str(error)
    return None


def declares_rules(schema: Schema) -> bool:
    """Whether any node has CEL rules; the engine is loaded only then."""
    if schema.get("x-kubernetes-validations"):
        return True
    parts = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return any(declares_rules(part) for part in parts if isinstance(part, dict))


def compile_rules(schema: Schema) -> Rules | None:
    return Rules(schema) if declares_rules(schema) else None


def rule_problems(body: Json) -> list[str]:
    """The CEL rules of a definition that cannot be compiled."""
    problems: list[str] = []
    for version in (body.get("spec") or {}).get("versions") or ():
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        rules = compile_rules(schema)
        problems += [f"version {version['name']}: {one}" for one in (rules.problems if rules else ())]
    return problems


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
        spec = msgspec.json.decode(data, type=_Definition).spec
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


def complete(body: Json, registry: Registry, problems: Sequence[str] = ()) -> None:
    """Fills in name defaults and status of a definition in place: names are accepted or conflict, then it
    is established."""
    spec = body["spec"]
    names = spec["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", names["kind"] + "List")
    spec.setdefault("conversion", {"strategy": "None"})
    status = body.setdefault("status", {})
    stored = [version["name"] for version in spec["versions"] if version.get("storage")]
    status["storedVersions"] = list(dict.fromkeys([*(status.get("storedVersions") or []), *stored]))
    name = body["metadata"]["name"]
    rival = next(
        (
            one
            for one in registry
            if one.group == spec["group"] and one.custom != name and one.kind == names["kind"]
        ),
        None,
    )
    accepted = rival is None
    if accepted:
        status["acceptedNames"] = {key: value for key, value in names.items() if value}
    conditions = [
        ("NamesAccepted", accepted, "NoConflicts" if accepted else "KindConflict", "no conflicts found"),
        (
            "Established",
            accepted,
            "InitialNamesAccepted" if accepted else "NotAccepted",
            "the initial names have been accepted",
        ),
    ]
    if rival is not None:
        text = f'"{names["kind"]}" is already in use'
        conditions = [(kind, good, reason, text) for kind, good, reason, _ in conditions]
    if problems:
        conditions.append((RULES_CONDITION, False, "RulesDoNotCompile", "; ".join(problems)))
    held = [one for one in status.get("conditions") or [] if one["type"] != RULES_CONDITION or problems]
    status["conditions"] = merge_conditions(held, conditions)


def merge_conditions(old: list[Json], new: list[tuple[str, bool, str, str]]) -> list[Json]:
    """Keeps transition times of conditions whose status did not change."""
    former = {one["type"]: one for one in old}
    for kind, good, reason, message in new:
        status = "True" if good else "False"
        last = former.get(kind, {})
        since = last.get("lastTransitionTime") if last.get("status") == status else None
        former[kind] = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since or clock.now(),
        }
    return list(former.values())


def schema_for_openapi(kinds: CustomKinds, resource: Resource) -> Schema:
    """The published schema: the declared one with the usual top-level members."""
    return kinds.shape(resource).schema
