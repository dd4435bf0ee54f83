"""CI runs a failed test once more: what it then says of the run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_FLAKY = """
import pathlib
def test_fails_the_first_time():
    marker = pathlib.Path("marker")
    is_second = marker.exists()
    marker.touch()
    assert is_second
"""


def run(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    """The command that CI runs, over one file of tests."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(source)
    tests = [sys.executable, "-m", "pytest", "-p", "xdist"]
    command = [sys.executable, ROOT / "tests" / "rerun.py", *tests]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # a start takes a fifth of the time
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_run_passes_and_names_a_test_that_fails_once(tmp_path: Path) -> None:
    done = run(tmp_path, _FLAKY + "def test_other():\n    pass\n")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "flaky: test_it.py::test_fails_the_first_time"


def test_run_fails_when_a_test_fails_twice(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_never():\n    assert False\n")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "FAILED twice: test_it.py::test_never"


def test_more_failures_than_three_are_not_tried_again(tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.parametrize('n', range(4))\ndef test_never(n):\n    assert False\n"
    done = run(tmp_path, source)
    assert done.returncode == 1
    assert "running once more" not in done.stdout
    assert done.stdout.splitlines()[-1] == "4 tests failed, more than 3: none runs again"


def test_setup_that_fails_once_counts_as_flaky(tmp_path: Path) -> None:
    source = "import pytest\n" + _FLAKY.replace("def test_fails", "@pytest.fixture\ndef given")
    done = run(tmp_path, source.replace("given_the_first_time", "given") + "def test_it(given):\n    pass\n")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "flaky: test_it.py::test_it"


@pytest.mark.parametrize(
    ("source", "code"), [("def test():\n    pass\n", 0), ("", 5), ("import nothing_such\n", 2)]
)
def test_other_exit_codes_of_pytest_stay(tmp_path: Path, source: str, code: int) -> None:
    assert run(tmp_path, source).returncode == code
