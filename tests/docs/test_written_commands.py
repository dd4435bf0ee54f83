"""Every `ambit …` that a page, a help text or a hint tells people to type is a command with those options."""

import ast
from pathlib import Path

import pytest

from tests.docs.commands import problem_of, written_commands

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PROPOSED = {"docs/design.md"}
"""Says what is planned, too."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_exist(page: Path) -> None:
    if str(page.relative_to(ROOT)) in PROPOSED:
        return
    problems = [problem_of(each) for each in written_commands(page.read_text())]
    assert [each for each in problems if each] == []


def test_commands_in_hints_and_messages_exist() -> None:
    found = [
        each
        for path in sorted((ROOT / "src/ambit").rglob("*.py"))
        for text in _texts(ast.parse(path.read_text()))
        for each in written_commands(text)
    ]
    assert "ambit up" in found
    problems = [problem_of(each) for each in found]
    assert [each for each in problems if each] == []


def _texts(tree: ast.Module) -> list[str]:
    """String constants; of formatted ones what is fixed, with `…` for what is filled in."""
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            texts.append(
                "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
                ).replace("…`", "`")
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type `ambit up --nodes 3`", ""),
        ("type `ambit workloads|services -o json`", ""),
        ("type `ambit fly`", "`ambit fly`: ambit has no command 'fly'"),
        ("type `ambit up --wings`", "`ambit up --wings`: ambit up has no option --wings"),
        ("```sh\nexport K=$(ambit local kubeconfig --pfad)\n```", "`ambit local kubeconfig --pfad`: "),
        ("`ambit local image add x -- curl -s`", ""),
    ],
)
def test_the_check_notices(text: str, expected: str) -> None:
    (found,) = written_commands(text)
    assert problem_of(found).startswith(expected) and bool(problem_of(found)) == bool(expected)
