"""The socket that hands pods to a ztunnel, with a ztunnel of the test's own at its other end."""

import array
import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bench.ztunnel.zds import PACKET, LocalPod, ZdsServer, add_request, delete_request, refusal, snapshot_sent

from ambit.core.errors import AmbitError

NETNS = "/proc/self/ns/net"
POD = LocalPod("u1", "web", "shop", "seller", NETNS)
HELLO, AGREED, REFUSED = b"\x08\x01", b"\x0a\x00", b"\x0a\x04\x0a\x02no"


class Peer:
    """A ztunnel that notes what it is told, and agrees to all but what adds a pod of the name `bad`."""

    def __init__(self, path: Path) -> None:
        self.told: list[bytes] = []
        self.namespaces: list[int] = []
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.settimeout(60)
        self.connection.connect(str(path))
        self.connection.send(HELLO)
        self._greeted = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        assert self._greeted.wait(60)

    def end(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self.connection.close()

    def _listen(self) -> None:
        while True:
            data, ancillary, _, _ = self.connection.recvmsg(PACKET, socket.CMSG_SPACE(4))
            if not data:
                return
            for _, _, rights in ancillary:
                (descriptor,) = array.array("i", rights)
                self.namespaces.append(os.fstat(descriptor).st_ino)
                os.close(descriptor)
            self.told.append(data)
            self.connection.send(REFUSED if b"bad" in data else AGREED)
            if data == snapshot_sent():
                self._greeted.set()


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Peer]:
    """A ztunnel that has learnt of every pod so far."""
    peer = await asyncio.to_thread(Peer, path)
    try:
        yield peer
    finally:
        await asyncio.to_thread(peer.end)


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[ZdsServer]:
    server = ZdsServer(path)
    task = asyncio.create_task(server.run())
    await asyncio.sleep(0)  # it listens
    yield server
    task.cancel()


def test_messages_are_those_of_zds() -> None:
    info = b"\x0a\x03web" + b"\x12\x04shop" + b"\x1a\x06seller"
    add = b"\x0a\x02u1" + b"\x12" + bytes([len(info)]) + info
    assert add_request(POD) == b"\x0a" + bytes([len(add)]) + add
    assert delete_request("u1") == b"\x12\x04\x12\x02u1"
    assert snapshot_sent() == b"\x1a\x00"
    assert refusal(AGREED) == ""
    assert refusal(b"\x0a\x05\x0a\x03bad") == "bad"
    long = add_request(LocalPod("u", "x" * 300, "n", "a", NETNS))
    assert len(long) == 3 + 2 + 1 + (1 + 2 + 1 + 2 + 300 + 3 + 3)  # lengths above 127 take two bytes


@pytest.mark.parametrize("answer", [b"\x12\x00", b"\x0a\x05\x0a"])
def test_an_answer_that_is_none_is_an_error(answer: bytes) -> None:
    with pytest.raises(AmbitError, match="not understood"):
        refusal(answer)


def test_a_ztunnel_learns_of_pods_and_their_namespaces_and_of_their_end(tmp_path: Path) -> None:
    async def story() -> Peer:
        async with serving(tmp_path / "z") as server, connected(tmp_path / "z") as peer:
            await server.add(POD)
            await server.remove(POD.uid)
            return peer

    peer = asyncio.run(story())
    assert peer.told == [snapshot_sent(), add_request(POD), delete_request(POD.uid)]
    assert peer.namespaces == [os.stat(NETNS).st_ino]


def test_a_ztunnel_that_comes_later_learns_of_every_pod_first(tmp_path: Path) -> None:
    async def story() -> Peer:
        async with serving(tmp_path / "z") as server:
            async with connected(tmp_path / "z"):
                await server.add(POD)
            async with connected(tmp_path / "z") as second:
                return second

    assert asyncio.run(story()).told == [add_request(POD), snapshot_sent()]


def test_a_refusal_is_an_error_with_ztunnels_words_and_the_pod_is_forgotten(tmp_path: Path) -> None:
    async def story() -> Peer:
        async with serving(tmp_path / "z") as server:
            async with connected(tmp_path / "z"):
                with pytest.raises(AmbitError, match="ztunnel refused: no"):
                    await server.add(LocalPod("u2", "bad", "shop", "seller", NETNS))
            async with connected(tmp_path / "z") as second:
                return second

    assert asyncio.run(story()).told == [snapshot_sent()]


def test_a_ztunnel_that_is_gone_is_an_error(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path / "z") as server:
            async with connected(tmp_path / "z"):
                pass
            with pytest.raises(AmbitError, match=r"not reached|closed"):
                await server.add(POD)

    asyncio.run(story())


def test_without_a_ztunnel_a_pod_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AmbitError, match="not connected"):
        asyncio.run(ZdsServer(tmp_path / "z").add(POD))
