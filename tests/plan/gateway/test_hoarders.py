"""Clients who ask a gateway for much and read nothing: they pay for it, and not who comes after them."""

import select
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest

from ambit.envoy import defaults
from tests.ingest.build import service
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import to, to_edge
from tests.plan import hostile
from tests.plan.dataplane.served import until
from tests.plan.gateway.conftest import Edge
from tests.plan.gateway.test_hostile import memory
from tests.plan.hostile import END_HEADERS, END_STREAM, HOST, frame, get

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

TARGET = 8098
OTHER = "other.example.com"
CONNECTIONS = 6
_INITIAL_WINDOW = 4
_HEAD = 9
NO_WINDOW = hostile.PREFACE + frame(hostile.SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW, 0))


def answering(size: int) -> Callable[[socket.socket, object], None]:
    answer = f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode() + bytes(size)

    def serve(connection: socket.socket, _: object) -> None:
        lines = connection.makefile("rb")
        try:
            while line := lines.readline():
                if line == b"\r\n":
                    connection.sendall(answer)
        except OSError:
            return

    return serve


class Hoarders:
    """As many streams as a gateway lets each connection have. No byte of an answer is read."""

    def __init__(self, edge: Edge) -> None:
        self._heard: dict[socket.socket, bytes] = defaultdict(bytes)
        self._connections = [edge.client.connect(edge.host.four, 80) for _ in range(CONNECTIONS)]
        for each in self._connections:
            streams = range(1, 2 * defaults.EDGE_STREAMS, 2)
            asked = [frame(hostile.HEADERS, END_HEADERS | END_STREAM, stream, get()) for stream in streams]
            each.sendall(NO_WINDOW + b"".join(asked))

    def ended(self) -> bool:
        """Whether some of the streams were ended before their time, or their connection was."""
        readable, _, _ = select.select(self._connections, (), (), 0)
        for each in readable:
            self._heard[each] += each.recv(1 << 16)
        return any(map(_has_reset, self._heard.values()))

    def close(self) -> None:
        for each in self._connections:
            each.close()


def _has_reset(heard: bytes) -> bool:
    while len(heard) >= _HEAD:
        if heard[3] == hostile.RESET:
            return True
        heard = heard[_HEAD + int.from_bytes(heard[:3], "big") :]
    return False


def is_served(edge: Edge) -> bool:
    try:
        return edge.get(OTHER).status == 200
    except OSError:
        return False


@pytest.mark.parametrize("size", [1_000_000, 4_000_000], ids=["whole answers", "answers under way"])
def test_who_does_not_read_is_ended_and_others_are_served(edge: Edge, size: int) -> None:
    """An answer that Envoy has as a whole is no stream of its own any more, but a rest to be sent."""
    rules: Sequence[dict[str, object]] = ({"backendRefs": [to("large", 81)]},)
    edge.apply(
        gateway(),
        to_edge(*rules, hostnames=[HOST]),
        to_edge({"backendRefs": [to("two")]}, name="others", hostnames=[OTHER]),
        service("large", {"app": "one"}, ip="10.96.7.98", port=81, target=TARGET),
    )
    with edge.servers["one"].listen(TARGET, answering(size)):
        hoarders = Hoarders(edge)
        try:
            until(hoarders.ended, "streams that are ended")
            until(lambda: is_served(edge), "an answer to somebody else")
            until(
                lambda: memory(edge) < defaults.HEAP_LIMIT * defaults.HOARDERS_ALL,
                "memory that is free again",
            )
            assert is_served(edge)
        finally:
            hoarders.close()
    until(lambda: is_served(edge), "an answer to somebody else")
