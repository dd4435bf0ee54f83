"""What a successor's questions to its older generation look like, and who answers in that one's place."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ambit.agent.supervise.generation import Generation
from ambit.daemon.process_id import start_time
from ambit.node.supervise.answers import kind, reply
from ambit.node.supervise.stand_in import Place, release, take, terminate

STATS = bytes.fromhex("0a021a00")
SOCKET = bytes.fromhex("0a1a0a18") + b"\x0a\x16" + b"tcp://10.244.1.4:15006"
LONG = b"\x0a\x84\x01\x0a\x81\x01" + b"\x0a\x7f" + b"x" * 127
TERMINATE = bytes.fromhex("0a022a00")
BASE, EPOCH = 7, 4


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(8, "big") + message


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, BASE, EPOCH)


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[socket.socket]:
    """The successor's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "restart_child_72"))
        made.settimeout(60)
        yield made


@pytest.fixture
def successor() -> Iterator[tuple[Generation, subprocess.Popen[bytes]]]:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        began = start_time(process.pid)
        assert began is not None
        yield Generation(process.pid, began, EPOCH + 1, BASE), process
        process.kill()


def answering(place: Place) -> list[int]:
    """Processes that were put in the place."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            is_one = str(place.parent).encode() in each.read_bytes().split(b"\0")
        except OSError:
            continue
        if is_one:
            found.append(int(each.parent.name))
    return found


async def nobody_answers(place: Place, but: int | None = None) -> None:
    async with asyncio.timeout(60):
        while set(answering(place)) - {but}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@asynccontextmanager
async def taken(
    place: Place, successor: tuple[Generation, subprocess.Popen[bytes]], *, lives: bool = False
) -> AsyncIterator[int]:
    """The process that was put there; gone when its successor is."""
    before = answering(place)
    await take(place, successor[0], place.run / "log", lives=lives)
    (made,) = set(answering(place)) - set(before)
    try:
        yield made
    finally:
        successor[1].kill()
        successor[1].wait()
        await nobody_answers(place)


async def asked(asking: socket.socket, place: Place, question: bytes) -> bytes:
    await asyncio.to_thread(asking.sendto, frame(question), str(place.parent))
    return await asyncio.to_thread(asking.recv, 100)


def parent(place: Place) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(place.parent))
    made.settimeout(60)
    return made


def test_every_question_that_waits_is_answered() -> None:
    nothing, no_socket = (
        frame(bytes.fromhex("12021a00")),
        frame(b"\x12\x0d\x0a\x0b\x08" + b"\xff" * 9 + b"\x01"),
    )
    assert reply(frame(STATS)) == nothing
    assert reply(frame(SOCKET)) == reply(frame(LONG)) == no_socket
    assert reply(frame(TERMINATE)) == reply(frame(bytes.fromhex("12021a00"))) == reply(b"") == b""
    assert kind(frame(TERMINATE)) == b"\x2a"


async def test_it_answers_in_the_place_of_the_dead(
    place: Place, asking: socket.socket, successor: tuple[Generation, subprocess.Popen[bytes]]
) -> None:
    parent(place).close()
    async with taken(place, successor):
        assert await asked(asking, place, STATS) == reply(frame(STATS))
        assert await asked(asking, place, LONG) == reply(frame(LONG))
        release(place)
        assert await asyncio.to_thread(asking.recv, 100) == reply(frame(STATS))


async def test_nothing_that_was_asked_for_is_left_when_the_successor_asks_no_more(
    place: Place, asking: socket.socket, successor: tuple[Generation, subprocess.Popen[bytes]]
) -> None:
    parent(place).close()
    async with taken(place, successor):
        await asyncio.to_thread(asking.sendto, frame(TERMINATE), str(place.parent))
        await nobody_answers(place)


async def test_who_comes_later_has_the_place(
    place: Place, asking: socket.socket, successor: tuple[Generation, subprocess.Popen[bytes]]
) -> None:
    """An agent that was started again puts somebody there itself."""
    parent(place).close()
    async with taken(place, successor), taken(place, successor) as later:
        await nobody_answers(place, but=later)
        assert await asked(asking, place, STATS) == reply(frame(STATS))


async def test_it_ends_when_its_place_is_gone(
    place: Place, successor: tuple[Generation, subprocess.Popen[bytes]]
) -> None:
    parent(place).close()
    async with taken(place, successor):
        os.unlink(place.parent)
        await nobody_answers(place)


async def test_a_generation_that_lives_is_still_told_to_end(
    place: Place, asking: socket.socket, successor: tuple[Generation, subprocess.Popen[bytes]]
) -> None:
    with parent(place) as older:
        async with taken(place, successor, lives=True):
            assert await asked(asking, place, STATS) == reply(frame(STATS))
            # Also by an agent that comes later: it takes the place of the former one's, not of the generation.
            async with taken(place, successor, lives=True):
                terminate(place)
                assert await asyncio.to_thread(older.recv, 100) == frame(TERMINATE)
                await asyncio.to_thread(asking.sendto, frame(TERMINATE), str(place.parent))
                assert await asyncio.to_thread(older.recv, 100) == frame(TERMINATE)
