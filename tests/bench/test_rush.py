"""The rush of connections against a server on loopback."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from bench.ports import free_ports

from bench import rush


@pytest.fixture
def server() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_ports(rush.PORTS + 1)
    process = subprocess.Popen([sys.executable, rush.__file__, "serve", str(port)])
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port + rush.PORTS), 60).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None
        yield port, process
    finally:
        process.kill()
        process.wait()


def test_all_are_opened_at_their_rate_and_greeted(server: tuple[int, subprocess.Popen[bytes]]) -> None:
    found = rush.rush("127.0.0.1", server[0], 200, 5, 1.2)
    assert (found["opened"], found["refused"], found["cut"]) == (240, [], [])
    assert 1.1 < found["seconds"] < 30  # type: ignore[operator]


def test_who_is_refused_or_cut_is_counted(
    server: tuple[int, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, process = server
    use_held = rush.Rush._use_held

    def killed(self: rush.Rush, now: float) -> None:
        process.kill()
        process.wait()
        use_held(self, now)

    monkeypatch.setattr(rush.Rush, "_use_held", killed)
    found = rush.Rush("127.0.0.1", port)
    found.run(50, 3, 2.5)
    assert found.refused
    assert {what for _, what in found.refused} <= {"ConnectionRefusedError", "ConnectionResetError", "closed"}
    assert len(found.cut) == 3


def test_silence_is_a_refusal(
    server: tuple[int, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, process = server
    monkeypatch.setattr(rush, "PATIENCE", 1.0)
    os.kill(process.pid, signal.SIGSTOP)
    found = rush.Rush("127.0.0.1", port)
    found.run(5, 1, 1.5)
    assert {what for _, what in found.refused} == {"silence"}
    assert [what for _, what in found.cut] in ([], ["silence"])
