"""The JSONPath subset of CRD printer columns: members, indexes, `[*]`, and filters `[?(@.type=="Ready")]`."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

Step = Callable[[Any], Iterator[Any]]

_TOKEN = re.compile(
    r"""\.(?P<member>(?:\\.|[^.\[\]\\])+)
      | \[\?\(\s*@\.(?P<field>[^=!<>\s]+?)\s*(?P<operator>==|!=)\s*(?P<value>"[^"]*"|'[^']*'|[^)\s]+)\s*\)\]
      | \[(?P<index>-?\d+)\]
      | \[(?P<all>\*)\]
      | \[(?P<quoted>'[^']*'|"[^"]*")\]""",
    re.VERBOSE,
)


class JsonPathError(ValueError):
    """The path is outside the supported subset."""


def _member(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _index(position: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= position < len(value):
            yield value[position]

    return step


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _filter(field: str, operator: str, wanted: str) -> Step:
    path = field.split(".")

    def step(value: Any) -> Iterator[Any]:
        for item in value if isinstance(value, list) else ():
            found = item
            for name in path:
                found = found.get(name) if isinstance(found, dict) else None
            text = str(found).lower() if isinstance(found, bool) else str(found)
            if (text == wanted) is (operator == "=="):
                yield item

    return step


@cache
def compile_path(text: str) -> tuple[Step, ...]:
    """The steps of a path such as `.status.conditions[?(@.type=="Ready")].status`. Raises JsonPathError."""
    text = text.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    if text in {"", "."}:
        return ()
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise JsonPathError(f"{text!r} is not a supported JSONPath at {text[position:]!r}")
        position = match.end()
        if match["member"] == "*" or match["all"]:
            steps.append(_each)
        elif match["member"]:
            steps.append(_member(re.sub(r"\\(.)", r"\1", match["member"])))
        elif match["quoted"]:
            steps.append(_member(match["quoted"][1:-1]))
        elif match["index"]:
            steps.append(_index(int(match["index"])))
        else:
            steps.append(_filter(match["field"], match["operator"], match["value"].strip("\"'")))
    return tuple(steps)


def find(text: str, value: Any) -> list[Any]:
    """All values at a path. Raises JsonPathError."""
    found = [value]
    for step in compile_path(text):
        found = [result for one in found for result in step(one)]
    return found
