"""Envoy's admin interface over its Unix socket: one small HTTP/1.1 exchange per call.

By hand, because the answers are few and an HTTP library would cost the agent more memory than Envoy's
whole configuration.
"""

import asyncio
from pathlib import Path

import msgspec

from ambit.core.errors import Unreachable

_LIMIT = 1 << 20


class ServerInfo(msgspec.Struct, frozen=True):
    """What `/server_info` tells that matters here."""

    state: str
    version: str
    epoch: int

    @property
    def release(self) -> str:
        """`1.40.0` of `<commit>/1.40.0/Clean/RELEASE/BoringSSL`."""
        parts = self.version.split("/")
        return parts[1] if len(parts) > 1 else self.version


class _Options(msgspec.Struct, frozen=True):
    restart_epoch: int = 0


class _Info(msgspec.Struct, frozen=True):
    state: str
    version: str
    command_line_options: _Options


class Admin:
    """Calls to the admin socket at `path`. Every failure is an `Unreachable`."""

    def __init__(self, path: Path, timeout: float = 5.0) -> None:
        self._path = path
        self._timeout = timeout

    async def get(self, target: str) -> bytes:
        return await self._call("GET", target)

    async def post(self, target: str) -> bytes:
        """For what changes something."""
        return await self._call("POST", target)

    async def _call(self, method: str, target: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_LIMIT)
                try:
                    writer.write(
                        f"{method} {target} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n"
                        f"Content-Length: 0\r\n\r\n".encode()
                    )
                    return await _response(reader)
                finally:
                    writer.close()
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError) as problem:
            raise Unreachable(f"Envoy's admin socket {self._path} does not answer") from problem

    async def server_info(self) -> ServerInfo:
        try:
            info = msgspec.json.decode(await self.get("/server_info"), type=_Info)
        except msgspec.DecodeError as problem:
            raise Unreachable(f"Envoy's admin answer is not understood: {problem}") from problem
        return ServerInfo(info.state, info.version, info.command_line_options.restart_epoch)

    async def stat(self, name: str) -> int | None:
        """The value of one counter or gauge by its exact name, None when Envoy does not have it."""
        text = await self.get(f"/stats?filter=^{name.replace('.', '%5C.')}$")
        for line in text.decode().splitlines():
            key, _, value = line.rpartition(": ")
            if key == name and value.lstrip("-").isdigit():
                return int(value)
        return None


async def _response(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ")[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
    if status != 200:
        raise Unreachable(f"Envoy's admin interface answered {status}: {body[:200].decode('latin-1')}")
    return body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(parts)
