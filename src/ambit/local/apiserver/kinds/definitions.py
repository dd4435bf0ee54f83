"""What a CustomResourceDefinition says: its resources, whether its names are accepted, whether its rules
can be enforced.

Spec: apiextensions v1; conversion strategy None only.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from ambit.local.apiserver.conditions import merge_conditions
from ambit.local.apiserver.failures import Cause
from ambit.local.apiserver.resources import ALL_VERBS, Registry, Resource, ScalePaths
from ambit.local.apiserver.storage.store import Json
from ambit.objects.cel import Rules
from ambit.objects.schema_rules import schema_complaints
from ambit.objects.structural import Schema
from ambit.objects.validation import CompiledSchema

STORAGE = "customresourcedefinitions.apiextensions.k8s.io"
RULES_CONDITION = "ValidationRulesCompile"
"""Our own condition: False when CEL rules of a definition cannot be enforced."""


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


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    group: str
    names: _Names
    scope: str
    versions: tuple[_Version, ...]


class Definition(msgspec.Struct, frozen=True):
    spec: Spec


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(".") if part)


def resources_of(spec: Spec, definition: str) -> list[Resource]:
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


def schema_causes(schema: Schema, path: str) -> list[Cause]:
    """Why objects cannot be judged by the schema at `path`; empty when they can."""
    if complaints := schema_complaints(schema, path):
        return [Cause(*complaint) for complaint in complaints]
    try:
        CompiledSchema(schema)
    except ValueError as error:
        return [Cause("FieldValueInvalid", f"Invalid value: {str(error).splitlines()[0]}", path)]
    return []


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
