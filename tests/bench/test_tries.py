"""Requests on connections of their own, against servers on loopback."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from bench.ports import free_port

from bench import tries

ANSWER = b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@pytest.fixture
def serving() -> Iterator[Callable[..., str]]:
    """Starts a server that gives these bytes and closes, or keeps silent; where it is."""
    listeners: list[socket.socket] = []

    def start(*answers: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        listeners.append(listener)

        def serve() -> None:
            for answer in answers:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for each in listeners:
        each.close()


def test_answers_are_told_from_everything_else(serving: Callable[..., str]) -> None:
    place = serving(ANSWER % b"200 OK", ANSWER % b"503 Unavailable", b"", b"GIBBERISH\r\n")
    gone = f"127.0.0.1:{free_port()}"
    found = tries.tries(20, 0.2, [place, gone])
    assert [what for _, _, what in found[place]] == ["", "503", "closed", "nonsense"]
    assert {what for _, _, what in found[gone]} == {"ConnectionRefusedError"}
    assert all(began <= end for seen in found.values() for began, end, _ in seen)
    begun = [began for began, _, _ in found[place]]
    assert begun == sorted(begun) and len(begun) == 4


def test_one_that_hears_nothing_holds_up_no_other(
    serving: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tries, "PATIENCE", 0.3)
    answering = serving(*[ANSWER % b"200 OK"] * 10)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        found = tries.tries(50, 0.2, [place, answering])
    assert {what for _, _, what in found[place]} == {"silence"}
    assert {what for _, _, what in found[answering]} == {""}
