"""What the mesh tests say of what they need: they use what every driver has, or say why they are for the laptop."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.testing.mesh import Mesh

FILES = sorted((Path(__file__).parents[1] / "mesh").glob("*.py"))
COMMON = {*dir(Mesh), *Mesh.__annotations__}
LAPTOP_MODULES = (
    "ambit.local.instance",
    "ambit.local.layout",
    "ambit.testing.leftovers",
    "ambit.testing.plugin",
)


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def marks(tree: ast.AST, *names: str) -> Iterator[ast.Attribute | ast.Call]:
    """Each `pytest.mark.<name>` or `pytest.<name>`, with its call where it is called."""
    called = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names:
            called.add(node.func)
            yield node
        elif isinstance(node, ast.Attribute) and node.attr in names and node not in called:
            yield node


def reason_of(mark: ast.Attribute | ast.Call) -> str:
    """The words given as its reason; nothing where there are none."""
    if isinstance(mark, ast.Attribute):
        return ""
    given = [
        *mark.args[-1:],
        *(keyword.value for keyword in mark.keywords if keyword.arg in ("reason", "msg")),
    ]
    return next((each.value for each in reversed(given) if isinstance(each, ast.Constant) and each.value), "")


def without_reason(file: Path) -> list[int]:
    """Lines that leave a test out and do not say why."""
    found = marks(tree_of(file), "skip", "skipif", "xfail", "importorskip", "laptop_only")
    return [mark.lineno for mark in found if len(reason_of(mark).split()) < 3]


def faults_of(file: Path) -> list[str]:
    """What looks into the laptop cluster where nothing says so."""
    tree = tree_of(file)
    assigned = [
        node for node in tree.body if isinstance(node, ast.Assign) and list(marks(node, "laptop_only"))
    ]
    shorthands = {target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)}
    if "pytestmark" in shorthands:
        return []
    return [fault for node in ast.walk(tree) for fault in faults_of_node(node, shorthands)]


def faults_of_node(node: ast.AST, shorthands: set[str]) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name, args=given, decorator_list=decorators) if name.startswith("test_"):
            marked = any(
                list(marks(each, "laptop_only")) or (isinstance(each, ast.Name) and each.id in shorthands)
                for each in decorators
            )
            if any(each.arg == "laptop" for each in given.args) and not marked:
                yield f"{name} uses `laptop` and is not marked"
        case ast.ImportFrom(module=str(module)) if module.startswith(LAPTOP_MODULES):
            yield f"imports {module}"
        case ast.Attribute(value=ast.Name(id="mesh"), attr=attribute) if attribute not in COMMON:
            yield f"mesh.{attribute} is not what every driver has"
        case _:
            pass


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_is_left_out_without_a_written_reason(file: Path) -> None:
    assert without_reason(file) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_who_looks_into_the_laptop_cluster_says_so(file: Path) -> None:
    assert faults_of(file) == []


def test_the_rules_see_what_they_look_for(tmp_path: Path) -> None:
    file = tmp_path / "test_bad.py"
    file.write_text(
        "import pytest\nfrom ambit.local.instance.record import read_record\n"
        "@pytest.mark.skip\ndef test_a(mesh): mesh.state\n"
        "@pytest.mark.laptop_only('no')\ndef test_b(laptop): ...\n"
        "def test_c(laptop): pytest.skip()\n"
    )
    assert sorted(without_reason(file)) == [3, 5, 7]
    assert sorted(faults_of(file)) == [
        "imports ambit.local.instance.record",
        "mesh.state is not what every driver has",
        "test_c uses `laptop` and is not marked",
    ]
