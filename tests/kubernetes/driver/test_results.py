"""What a run on Kubernetes records of its tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kubernetes.results import FAILED, FLAKY, PASSED, ROOT, SKIPPED, Result, Results, load

TESTS = """
import os, pytest

@pytest.mark.feature("F1", "F44")
def test_passes(): ...

def test_passes_and_proves_nothing(): ...

@pytest.mark.feature("F1")
def test_fails_first():
    assert "AGAIN" in os.environ

@pytest.fixture
def broken():
    yield
    assert False

def test_fails_at_the_end(broken): ...

@pytest.mark.feature("F2")
@pytest.mark.skip(reason="not here")
def test_is_skipped(): ...
"""


def run(folder: Path, file: Path, *words: str, **environment: str) -> Results:
    """What a pytest of its own, with two workers at the first try, records."""
    (folder / "test_it.py").write_text(TESTS)
    plugins = ("-p", "tests.features", "-p", "tests.kubernetes.results", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *plugins, "-c", "/dev/null", "--rootdir", str(folder)]
    subprocess.run(
        [*command, "--results", str(file), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT), **environment},
        capture_output=True,
    )
    found = load(file)
    assert found is not None
    return found


@pytest.mark.parametrize("workers", ["0", "2"])
def test_outcomes_and_features_are_recorded(tmp_path: Path, workers: str) -> None:
    file = tmp_path / "results.json"
    found = run(tmp_path, file, "-n", workers)
    assert found.tests == {
        "test_it.py::test_passes": Result(PASSED, ("F1", "F44")),
        "test_it.py::test_fails_first": Result(FAILED, ("F1",)),
        "test_it.py::test_fails_at_the_end": Result(FAILED),
        "test_it.py::test_is_skipped": Result(SKIPPED, ("F2",)),
    }
    assert found.counts == {PASSED: 2, FLAKY: 0, FAILED: 2, SKIPPED: 1}
    assert found.of("F1") == {"test_it.py::test_passes": PASSED, "test_it.py::test_fails_first": FAILED}

    again = run(tmp_path, file, "--second-try", *found.failed, AGAIN="1")
    assert (again.date, again.commit) == (found.date, found.commit)
    assert again.tests["test_it.py::test_fails_first"] == Result(FLAKY, ("F1",))
    assert again.failed == ["test_it.py::test_fails_at_the_end"]
    assert again.counts == {PASSED: 2, FLAKY: 1, FAILED: 1, SKIPPED: 1}
