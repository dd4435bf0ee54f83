"""Runs the test command once, and each test that failed once more, alone: `python -m tests.rerun ./dev test`.

The run passes if every one of at most `LIMIT` failed tests passes alone; the last lines name these as flaky. A flaky
test is mended in the same change or the next one.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LIMIT = 3
FAILED = Path(".pytest_cache/v/cache/lastfailed")
"""Where pytest keeps the ids of the tests that failed, relative to the folder it runs in."""
TESTS_FAILED = 1
"""pytest's exit code when tests ran and some failed; any other code is no matter of single tests."""


def main(command: Sequence[str]) -> int:
    """Returns the exit code of the run: 0 when all tests passed, some of them perhaps at their second try."""
    FAILED.unlink(missing_ok=True)
    code = subprocess.run(command, check=False).returncode
    failed = read_failed(FAILED)
    if code != TESTS_FAILED or not failed:
        return code
    if len(failed) > LIMIT:
        print(f"{len(failed)} tests failed, more than {LIMIT}: none runs again", flush=True)
        return code
    broken = [test for test in failed if not passes_alone(command, test)]
    for test in failed:
        print(f"{'FAILED twice' if test in broken else 'flaky'}: {test}", flush=True)
    return code if broken else 0


def read_failed(path: Path) -> list[str]:
    """The ids of the tests that failed in the last run, in order; none where pytest wrote no such file."""
    return list(json.loads(path.read_text())) if path.exists() else []


def passes_alone(command: Sequence[str], test: str) -> bool:
    """Runs one test in a process of its own."""
    print(f"running once more, alone: {test}", flush=True)
    return subprocess.run([*command, "-n", "0", test], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
