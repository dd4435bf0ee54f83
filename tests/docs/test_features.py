"""The page about features is current; its marks choose tests, and an unknown one is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.features import ROOT, render
from tests.kubernetes.results import FAILED, PASSED, SKIPPED, Result, Results, load

PAGE = ROOT / "docs/features.md"
TESTS = """
import pytest

@pytest.mark.feature("F1", "F44")
def test_both(): ...

@pytest.mark.feature("F14")
def test_other(): ...

def test_none(): ...
"""


def collected(tmp_path: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What a pytest of its own collects from a file."""
    (tmp_path / "test_it.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.features",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
    ]
    words = ("--strict-markers", "--collect-only", "-q", *words, "test_it.py")
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    return subprocess.run([*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_the_page_is_current(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--update-golden"):
        PAGE.write_text(render(load()))
    assert PAGE.read_text() == render(load()), "type `pytest tests/docs --update-golden`"


def test_each_row_has_what_became_of_its_tests_on_kubernetes() -> None:
    tests = {
        "tests/mesh/test_a.py::test_one": Result(PASSED, ("F1",)),
        "tests/mesh/test_a.py::test_two": Result(FAILED, ("F1", "F2")),
        "tests/mesh/test_a.py::test_three": Result(SKIPPED, ("F3",)),
    }
    page = render(Results("2026-11-22", "0123abcd", {PASSED: 300, FAILED: 1, SKIPPED: 0}, tests))
    assert "Last whole run on Kubernetes: 2026-11-22, commit 0123abcd: 300 passed, 1 failed." in page
    assert "Failed: `tests/mesh/test_a.py::test_two`." in page
    [first] = [line for line in page.splitlines() if line.startswith("| F1 |")]
    [second] = [line for line in page.splitlines() if line.startswith("| F2 |")]
    [third] = [line for line in page.splitlines() if line.startswith("| F3 |")]
    assert "laptop; Kubernetes: 1 of 2, 2026-11-22, 0123abcd |" in first
    assert "Kubernetes: 0 of 1, 2026-11-22, 0123abcd |" in second
    assert "laptop; Kubernetes: not run |" in third


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (("-m", "F1"), {"test_both"}),
        (("-k", "F44"), {"test_both"}),
        (("-k", "F1"), {"test_both", "test_other"}),
    ],
)
def test_an_id_chooses_its_tests(tmp_path: Path, words: tuple[str, ...], chosen: set[str]) -> None:
    told = collected(tmp_path, TESTS, *words)
    assert {line.partition("::")[2] for line in told.stdout.splitlines() if "::" in line} == chosen, (
        told.stdout
    )


@pytest.mark.parametrize(("mark", "text"), [('("F9999")', "'F9999' is no feature"), ("", "needs the ids")])
def test_what_is_no_feature_is_refused(tmp_path: Path, mark: str, text: str) -> None:
    told = collected(tmp_path, TESTS.replace('("F14")', mark))
    assert told.returncode == pytest.ExitCode.USAGE_ERROR
    assert text in told.stderr
