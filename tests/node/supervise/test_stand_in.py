"""What a successor's questions to its older generation look like, and the stand-in's answers."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.node.supervise.stand_in import StandIn, reply, terminate

STATS = bytes.fromhex("0a021a00")
SOCKET = bytes.fromhex("0a1a0a18") + b"\x0a\x16" + b"tcp://10.244.1.4:15006"
LONG = b"\x0a\x84\x01\x0a\x81\x01" + b"\x0a\x7f" + b"x" * 127
TERMINATE = bytes.fromhex("0a022a00")
BASE, EPOCH = 7, 4


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(8, "big") + message


@pytest.fixture
def successor(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "restart_child_72"))
        made.settimeout(5)
        yield made


def parent(tmp_path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "restart_parent_71"))
    made.settimeout(5)
    return made


def test_every_question_that_waits_is_answered() -> None:
    nothing, no_socket = (
        frame(bytes.fromhex("12021a00")),
        frame(b"\x12\x0d\x0a\x0b\x08" + b"\xff" * 9 + b"\x01"),
    )
    assert reply(frame(STATS)) == nothing
    assert reply(frame(SOCKET)) == reply(frame(LONG)) == no_socket
    assert reply(frame(TERMINATE)) == reply(frame(bytes.fromhex("12021a00"))) == reply(b"") == b""


async def test_it_answers_in_the_place_of_the_dead(tmp_path: Path, successor: socket.socket) -> None:
    parent(tmp_path).close()
    stand_in = StandIn(tmp_path, BASE, EPOCH)
    try:
        await asyncio.to_thread(successor.sendto, frame(STATS), str(tmp_path / "restart_parent_71"))
        assert await asyncio.to_thread(successor.recv, 100) == reply(frame(STATS))
        stand_in.release()
        assert await asyncio.to_thread(successor.recv, 100) == reply(frame(STATS))
    finally:
        stand_in.close()


async def test_a_generation_that_lives_is_still_told_to_end(tmp_path: Path, successor: socket.socket) -> None:
    with parent(tmp_path) as older:
        stand_in = StandIn(tmp_path, BASE, EPOCH, lives=True)
        try:
            await asyncio.to_thread(successor.sendto, frame(STATS), str(tmp_path / "restart_parent_71"))
            assert await asyncio.to_thread(successor.recv, 100) == reply(frame(STATS))
            # Also by an agent that comes later: its stand-in takes the place of the former one, not of the generation.
            again = StandIn(tmp_path, BASE, EPOCH, lives=True)
            again.close()
            terminate(tmp_path, BASE, EPOCH)
            assert await asyncio.to_thread(older.recv, 100) == frame(TERMINATE)
        finally:
            stand_in.close()
