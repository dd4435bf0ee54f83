"""What the program says when something is wrong with the machine or a process, read from its source."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDS = {"EnvironmentProblem", "NotRunning", "Unreachable"}
"""Errors of input (`BadInput`) name the object and the field, so they need no page."""


def messages() -> Iterator[tuple[str, str]]:
    """(where it is raised, the longest fixed part of its text), for each error of these kinds."""
    for path in sorted((ROOT / "src/ambit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in KINDS
                and node.args
            ):
                fixed = max(_fixed(node.args[0]), key=len, default="")
                if len(fixed) > 8:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", fixed


def _fixed(node: ast.expr) -> list[str]:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return [text.strip(" :;,(`").partition("`")[0].strip() for text in texts]
