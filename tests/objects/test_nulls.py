"""A field that is null is absent, as an API server has it: every field of every kind that is read."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from ambit.objects.decoding import PROJECTIONS

Path = tuple[str | int, ...]


def sample(of: inspect.Type) -> Any:
    """A value with every field of its type filled."""
    match of:
        case inspect.StructType():
            return {field.encode_name: sample(field.type) for field in of.fields}
        case inspect.DictType():
            return {"key": sample(of.value_type)}
        case inspect.VarTupleType() | inspect.ListType():
            return [sample(of.item_type)]
        case inspect.UnionType():
            return sample(next(each for each in of.types if not isinstance(each, inspect.NoneType)))
        case inspect.IntType() | inspect.FloatType():
            return 1
        case inspect.BoolType():
            return True
        case inspect.LiteralType():
            return of.values[0]
        case _:
            return ""


def fields(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where a member of an object is, at any depth."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield (*path, name)
            yield from fields(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from fields(each, (*path, index))


def changed(value: Any, path: Path, *, null: bool) -> bytes:
    """The object with that field null, or without it, as JSON."""
    result = inside = copy.deepcopy(value)
    for part in path[:-1]:
        inside = inside[part]
    if null:
        inside[path[-1]] = None
    else:
        del inside[path[-1]]
    return json.dumps(result).encode()


def decoded(resource: str, data: bytes) -> Any:
    """The projection, or the reason why there is none."""
    try:
        return PROJECTIONS[resource].decode(data)
    except msgspec.MsgspecError as problem:
        return str(problem)


@pytest.mark.parametrize("resource", PROJECTIONS)
def test_a_null_is_no_field(resource: str) -> None:
    full = sample(inspect.type_info(PROJECTIONS[resource].type))
    full.pop("problem", None)
    assert not isinstance(decoded(resource, json.dumps(full).encode()), str)
    paths = list(fields(full))
    different = [
        ".".join(map(str, path))
        for path in paths
        if decoded(resource, changed(full, path, null=True))
        != decoded(resource, changed(full, path, null=False))
    ]
    assert len(paths) > 5
    assert different == []
