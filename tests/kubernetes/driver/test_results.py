"""What a run on Kubernetes records of its tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kubernetes import __main__ as driver
from tests.kubernetes import results
from tests.kubernetes.results import FAILED, FLAKY, PASSED, ROOT, SKIPPED, Result, Results, load, save

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


class Runs:
    """Stands for pytest: `first` are outcomes of the first run, `second` those of a second try."""

    def __init__(self, first: dict[str, str], second: dict[str, str]) -> None:
        self.outcomes = [first, second]
        self.words: list[list[str]] = []

    def __call__(self, _: object, words: list[str]) -> int:
        self.words.append(words)
        found = {name: Result(outcome) for name, outcome in self.outcomes[len(self.words) - 1].items()}
        if "--results" in words:
            path = Path(words[words.index("--results") + 1])
            before = load(path) if "--second-try" in words else None
            made = results.second(before, found) if before else results.first(found, "2026-11-22", "0123abcd")
            save(made, path)
        return int(FAILED in {each.outcome for each in found.values()})


@pytest.mark.parametrize(
    ("first", "second", "code", "outcomes"),
    [
        ({"a": PASSED}, {}, 0, {}),
        ({"a": PASSED, "b": FAILED}, {"b": PASSED}, 0, {"b": FLAKY}),
        ({"a": FAILED, "b": FAILED}, {"a": FAILED, "b": PASSED}, 1, {"a": FAILED, "b": FLAKY}),
        (dict.fromkeys("abcd", FAILED), {}, 1, dict.fromkeys("abcd", FAILED)),
    ],
)
def test_a_whole_run_is_recorded_after_failed_tests_had_a_second_try(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: dict[str, str],
    second: dict[str, str],
    code: int,
    outcomes: dict[str, str],
) -> None:
    runs = Runs(first, second)
    monkeypatch.setattr(driver, "_pytest", runs)
    monkeypatch.setattr(results, "FILE", tmp_path / "kubernetes.json")
    assert driver._tests([], []) == code
    found = load(tmp_path / "kubernetes.json")
    assert found is not None and {name: each.outcome for name, each in found.tests.items()} == outcomes
    assert [path.name for path in tmp_path.iterdir()] == ["kubernetes.json"]
    assert len(runs.words) == (2 if second else 1)


def test_a_part_of_the_tests_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_pytest", Runs({"a": FAILED}, {}))
    monkeypatch.setattr(results, "FILE", tmp_path / "kubernetes.json")
    assert driver._tests([], ["-k", "bookinfo"]) == 1
    assert list(tmp_path.iterdir()) == []
