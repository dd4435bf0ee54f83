"""`docs/layout.md`, written from the packages' docstrings and the import rules. `--update-golden` renews it."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ambit"

HEAD = """\
# Where things are

Written from the packages and the import rules in `pyproject.toml` (`pytest tests/docs --update-golden` renews it).
Why it is so: [design](design.md#4-packages).

## Layers

A package imports from lines below its own only; packages of one line do not know each other. `./dev lint` holds it.

"""


def render() -> str:
    """The whole page."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each for each in contracts if each["type"] == "layers")["layers"]
    picture = "\n".join(f"{line.replace('ambit.', '').replace(' | ', '   ')}" for line in layers)
    rules = "\n".join(_rule(each) for each in contracts if each["type"] != "layers")
    rows = "\n".join(f"| {'&nbsp;&nbsp;' * depth}`{name}` | {text} |" for name, depth, text in _packages())
    table = f"## Packages\n\nBelow `src/ambit/`.\n\n| | |\n| --- | --- |\n{rows}\n"
    return f"{HEAD}```text\n{picture}\n```\n\nAnd:\n\n{rules}\n\n{table}"


def _rule(contract: dict[str, Any]) -> str:
    if contract["type"] == "independence":
        return f"- {contract['name']}: {_names(contract['modules'])}."
    return f"- {contract['name']}: not {_names(contract['forbidden_modules'])} in {_names(contract['source_modules'])}."


def _names(modules: list[str]) -> str:
    return ", ".join(f"`{module.removeprefix('ambit.')}`" for module in modules)


def _packages() -> Iterator[tuple[str, int, str]]:
    """(path, depth, the first paragraph of its docstring) of every package, in order."""
    for path in sorted(SOURCE.rglob("__init__.py")):
        if path.parent != SOURCE:
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            yield (
                str(path.parent.relative_to(SOURCE)),
                len(path.relative_to(SOURCE).parts) - 2,
                " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|"),
            )
