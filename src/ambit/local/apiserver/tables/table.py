"""Table answers: the columns kubectl prints. Built-in kinds have fixed ones, custom kinds declare theirs.

Spec: meta/v1 Table; CRD `additionalPrinterColumns` (apiextensions `tableconvertor`).
"""

from typing import Any

from ambit.local.apiserver.kinds.custom import CustomKinds
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.tables import others, pods
from ambit.local.apiserver.tables.columns import AGE, NAME, Column, since
from ambit.local.apiserver.tables.jsonpath import JsonPathError, find
from ambit.objects.validation import show

_BUILTIN = {**pods.COLUMNS, **others.COLUMNS}
_DEFAULT = (NAME, AGE)


def _printer_cell(path: str, kind: str) -> Any:
    def cell(body: Json) -> Any:
        try:
            found = [one for one in find(path, body) if one is not None]
        except JsonPathError:
            return None
        if not found:
            return None
        if kind == "date":
            return since(str(found[0]))
        if kind in {"integer", "number", "boolean"} and isinstance(found[0], int | float):
            return found[0]
        return ",".join(_text(one) for one in found)

    return cell


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return show(value)
    return str(value)


def printer_columns(declared: list[Json]) -> tuple[Column, ...]:
    """The columns a CRD version declares; Name comes first always."""
    if not declared:
        return _DEFAULT
    found = [
        Column(
            one["name"],
            _printer_cell(one["jsonPath"], one["type"]),
            int(one.get("priority") or 0),
            one["type"] if one["type"] in {"integer", "number", "boolean"} else "string",
            one.get("format") or "",
        )
        for one in declared
    ]
    return (NAME, *found)


class Tables:
    """Renders objects as rows."""

    def __init__(self, custom: CustomKinds) -> None:
        self._custom = custom
        self._printed: dict[tuple[str, str, int], tuple[Column, ...]] = {}

    def columns(self, resource: Resource) -> tuple[Column, ...]:
        if not resource.custom:
            return _BUILTIN.get(resource.storage, _DEFAULT)
        key = (resource.custom, resource.version, self._custom.registry_generation())
        found = self._printed.get(key)
        if found is None:
            declared = self._custom.version(resource).get("additionalPrinterColumns") or []
            self._printed = {one: value for one, value in self._printed.items() if one[2] == key[2]}
            found = self._printed[key] = printer_columns(declared)
        return found

    def table(self, resource: Resource, bodies: list[Json], include: str) -> Json:
        """A Table without list metadata; `include` is None, Metadata or Object."""
        columns = self.columns(resource)
        rows = []
        for body in bodies:
            row: Json = {"cells": [column.cell(body) for column in columns]}
            if include == "Object":
                row["object"] = body
            elif include != "None":
                row["object"] = {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": body["metadata"],
                }
            rows.append(row)
        definitions = [
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": "",
                "priority": column.priority,
            }
            for column in columns
        ]
        return {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "columnDefinitions": definitions,
            "rows": rows,
        }
