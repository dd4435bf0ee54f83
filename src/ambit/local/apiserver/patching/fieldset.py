"""Sets of field paths, the currency of server-side apply. Pure.

A path is a tuple of elements in the spelling of `fieldsV1`: `f:name` (member), `k:{...}` (item of a keyed
list), `v:...`
(member of a set). Which lists and maps have parts is the schema's word (`x-kubernetes-list-type`, `-map-type`).
Spec: structured-merge-diff v4, `fieldpath` and `typed.ToFieldSet`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from ambit.objects.structural import PRESERVE, Resolve, Schema, field_schema

Path = tuple[str, ...]
Paths = frozenset[Path]
_ANY: Schema = {PRESERVE: True}


def list_type(schema: Schema) -> str:
    """`map`, `set` or `atomic`."""
    return str(schema.get("x-kubernetes-list-type") or "atomic")


def is_atomic_map(schema: Schema) -> bool:
    return schema.get("x-kubernetes-map-type") == "atomic"


def member(schema: Schema, name: str, resolve: Resolve) -> Schema:
    """The resolved schema of a member; undeclared members may hold anything."""
    return resolve(field_schema(schema, name) or _ANY)


def item_schema(schema: Schema, resolve: Resolve) -> Schema:
    return resolve(schema.get("items") or _ANY)


def item_key(schema: Schema, item: Any, resolve: Resolve) -> str | None:
    """The element naming an item of a keyed list; None when a key is missing without a default."""
    properties = item_schema(schema, resolve).get("properties", {})
    keys: dict[str, Any] = {}
    for key in schema.get("x-kubernetes-list-map-keys") or ():
        # The vendored OpenAPI v2 document does not carry the one default that key fields have.
        default = properties.get(key, {}).get("default", "TCP" if key == "protocol" else None)
        value = item.get(key, default) if isinstance(item, dict) else None
        if value is not None:
            keys[key] = value
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode() if keys else None


def set_element(value: Any) -> str:
    return "v:" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def paths_of(schema: Schema, value: Any, resolve: Resolve) -> Paths:
    """Every field that the value sets."""
    return frozenset(_walk(resolve(schema), value, resolve, ()))


def _walk(schema: Schema, value: Any, resolve: Resolve, path: Path) -> Iterator[Path]:
    if isinstance(value, dict) and value and not is_atomic_map(schema):
        for name, item in value.items():
            yield from _walk(member(schema, name, resolve), item, resolve, (*path, f"f:{name}"))
    elif isinstance(value, list) and value and list_type(schema) == "map":
        items = item_schema(schema, resolve)
        for item in value:
            key = item_key(schema, item, resolve)
            if key is not None:
                yield (*path, key)
                yield from _walk(items, item, resolve, (*path, key))
    elif isinstance(value, list) and value and list_type(schema) == "set":
        for item in value:
            yield (*path, set_element(item))
    elif path:
        yield path


def changes(schema: Schema, old: Any, new: Any, resolve: Resolve) -> tuple[Paths, Paths]:
    """Fields that are new or have another value, and fields that are gone. Equal parts are not walked."""
    gained: set[Path] = set()
    lost: set[Path] = set()
    _compare(resolve(schema), old, new, resolve, (), gained, lost)
    return frozenset(gained), frozenset(lost - gained)


def _compare(
    schema: Schema, old: Any, new: Any, resolve: Resolve, path: Path, gained: set[Path], lost: set[Path]
) -> None:
    if old == new and type(old) is type(new):
        return
    if old and new and isinstance(old, dict) and isinstance(new, dict) and not is_atomic_map(schema):
        for name in old.keys() | new.keys():
            inner, step = member(schema, name, resolve), (*path, f"f:{name}")
            if name not in new:
                lost.update(_walk(inner, old[name], resolve, step))
            elif name not in old:
                gained.update(_walk(inner, new[name], resolve, step))
            else:
                _compare(inner, old[name], new[name], resolve, step, gained, lost)
    elif old and new and isinstance(old, list) and isinstance(new, list) and list_type(schema) == "map":
        items = item_schema(schema, resolve)
        before = {item_key(schema, one, resolve): one for one in old}
        after = {item_key(schema, one, resolve): one for one in new}
        for key in (before.keys() | after.keys()) - {None}:
            step = (*path, str(key))
            if key in before and key in after:
                _compare(items, before[key], after[key], resolve, step, gained, lost)
            else:
                target, source = (gained, after) if key in after else (lost, before)
                target.add(step)
                target.update(_walk(items, source[key], resolve, step))
    else:
        before_paths, after_paths = _walk(schema, old, resolve, path), _walk(schema, new, resolve, path)
        if list_type(schema) == "set":
            kept = frozenset(before_paths)
            found = frozenset(after_paths)
            gained |= found - kept
            lost |= kept - found
        else:
            lost.update(before_paths)
            gained.update(after_paths)


def to_fields(paths: Iterable[Path]) -> dict[str, Any]:
    """As `fieldsV1`."""
    root: dict[str, Any] = {}
    paths = frozenset(paths)
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
    for path in paths:
        node = root
        for element in path:
            node = node[element]
        if node:
            node["."] = {}
    return root


def from_fields(fields: Any) -> Paths:
    """The reverse of `to_fields`. Malformed parts are ignored."""
    return frozenset(_read(fields, ())) if isinstance(fields, dict) else frozenset()


def _read(node: dict[str, Any], path: Path) -> Iterator[Path]:
    if path and (not node or "." in node):
        yield path
    for element, inner in node.items():
        if element != "." and isinstance(inner, dict):
            yield from _read(inner, (*path, element))


MISSING = object()
"""What `lookup` returns for a path without a value."""


def lookup(schema: Schema, value: Any, path: Path, resolve: Resolve) -> Any:
    """The value at a path, or MISSING."""
    schema = resolve(schema)
    for element in path:
        kind, name = element[:2], element[2:]
        if kind == "f:":
            if not isinstance(value, dict) or name not in value:
                return MISSING
            value, schema = value[name], member(schema, name, resolve)
        elif not isinstance(value, list):
            return MISSING
        elif kind == "k:":
            value = next((one for one in value if item_key(schema, one, resolve) == element), MISSING)
            schema = item_schema(schema, resolve)
        else:
            value = next((one for one in value if set_element(one) == element), MISSING)
        if value is MISSING:
            return MISSING
    return value


def text(path: Path) -> str:
    """`.spec.containers[name="web"].image`, as conflicts show it."""
    shown = ""
    for element in path:
        kind, name = element[:2], element[2:]
        if kind == "f:":
            shown += f".{name}"
        elif kind == "k:":
            pairs = orjson.loads(name).items()
            shown += "[" + ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in pairs) + "]"
        else:
            shown += f"[={name}]"
    return shown
