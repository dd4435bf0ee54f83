"""Server-side apply: merges what a manager applies into the live object, finds conflicts, removes what it
gave up. Pure.

1. A field of the applied object belongs to its manager afterwards.
2. Setting another value than a field's other owner did is a conflict; `force` takes the field instead.
3. A field the manager applied before and does not apply now goes, unless somebody else owns it too.

Spec: KEP-555; structured-merge-diff `merge.Updater`.
"""

import copy
from typing import Any

import msgspec
import orjson

from ambit.local.apiserver.patching.fieldset import (
    MISSING,
    Path,
    Paths,
    is_atomic_map,
    item_key,
    item_schema,
    list_type,
    lookup,
    member,
    paths_of,
    set_element,
)
from ambit.objects.structural import Resolve, Schema


class Owner(msgspec.Struct, frozen=True):
    """Who owns fields: one managedFields entry without its fields."""

    manager: str
    operation: str
    subresource: str = ""
    api_version: str = ""


Owners = dict[Owner, Paths]


class Applied(msgspec.Struct, frozen=True):
    """The result. With `conflicts` (and no force) nothing may be stored."""

    value: Any
    owned: Paths
    conflicts: dict[Owner, Paths]
    owners: Owners


def apply(
    schema: Schema, resolve: Resolve, live: Any, config: Any, me: Owner, owners: Owners, *, force: bool
) -> Applied:
    """Applies `config` to `live` for manager `me`; `owners` are all current owners."""
    owned = paths_of(schema, config, resolve)
    before = frozenset[Path]().union(*(paths for owner, paths in owners.items() if same_owner(owner, me)))
    others = {owner: paths for owner, paths in owners.items() if not same_owner(owner, me)}
    conflicts = _conflicts(schema, resolve, live, config, owned, others)
    if conflicts and force:
        others = {owner: paths - conflicts.get(owner, frozenset()) for owner, paths in others.items()}
    value = merge(schema, live, config, resolve)
    kept = owned.union(*others.values())
    for path in sorted(before - kept, key=len):
        if not _is_key(path) and not any(other[: len(path)] == path for other in kept):
            remove(schema, value, path, resolve)
    result = {owner: paths for owner, paths in others.items() if paths}
    return Applied(value, owned, {} if force else conflicts, {**result, me: owned})


def _is_key(path: Path) -> bool:
    """A key field of a list item goes with its item, never alone."""
    if len(path) < 2 or not path[-2].startswith("k:"):
        return False
    return path[-1][2:] in orjson.loads(path[-2][2:])


def same_owner(left: Owner, right: Owner) -> bool:
    """Versions do not distinguish owners."""
    return (left.manager, left.operation, left.subresource) == (
        right.manager,
        right.operation,
        right.subresource,
    )


def _conflicts(
    schema: Schema, resolve: Resolve, live: Any, config: Any, owned: Paths, others: Owners
) -> dict[Owner, Paths]:
    found = {}
    for owner, paths in others.items():
        clashing = frozenset(path for path in paths & owned if _differs(schema, resolve, live, config, path))
        if clashing:
            found[owner] = clashing
    return found


def _differs(schema: Schema, resolve: Resolve, live: Any, config: Any, path: Path) -> bool:
    """Leaves with other values; an item of a list is the same item whatever it holds."""
    if path[-1].startswith(("k:", "v:")):
        return False
    current = lookup(schema, live, path, resolve)
    return current is not MISSING and current != lookup(schema, config, path, resolve)


def merge(schema: Schema, live: Any, config: Any, resolve: Resolve) -> Any:
    """`config` laid over `live`; arguments are not changed."""
    schema = resolve(schema)
    if isinstance(config, dict) and isinstance(live, dict) and not is_atomic_map(schema):
        merged = dict(live)
        for name, value in config.items():
            merged[name] = merge(member(schema, name, resolve), live.get(name), value, resolve)
        return merged
    if isinstance(config, list) and isinstance(live, list):
        kind = list_type(schema)
        if kind == "map":
            return _merge_items(schema, live, config, resolve)
        if kind == "set":
            return [*live, *(one for one in config if one not in live)]
    return copy.deepcopy(config)


def _merge_items(schema: Schema, live: list[Any], config: list[Any], resolve: Resolve) -> list[Any]:
    """Items of both: those of `config` in its order, around the places of their live counterparts."""
    items = item_schema(schema, resolve)
    wanted = {item_key(schema, one, resolve): one for one in config}
    current = {item_key(schema, one, resolve): one for one in live}
    ordered = iter(wanted.items())
    result = []
    for one in live:
        if item_key(schema, one, resolve) not in wanted:
            result.append(one)
            continue
        for key, item in ordered:
            result.append(merge(items, current.get(key), item, resolve))
            if key in current:
                break
    return [*result, *(copy.deepcopy(item) for _, item in ordered)]


def remove(schema: Schema, value: Any, path: Path, resolve: Resolve) -> None:
    """Removes the field at a path in place, and parents that it leaves empty."""
    schema = resolve(schema)
    parents = [lookup(schema, value, path[:length], resolve) for length in range(len(path))]
    schemas = _schemas(schema, path, resolve)
    for depth in range(len(path) - 1, -1, -1):
        parent, element = parents[depth], path[depth]
        if parent is MISSING:
            continue
        _delete(schemas[depth], parent, element, resolve)
        if parent or depth == 0:
            return


def _schemas(schema: Schema, path: Path, resolve: Resolve) -> list[Schema]:
    found = [schema]
    for element in path[:-1]:
        schema = member(schema, element[2:], resolve) if element[:2] == "f:" else item_schema(schema, resolve)
        found.append(schema)
    return found


def _delete(schema: Schema, parent: Any, element: str, resolve: Resolve) -> None:
    if isinstance(parent, dict):
        parent.pop(element[2:], None)
    elif isinstance(parent, list):
        parent[:] = [
            one
            for one in parent
            if (item_key(schema, one, resolve) if element[:2] == "k:" else set_element(one)) != element
        ]
