"""Schemas of built-in Kubernetes kinds, from the vendored OpenAPI document; read on first use."""

from functools import cache
from typing import Any

from ambit.objects.crds import read_bundle
from ambit.objects.structural import Schema

OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


@cache
def definitions() -> dict[str, Any]:
    """All definitions by name, without descriptions."""
    found: dict[str, Any] = read_bundle("kubernetes")
    return found


@cache
def _kinds() -> dict[tuple[str, str, str], str]:
    kinds = {}
    for name, schema in definitions().items():
        for gvk in schema.get("x-kubernetes-group-version-kind", ()):
            kinds[gvk["group"], gvk["version"], gvk["kind"]] = name
    return kinds


def definition_name(group: str, version: str, kind: str) -> str | None:
    """The definition's name (`io.k8s.api.core.v1.Pod`), or None for unknown kinds."""
    return _kinds().get((group, version, kind))


_RESOLVED: dict[int, tuple[Schema, Schema]] = {}
"""Identity of a reference with siblings -> the reference (kept, so that its identity stays its own) and the result."""


def schema_of(group: str, version: str, kind: str) -> Schema | None:
    """The schema of a kind; its references are followed with `resolve`."""
    name = definition_name(group, version, kind)
    return definitions()[name] if name else None


def resolve(schema: Schema) -> Schema:
    """Follows a reference; extensions beside it (list keys, merge keys) win over the target's."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    target: Schema = resolve(definitions()[reference])
    if len(schema) == 1:
        return target
    found = _RESOLVED.get(id(schema))
    if found is None:
        own = {key: value for key, value in schema.items() if key != "$ref"}
        found = _RESOLVED[id(schema)] = (schema, {**target, **own})
    return found[1]


def object_meta() -> Schema:
    """ObjectMeta, for kinds of CRDs."""
    found: Schema = definitions()[OBJECT_META]
    return found
