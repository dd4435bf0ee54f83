"""A program that insists on setgroups(2) runs in an unprivileged user namespace."""

import subprocess
import sys

import pytest

DROP = "import os; os.setgroups([0]); print('done')"


@pytest.mark.netns
@pytest.mark.rootless
def test_setgroups_succeeds_without_effect() -> None:
    inside = [sys.executable, "-m", "ambit.local.instance.groups", sys.executable, "-c", DROP]
    done = subprocess.run(
        ["unshare", "-Ur", *inside],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "done\n", done.stderr
    plain = subprocess.run(["unshare", "-Ur", *inside[-3:]], capture_output=True, check=False, timeout=120)
    assert plain.returncode != 0, "the kernel allows it by itself: this test proves nothing"
