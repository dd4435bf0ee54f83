"""The load generator against servers on loopback."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from bench import load


@contextlib.contextmanager
def answering(status: str = "200 OK", *, lingers: bool = False) -> Iterator[int]:
    """A server that answers each request with `ok`; gives its port. `lingers`: it never closes first."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while request := connection.recv(65536):
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok".encode())
                if b"Connection: close" in request and not lingers:
                    return

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def heard(port: int, connections: int, mode: str, wanted: str) -> dict[str, float]:
    """What `load.requests` finds in a time in which there was some of what is wanted: short, unless the machine is
    busy with something else."""
    for seconds in (0.2, 2, 20):
        found = load.requests("127.0.0.1", port, connections, seconds, mode)
        if found[wanted]:
            break
    return found


@pytest.mark.parametrize("mode", ["keep", "close"])
def test_requests_are_counted_and_timed(mode: str) -> None:
    with answering() as port:
        found = heard(port, 4, mode, "rate")
    assert found["rate"] > 0
    assert found["errors"] == 0
    assert 0 < found["p50_us"] <= found["p99_us"]


def test_other_answers_are_errors() -> None:
    with answering("503 Service Unavailable") as port:
        found = heard(port, 1, "keep", "errors")
    assert found["errors"] > 0
    assert found["rate"] == 0


def test_first_connections_are_timed_one_by_one() -> None:
    with answering() as port:
        assert len(load.first([f"127.0.0.1:{port}"] * 3)["seconds"]) == 3


def test_bulk_counts_what_the_sink_took() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=load.sink, args=(listener,), daemon=True).start()
    port = listener.getsockname()[1]
    assert any(load.bulk("127.0.0.1", port, 2, seconds)["gbps"] > 0 for seconds in (0.1, 2, 20))


def test_a_client_with_its_answer_does_not_wait_for_the_server_to_close() -> None:
    with answering(lingers=True) as port:
        assert heard(port, 1, "close", "rate")["rate"] > 0


def test_refused_connections_are_errors() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody else gets this port, and nobody listens there
        found = heard(silent.getsockname()[1], 1, "close", "errors")
    assert found["errors"] > 0
    assert found["rate"] == 0


def test_held_connections_have_had_their_answer() -> None:
    with answering() as port:
        kept = load.hold("127.0.0.1", port, 5)
        assert len({each.getsockname() for each in kept}) == 5
        for each in kept:
            each.close()


def test_a_held_connection_without_an_answer_is_told() -> None:
    with answering("503 Service Unavailable") as port, pytest.raises(SystemExit, match="connection 1"):
        load.hold("127.0.0.1", port, 1)
