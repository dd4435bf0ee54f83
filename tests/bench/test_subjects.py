"""The page that says which subject measures a number knows every subject, and no other."""

import re
from pathlib import Path

from bench.__main__ import SUBJECTS

PAGE = Path(__file__).parents[2] / "docs/performance.md"


def test_every_usual_subject_has_a_line_and_every_line_a_subject() -> None:
    lines = PAGE.read_text().partition("\n## Which subject measures what\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"\| `(\w+)` \|$", lines, re.MULTILINE))
    assert named == {each.name for each in SUBJECTS if each.usual}
