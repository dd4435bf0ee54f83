"""Process numbers that are used again."""

import os
import subprocess

from ambit.daemon.process_id import start_time


def test_a_process_keeps_its_time_and_loses_it_when_it_ends() -> None:
    own = start_time(os.getpid())
    assert own is not None
    with subprocess.Popen(["sleep", "60"]) as child:
        began = start_time(child.pid)
        assert began is not None and began >= own
        assert start_time(child.pid) == began
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(child.pid) is None, "it is dead, though its parent has not looked"
    assert start_time(child.pid) is None


def test_names_need_not_be_text() -> None:
    program = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, b"\\xff) Z (", 0, 0, 0)
print(flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(["python3", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        assert start_time(child.pid) is not None
        child.kill()
