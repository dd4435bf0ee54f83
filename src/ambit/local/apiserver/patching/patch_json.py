"""JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386). Pure."""

import copy
import re
from typing import Any

from ambit.objects.documents import DEPTH, too_deep
from ambit.objects.strategic import PatchError

MOST_OPERATIONS = 10_000
MOST_COPIED = 100_000
"""Values that `copy` operations of one patch may make: each can double what the one before it made."""

OPERATIONS = frozenset({"add", "remove", "replace", "move", "copy", "test"})


def _tokens(pointer: Any) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise PatchError(f"{pointer!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _index(token: str, items: list[Any], *, insert: bool) -> int:
    if insert and token == "-":  # noqa: S105 - a path element
        return len(items)
    if not re.fullmatch("0|[1-9][0-9]{0,8}", token):
        raise PatchError(f"{token!r} is not an array index")
    index = int(token)
    if index > len(items) - (not insert):
        raise PatchError(f"index {index} is out of bounds")
    return index


def _get(document: Any, tokens: list[str]) -> Any:
    for token in tokens:
        if isinstance(document, list):
            document = document[_index(token, document, insert=False)]
        elif isinstance(document, dict) and token in document:
            document = document[token]
        else:
            raise PatchError(f"the path has no value at {token!r}")
    return document


def _add(document: Any, tokens: list[str], value: Any) -> Any:
    if len(tokens) > DEPTH or too_deep(value, len(tokens)):
        raise PatchError(f"the patch leaves values nested deeper than {DEPTH} levels")
    if not tokens:
        return value
    parent = _get(document, tokens[:-1])
    if isinstance(parent, list):
        parent.insert(_index(tokens[-1], parent, insert=True), value)
    elif isinstance(parent, dict):
        parent[tokens[-1]] = value
    else:
        raise PatchError(f"cannot add {tokens[-1]!r} to a scalar")
    return document


def _remove(document: Any, tokens: list[str]) -> Any:
    if not tokens:
        return None
    parent = _get(document, tokens[:-1])
    if isinstance(parent, list):
        del parent[_index(tokens[-1], parent, insert=False)]
    elif isinstance(parent, dict) and tokens[-1] in parent:
        del parent[tokens[-1]]
    else:
        raise PatchError(f"unable to remove nonexistent key: {tokens[-1]}")
    return document


def same(left: Any, right: Any) -> bool:
    """JSON equality: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _step(document: Any, operation: Any) -> Any:
    if not isinstance(operation, dict) or operation.get("op") not in OPERATIONS:
        raise PatchError(f"unexpected operation in {operation!r}")
    kind, path = operation["op"], _tokens(operation.get("path"))
    if kind in {"add", "replace", "test"} and "value" not in operation:
        raise PatchError(f"operation {kind} needs a value")
    match kind:
        case "add":
            return _add(document, path, copy.deepcopy(operation["value"]))
        case "remove":
            return _remove(document, path)
        case "replace":
            _get(document, path)
            replaced = _remove(document, path)
            return _add(replaced, path, copy.deepcopy(operation["value"]))
        case "test":
            try:
                found = _get(document, path)
            except PatchError:
                found = None
            if not same(found, operation["value"]):
                raise PatchError(f"testing path {operation['path']} failed")
            return document
        case _:
            return _transfer(document, operation, path)


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_size, value.values()))
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _transfer(document: Any, operation: Any, path: list[str]) -> Any:
    """`move` and `copy`."""
    source = _tokens(operation.get("from"))
    value = copy.deepcopy(_get(document, source))
    if operation["op"] == "move":
        if path[: len(source)] == source and len(path) > len(source):
            raise PatchError("cannot move a value into itself")
        document = _remove(document, source)
    return _add(document, path, value)


def json_patch(document: Any, operations: Any) -> Any:
    """The document after all operations; the argument is not changed. Raises PatchError; all or nothing."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    if len(operations) > MOST_OPERATIONS:
        raise PatchError(f"a JSON patch has at most {MOST_OPERATIONS} operations, not {len(operations)}")
    document = copy.deepcopy(document)
    copied = 0
    for operation in operations:
        if isinstance(operation, dict) and operation.get("op") == "copy":
            copied += _size(_get(document, _tokens(operation.get("from"))))
            if copied > MOST_COPIED:
                raise PatchError(f"the patch copies more than {MOST_COPIED} values")
        document = _step(document, operation)
    return document


def merge_patch(document: Any, patch: Any) -> Any:
    """The document after a merge patch; arguments are not changed."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
