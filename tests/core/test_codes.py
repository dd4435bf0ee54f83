"""Every finding that code can make is in the registry, and the registry is the documentation."""

import re
from pathlib import Path

from ambit.core.codes import CODES, reference

ROOT = Path(__file__).parents[2]
REGISTRY = ROOT / "src/ambit/core/codes.py"


def test_every_code_that_is_used_is_registered_and_no_other() -> None:
    used = {
        code
        for path in (ROOT / "src/ambit").rglob("*.py")
        if path != REGISTRY
        for code in re.findall(r'"(AMB\d{4})"', path.read_text())
    }
    assert used == set(CODES)


def test_codes_are_unique_and_in_order() -> None:
    written = re.findall(r'^        "(AMB\d{4})",$', REGISTRY.read_text(), re.MULTILINE)
    assert written == sorted(set(written)) == list(CODES)


def test_each_entry_is_complete() -> None:
    for each in CODES.values():
        for text in (each.title, each.meaning, each.example, each.repair):
            assert text.strip() == text and text
        assert each.meaning.endswith(".") and each.repair.endswith(".")


def test_the_reference_page_is_current() -> None:
    page = (ROOT / "docs/findings.md").read_text()
    assert page == reference(), "write `ambit.core.codes.reference()` to docs/findings.md"
