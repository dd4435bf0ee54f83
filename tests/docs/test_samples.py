"""docs/samples.md names tests that exist, and all of them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/samples.md").read_text()
ROWS = re.findall(r"\[\w+\]\(\.\./(tests/mesh/\w+\.py)\): `(\w+)`", TEXT)
PAGES = sorted((ROOT / "tests/mesh").glob("test_tasks*.py"))


def defined(path: Path) -> set[str]:
    return set(re.findall(r"^def test_(\w+)", path.read_text(), re.MULTILINE))


def test_every_row_names_a_test() -> None:
    assert ROWS
    assert [name for file, name in ROWS if name not in defined(ROOT / file)] == []


def test_every_page_that_is_tested_has_a_row() -> None:
    assert {name for path in PAGES for name in defined(path)} <= {name for _, name in ROWS}
