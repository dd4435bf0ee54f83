"""Strategic merge patch of built-in kinds, guided by the merge keys in their schemas. Pure.

Spec: "Strategic Merge Patch" (sig-api-machinery): directives `$patch`, `$retainKeys`,
`$deleteFromPrimitiveList/...`, `$setElementOrder/...`. A null deletes.
"""

import copy
from typing import Any

from ambit.objects.structural import PRESERVE, Resolve, Schema, field_schema


class PatchError(Exception):
    """A patch is malformed, does not fit the document, or asks for a value that is not there."""


_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"
_ANY: Schema = {PRESERVE: True}


def strategic_patch(document: Any, patch: Any, schema: Schema, resolve: Resolve) -> Any:
    """The document after the patch; arguments are not changed. Raises PatchError."""
    if not isinstance(patch, dict):
        raise PatchError("a strategic merge patch is an object")
    return _merge_map(document if isinstance(document, dict) else {}, patch, schema, resolve)


def _strategies(schema: Schema) -> set[str]:
    return set(str(schema.get("x-kubernetes-patch-strategy", "")).split(","))


def _merge_map(document: dict[str, Any], patch: dict[str, Any], schema: Schema, resolve: Resolve) -> Any:
    schema = resolve(schema)
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive == "replace":
        return _plain({key: value for key, value in patch.items() if key != "$patch"})
    if directive not in {None, "merge"}:
        raise PatchError(f"unknown directive $patch: {directive}")
    merged = dict(document)
    if isinstance(patch.get("$retainKeys"), list):
        merged = {key: value for key, value in merged.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith(_DELETE_FROM):
            name = key.removeprefix(_DELETE_FROM)
            value = _list(key, value)
            merged[name] = [one for one in _list(name, merged.get(name) or []) if one not in value]
        elif not key.startswith("$"):
            _merge_member(merged, key, value, field_schema(schema, key) or _ANY, resolve)
    for key, order in patch.items():
        if key.startswith(_ORDER):
            name = key.removeprefix(_ORDER)
            order = _list(key, order)
            if isinstance(merged.get(name), list):
                member = resolve(field_schema(schema, name) or _ANY)
                merged[name] = _ordered(merged[name], order, member.get("x-kubernetes-patch-merge-key"))
    return merged


def _merge_member(merged: dict[str, Any], key: str, value: Any, schema: Schema, resolve: Resolve) -> None:
    if value is None:
        merged.pop(key, None)
        return
    current, full = merged.get(key), resolve(schema)
    if isinstance(value, dict):
        merged[key] = _merge_map(current if isinstance(current, dict) else {}, value, full, resolve)
    elif isinstance(value, list) and "merge" in _strategies(full):
        merged[key] = _merge_list(current if isinstance(current, list) else [], value, full, resolve)
    else:
        merged[key] = _plain(value)


def _merge_list(current: list[Any], patch: list[Any], schema: Schema, resolve: Resolve) -> list[Any]:
    merge_key = schema.get("x-kubernetes-patch-merge-key")
    if merge_key is None:
        return [*current, *(one for one in patch if one not in current)]
    for item in patch:
        if not isinstance(item, dict):
            raise PatchError(f"{item!r} is no object")
    if any(one.get("$patch") == "replace" for one in patch):
        return [_plain(one) for one in patch if one.get("$patch") != "replace"]
    merged = [copy.deepcopy(one) for one in current]
    items = schema.get("items", _ANY)
    for item in patch:
        if merge_key not in item:
            raise PatchError(f"map: {item!r} does not contain declared merge key: {merge_key}")
        found = [index for index, one in enumerate(merged) if one.get(merge_key) == item[merge_key]]
        if item.get("$patch") == "delete":
            for index in reversed(found):
                del merged[index]
        elif found:
            merged[found[0]] = _merge_map(merged[found[0]], item, items, resolve)
        else:
            merged.append(_merge_map({}, item, items, resolve))
    return merged


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise PatchError(f"{name} is a list")
    return value


def _ordered(items: list[Any], order: list[Any], merge_key: str | None) -> list[Any]:
    """Items named in `order` in that order; others keep their place after the item they followed."""

    def identity(item: Any) -> Any:
        return item.get(merge_key) if merge_key and isinstance(item, dict) else item

    wanted = [identity(one) for one in order]
    listed = sorted(
        (one for one in items if identity(one) in wanted), key=lambda one: wanted.index(identity(one))
    )
    queue = iter(listed)
    return [next(queue) if identity(item) in wanted else item for item in items]


def _plain(value: Any) -> Any:
    """A copy without directives and nulls, for values that replace."""
    if isinstance(value, dict):
        return {
            key: _plain(item) for key, item in value.items() if not key.startswith("$") and item is not None
        }
    if isinstance(value, list):
        return [
            _plain(item) for item in value if not (isinstance(item, dict) and item.get("$patch") == "delete")
        ]
    return value
