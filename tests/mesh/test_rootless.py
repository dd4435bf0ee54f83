"""What an ordinary user's mesh promises is the same: the tests of isolation and capture, run as one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only("runs other tests again on an ordinary user's laptop cluster"),
]

HERE = Path(__file__).parent
ORDINARY = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


@pytest.mark.timeout(1000)
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are run by an ordinary user already")
def test_isolation_and_capture(tmp_path: Path) -> None:
    files = (str(HERE / "test_isolation.py"), str(HERE / "test_capture.py"))
    ended = subprocess.run(
        [*ORDINARY, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        env={**os.environ, "AMBIT_CAPTURE_PODS": "20", "HOME": str(tmp_path)},
        capture_output=True,
        check=False,
        text=True,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-1000:]
    assert "skipped" not in ended.stdout
