"""`docs/kubernetes.md` lists every value of the charts, and none that they do not have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/kubernetes.md"
SCHEMA = ROOT / "charts/ambit/values.schema.json"


def values(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Values and groups of values that a schema names."""
    for name, each in schema.get("properties", {}).items():
        if name == "global" and path:  # the same in each part
            continue
        yield ".".join((*path, name))
        if isinstance(each, dict):
            yield from values(each, (*path, name))


def listed() -> list[str]:
    """Names in the first column of the page's table; one without a dot stands beside the one before it."""
    section = PAGE.read_text().partition("\n## Values\n")[2].partition("\n## ")[0]
    found: list[str] = []
    for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row):
            found.append(name if "." in name else f"{found[-1].rpartition('.')[0]}.{name}")
    return found


def test_each_value_of_the_charts_is_listed_and_no_other() -> None:
    there = set(values(json.loads(SCHEMA.read_text())))
    written = listed()
    assert len(written) == len(set(written)), "a value is listed twice"
    assert set(written) <= there
    groups = {name for name in there if any(other.startswith(f"{name}.") for other in there)}
    missing = {
        name
        for name in there - groups
        if not any(name == each or name.startswith(f"{each}.") for each in written)
    }
    assert missing == set()
