"""The end of a connection through a tunnel: complete, or seen as a reset; never a part that looks like the whole."""

import ipaddress
import re
import socket
import struct
import threading
from collections import defaultdict

import pytest

from ambit.core.address import host_port
from ambit.envoy import defaults
from tests.plan.dataplane.conftest import Mesh, Pod
from tests.plan.dataplane.network import Host, read_all
from tests.plan.dataplane.served import until

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
SMALLEST_WINDOW = 65535
PART = 16 << 10
_CUT_SHORT = re.compile(r"the tunnel of (?P<client>\S+) .* was cut short")


def _read_slowly(connection: socket.socket) -> tuple[int, str]:
    """How much came at about 8 MB/s, and how it ended."""
    received, pause = 0, threading.Event()
    try:
        while part := connection.recv(PART):
            received += len(part)
            pause.wait(0.002)
    except ConnectionError:
        return received, "reset"
    return received, "end"


def _abort(connection: socket.socket, _: str) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _connect(client: Host, server: Pod, port: int, version: int = 4) -> socket.socket:
    connection = client.connect(server.four if version == 4 else server.six, port)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * PART)
    return connection


def _name(connection: socket.socket) -> str:
    """Of its client's end, as logs name it."""
    address, port = connection.getsockname()[:2]
    return host_port(ipaddress.ip_address(address), port)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.usefixtures("way")
def test_a_lost_end_is_a_reset_or_told(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: int
) -> None:
    """With the smallest window Envoy drops the end of most answers of a server that closes first. On a machine that is
    busy enough a client may have read all that is left before its node's agent hears of it."""
    a, far = mesh.pods["a"], mesh.pods["far"]
    answer = bytes(4 << 20)
    monkeypatch.setattr(defaults, "DOWNLOAD_STREAM_WINDOW", SMALLEST_WINDOW)
    mesh.update()
    seen: dict[str, set[str]] = defaultdict(set)

    def told() -> set[str]:
        found = (_CUT_SHORT.match(each.getMessage()) for each in caplog.records)
        return {each["client"] for each in found if each is not None}

    try:
        with far.listen(8090 + version, lambda connection, _: connection.sendall(answer)):
            for _ in range(6):
                with _connect(a, far, 8090 + version, version) as connection:
                    name = _name(connection)
                    received, ending = _read_slowly(connection)
                seen[("whole " if received == len(answer) else "part ") + ending].add(name)
    finally:
        monkeypatch.undo()
        mesh.update()
    assert seen["part reset"], seen
    until(lambda: seen["part reset"] | seen["part end"] <= told(), "what was cut short")


@pytest.mark.parametrize("keeps_reading", [True, False])
def test_short_answers_of_a_server_that_closes_first_are_whole(
    mesh: Mesh, way: str, keeps_reading: bool
) -> None:
    """As with `Connection: close`."""
    a, far = mesh.pods["a"], mesh.pods["far"]
    answer = bytes(range(256)) * 40

    def serve(connection: socket.socket, _: str) -> None:
        connection.recv(100)
        connection.sendall(answer)
        if keeps_reading:
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)

    with far.listen(8097, serve):
        for _ in range(250):
            with a.connect(far.four, 8097) as connection:
                connection.sendall(b"GET / HTTP/1.0")
                assert read_all(connection) == answer


def test_an_answer_within_the_window_waits_for_its_reader(mesh: Mesh) -> None:
    """Nothing is lost although the client reads only after the server has closed."""
    a, far = mesh.pods["a"], mesh.pods["far"]
    answer = bytes(range(256)) * (defaults.DOWNLOAD_STREAM_WINDOW // 512)
    closed = threading.Event()

    def serve(connection: socket.socket, _: str) -> None:
        connection.sendall(answer)
        connection.close()
        closed.set()

    with far.listen(8087, serve):
        for _ in range(5):
            closed.clear()
            with _connect(a, far, 8087) as connection:
                assert closed.wait(60)
                assert read_all(connection) == answer


@pytest.mark.parametrize("destination", ["far", "near"])
def test_a_slow_reader_that_closed_its_side_gets_all(mesh: Mesh, destination: str) -> None:
    a, server = mesh.pods["a"], mesh.pods[destination]
    answer = bytes(3 * defaults.DOWNLOAD_STREAM_WINDOW)

    def serve(connection: socket.socket, _: str) -> None:
        read_all(connection)
        connection.sendall(answer)

    with server.listen(8088, serve), _connect(a, server, 8088) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert _read_slowly(connection) == (len(answer), "end")


def test_other_connections_of_the_pod_go_on(mesh: Mesh) -> None:
    """A reset by the server is not taken for a lost end of another connection."""
    a, far = mesh.pods["a"], mesh.pods["far"]

    mesh.settle()
    with far.listen(8089, _abort), far.listen(8095), _connect(a, far, 8095) as kept:
        with _connect(a, far, 8089) as connection:
            connection.sendall(b"x")
            assert _read_slowly(connection)[0] == 0
        kept.sendall(b"still here")
        kept.shutdown(socket.SHUT_WR)
        assert read_all(kept) == f"{a.four} 10".encode()
