"""`docs/features.md`, written from `tests/features.toml`, the tests' marks and the results of the last whole run on
Kubernetes. `--update-golden` renews it."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.features import FEATURES
from tests.kubernetes.results import FAILED, FLAKY, SKIPPED, Results

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"

HEAD = """\
# What it does, and what proves it

Written from `tests/features.toml` and the tests' marks (`pytest tests/docs --update-golden` renews it): what proves
a row, seen from outside, carries `@pytest.mark.feature("F44")`. `./dev test -m F44` runs the tests of one row.

"laptop" says that such a test runs a laptop cluster, "parts" that it needs none: `.ci/run` passes both on every commit.
"Kubernetes" is how many of a row's tests passed in the last whole `./dev test-kubernetes`, when, and of which commit.
What is not promised, or worse than elsewhere: [limits](limits.md).

{run}

| | what | where | proved by |
| --- | --- | --- | --- |
"""


class Proof(NamedTuple):
    file: Path
    """Below `tests/`."""
    name: str
    places: tuple[str, ...]


def render(results: Results | None) -> str:
    """The whole page, with the results of a run on Kubernetes."""
    found: dict[str, list[Proof]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for feature, proof in _proofs(path):
            found[feature].append(proof)
    rows = (f"{_row(name, text, found[name], results)}\n" for name, text in FEATURES.items())
    return HEAD.replace("{run}", _last_run(results)) + "".join(rows)


def _last_run(results: Results | None) -> str:
    if results is None:
        return "No whole run on Kubernetes is recorded."
    counts = ", ".join(f"{count} {outcome}" for outcome, count in results.counts.items() if count)
    lines = [f"Last whole run on Kubernetes: {results.date}, commit {results.commit}: {counts}."]
    for outcome, meaning in ((FAILED, "Failed"), (FLAKY, "Passed at the second try")):
        names = [name for name, each in results.tests.items() if each.outcome == outcome]
        if names:
            lines.append(f"{meaning}: {', '.join(f'`{name}`' for name in names)}.")
    return "\n".join(lines)


def _on_kubernetes(name: str, results: Results | None) -> str:
    """What became of the tests of a row there."""
    outcomes = Counter(results.of(name).values()) if results is not None else Counter()
    run = outcomes.total() - outcomes[SKIPPED]
    if results is None or not run:
        return "Kubernetes: not run"
    return f"Kubernetes: {run - outcomes[FAILED]} of {run}, {results.date}, {results.commit}"


def _row(name: str, text: str, proofs: list[Proof], results: Results | None) -> str:
    files: dict[Path, list[str]] = defaultdict(list)
    for proof in proofs:
        files[proof.file].append(f"`{proof.name.removeprefix('test_')}`")
    listed = "<br>".join(
        f"[{file}](../tests/{file}): {', '.join(dict.fromkeys(names))}" for file, names in files.items()
    )
    places = {place for proof in proofs for place in proof.places}
    order = [
        _on_kubernetes(name, results) if place == "Kubernetes" else place
        for place in ("laptop", "parts", "Kubernetes")
        if place in places
    ]
    return f"| {name} | {text} | {'; '.join(order)} | {listed or 'none yet'} |"


def _proofs(path: Path) -> Iterator[tuple[str, Proof]]:
    """Features that the tests of one file are marked with. Marks are found wherever decorators or `pytestmark`
    name them, also through a name of the module."""
    module = ast.parse(path.read_text())
    named: dict[str, ast.expr] = {}
    for each in module.body:
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            named[each.targets[0].id] = each.value
    common = list(_marks(named["pytestmark"], named)) if "pytestmark" in named else []
    for each in module.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
            marks = common + [mark for decorator in each.decorator_list for mark in _marks(decorator, named)]
            places = _places({name for name, _ in marks})
            for name, arguments in marks:
                for feature in arguments if name == "feature" else ():
                    yield feature, Proof(path.relative_to(TESTS), each.name, places)


def _places(marks: set[str]) -> tuple[str, ...]:
    if "kubernetes" in marks:
        return ("Kubernetes",)
    if "mesh" not in marks:
        return ("parts",)
    return ("laptop",) if "laptop_only" in marks else ("laptop", "Kubernetes")


def _marks(value: ast.expr, named: dict[str, ast.expr]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, text arguments) of every `pytest.mark.…` in an expression."""
    calls = {id(node.func): node for node in ast.walk(value) if isinstance(node, ast.Call)}
    for node in ast.walk(value):
        if isinstance(node, ast.Name) and node.id in named:
            yield from _marks(named[node.id], {key: each for key, each in named.items() if key != node.id})
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pytest.mark":
            arguments = calls[id(node)].args if id(node) in calls else ()
            texts = (each.value for each in arguments if isinstance(each, ast.Constant))
            yield node.attr, tuple(text for text in texts if isinstance(text, str))
