"""The runner finds its subjects: what they import is still where it was."""

import subprocess
import sys
from pathlib import Path


def test_it_lists_its_subjects() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--list"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "datapath" in done.stdout
