"""The socket on which a ztunnel learns of its node's pods: ZDS, one protobuf message in each packet.

Source: `proto/zds.proto` of github.com/istio/ztunnel, and what a running ztunnel was seen to send. ztunnel connects
when its configuration is complete and says its version; it is told every pod, then that this was all, then changes.
Each request has one answer. A pod's network namespace goes along as a descriptor.
"""

import array
import asyncio
import os
import socket
from pathlib import Path

import msgspec

from ambit.core.errors import AmbitError

PACKET = 1024
"""The longest that ztunnel takes."""
PATIENCE = 20.0
_ADD, _DEL, _SNAPSHOT_SENT, _ACK = 1, 2, 3, 1


class LocalPod(msgspec.Struct, frozen=True):
    """A pod of the node; `netns` is the path of its network namespace."""

    uid: str
    name: str
    namespace: str
    account: str
    netns: str


def add_request(pod: LocalPod) -> bytes:
    """WorkloadRequest.add: the pod's uid and WorkloadInfo."""
    info = _text(1, pod.name) + _text(2, pod.namespace) + _text(3, pod.account)
    return _field(_ADD, _text(1, pod.uid) + _field(2, info))


def delete_request(uid: str) -> bytes:
    """WorkloadRequest.del, whose uid is field 2."""
    return _field(_DEL, _text(2, uid))


def snapshot_sent() -> bytes:
    """WorkloadRequest.snapshot_sent."""
    return _field(_SNAPSHOT_SENT, b"")


def refusal(response: bytes) -> str:
    """The error in a WorkloadResponse; empty when ztunnel agreed. Raises AmbitError for anything else."""
    ack = _content(response, _ACK)
    return _content(ack, 1).decode(errors="replace") if ack else ""


class ZdsServer:
    """Serves one ztunnel: the one that connected last, as during an upgrade."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pods: dict[str, LocalPod] = {}
        self._connection: socket.socket | None = None
        self._turn = asyncio.Lock()
        """One request at a time: an answer does not say what it is for."""

    async def run(self) -> None:
        """Serves until cancelled."""
        loop = asyncio.get_running_loop()
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(os.fspath(self._path))
            os.chmod(self._path, 0o600)
            listener.listen(4)
            listener.setblocking(False)
            while True:
                connection, _ = await loop.sock_accept(listener)
                async with self._turn:
                    await self._greet(connection)

    async def add(self, pod: LocalPod) -> None:
        """ztunnel listens in the pod when this returns. Raises AmbitError."""
        async with self._turn:
            await self._ask(add_request(pod), pod.netns)
            self._pods[pod.uid] = pod

    async def remove(self, uid: str) -> None:
        """ztunnel has left the pod when this returns. Raises AmbitError."""
        async with self._turn:
            if self._pods.pop(uid, None) is not None:
                await self._ask(delete_request(uid))

    async def _greet(self, connection: socket.socket) -> None:
        """The new connection learns of every pod; it stays unused when that fails, and ztunnel tries again."""
        former, self._connection = self._connection, connection
        if former is not None:
            former.close()
        connection.setblocking(False)
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_recv(connection, PACKET)
            for pod in tuple(self._pods.values()):
                await self._ask(add_request(pod), pod.netns)
            await self._ask(snapshot_sent())
        except (AmbitError, OSError):
            self._drop()

    async def _ask(self, request: bytes, netns: str = "") -> None:
        if self._connection is None:
            raise AmbitError("ztunnel is not connected")
        if len(request) > PACKET:
            raise AmbitError(f"the request is longer than the {PACKET} bytes that ztunnel takes")
        try:
            _send(self._connection, request, netns)
            async with asyncio.timeout(PATIENCE):
                response = await asyncio.get_running_loop().sock_recv(self._connection, PACKET)
        except OSError as problem:
            self._drop()
            raise AmbitError(f"ztunnel was not reached: {problem}") from problem
        if not response:
            self._drop()
            raise AmbitError("ztunnel closed the connection")
        if reason := refusal(response):
            raise AmbitError(f"ztunnel refused: {reason}")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _send(connection: socket.socket, request: bytes, netns: str) -> None:
    if not netns:
        connection.send(request)
        return
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        connection.sendmsg([request], [rights])
    finally:
        os.close(descriptor)


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _content(message: bytes, number: int) -> bytes:
    """The content of the message's only field, which must have this number; empty for an empty message."""
    if not message:
        return b""
    length, shift, at = 0, 0, 1
    while at < len(message):
        length |= (message[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not message[at - 1] & 0x80:
            break
    content = message[at:]
    if message[0] != number << 3 | 2 or len(content) != length:
        raise AmbitError(f"ztunnel's answer is not understood: {message[:16].hex()}")
    return content
