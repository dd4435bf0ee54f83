"""Results of `./dev test-kubernetes`, as docs/features.md shows them: a pytest plugin writes them to `--results FILE`.

A first run writes the file anew. A second try of tests that failed (`--results FILE --second-try`) puts its outcomes in
place of theirs; what passes then is named as flaky.
"""

import datetime as dt
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs/conformance/kubernetes.json"
PASSED, FLAKY, FAILED, SKIPPED = "passed", "flaky", "failed", "skipped"


class Result(msgspec.Struct, frozen=True):
    """One test's outcome, and the rows of docs/features.md that it proves."""

    outcome: str
    features: tuple[str, ...] = ()


class Results(msgspec.Struct, frozen=True):
    """`tests` has those that prove a feature, and those that did not pass, by id."""

    date: str
    commit: str
    counts: Mapping[str, int]
    tests: Mapping[str, Result]

    def of(self, feature: str) -> dict[str, str]:
        """Outcomes of the tests that prove it, by id."""
        return {name: each.outcome for name, each in self.tests.items() if feature in each.features}

    @property
    def failed(self) -> list[str]:
        return [name for name, each in self.tests.items() if each.outcome == FAILED]


def load(path: Path = FILE) -> Results | None:
    """The results of the last whole run; None where none are recorded."""
    return msgspec.json.decode(path.read_bytes(), type=Results) if path.exists() else None


def save(results: Results, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def first(outcomes: Mapping[str, Result], date: str, commit: str) -> Results:
    """Results of a run."""
    kept = {name: each for name, each in sorted(outcomes.items()) if each.features or each.outcome != PASSED}
    return Results(date, commit, _counts(each.outcome for each in outcomes.values()), kept)


def second(before: Results, outcomes: Mapping[str, Result]) -> Results:
    """The same after failed tests ran once more."""
    tests, counts = dict(before.tests), dict(before.counts)
    for name in before.failed:
        if name in outcomes and outcomes[name].outcome == PASSED:
            tests[name] = msgspec.structs.replace(tests[name], outcome=FLAKY)
            counts[FAILED] -= 1
            counts[FLAKY] += 1
    return msgspec.structs.replace(before, tests=tests, counts=counts)


def _counts(outcomes: Iterable[str]) -> dict[str, int]:
    counts = dict.fromkeys((PASSED, FLAKY, FAILED, SKIPPED), 0)
    for each in outcomes:
        counts[each] += 1
    return counts


def commit() -> str:
    """The commit that is checked out; with "+" when files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return git("rev-parse", "--short=8", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


class Recorder:
    """Collects outcomes where pytest's reports arrive: in the process that shares tests out, if there are several."""

    def __init__(self, path: Path, second_try: bool) -> None:
        self._path, self._second_try = path, second_try
        self._date = dt.datetime.now(dt.UTC).date().isoformat()
        self._commit = "" if second_try else commit()
        self._found: dict[str, Result] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        features = tuple(str(value) for name, value in report.user_properties if name == "feature")
        before = self._found.get(report.nodeid)
        # Set-up, call and teardown report each for itself.
        outcome = report.outcome if before is None or report.outcome != PASSED else before.outcome
        if before is None or before.outcome != FAILED:
            self._found[report.nodeid] = Result(outcome, features)

    def pytest_sessionfinish(self) -> None:
        before = load(self._path) if self._second_try else None
        if before is not None:
            save(second(before, self._found), self._path)
        elif self._found:
            save(first(self._found, self._date, self._commit), self._path)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, metavar="FILE", help="write outcomes and proven features there")
    parser.addoption("--second-try", action="store_true", help="into those of failed tests in that file")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.results is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(config.option.results, config.option.second_try))


def pytest_itemcollected(item: pytest.Item) -> None:
    for marker in item.iter_markers("feature"):
        item.user_properties += [("feature", name) for name in marker.args]
