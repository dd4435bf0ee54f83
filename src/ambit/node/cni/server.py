"""`cni.sock`: one JSON object per line each way (docs/design.md section 14)."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from ambit.core.errors import AmbitError
from ambit.node.enrol.sandbox import Sandbox

_log = logging.getLogger("ambit.cni")
_LINE = 64 * 1024
_IDLE = 60.0
"""Seconds a client may keep a connection without a request."""


class _Request(msgspec.Struct, frozen=True):
    command: str
    namespace: str
    name: str
    uid: str
    sandbox: str
    netns: str
    ips: tuple[str, ...] = ()


class _Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    ok: bool
    enrolled: bool | None = None
    error: str = ""


_decoder = msgspec.json.Decoder(_Request)


class CniServer:
    """`add` returns whether the pod was captured, `remove` when Envoy left it, `left` when no service leads to it any
    more; all raise AmbitError."""

    def __init__(
        self,
        path: Path,
        add: Callable[[Sandbox], Awaitable[bool]],
        remove: Callable[[Sandbox], Awaitable[None]],
        left: Callable[[Sandbox], Awaitable[None]],
    ) -> None:
        self._path = path
        self._add = add
        self._remove = remove
        self._left = left

    async def run(self) -> None:
        """Serves until cancelled."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, str(self._path), limit=_LINE)
        os.chmod(self._path, 0o600)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(_IDLE):
                    line = await reader.readline()
                if not line:
                    return
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (OSError, ValueError, TimeoutError):
            return
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> _Reply:
        try:
            request = _decoder.decode(line)
            sandbox = Sandbox(
                request.namespace, request.name, request.uid, request.sandbox, request.netns, request.ips
            )
            match request.command:
                case "add":
                    return _Reply(True, enrolled=await self._add(sandbox))
                case "del":
                    await self._remove(sandbox)
                    return _Reply(True)
                case "leave":
                    await self._left(sandbox)
                    return _Reply(True)
                case other:
                    return _Reply(False, error=f"unknown command {other!r}")
        except AmbitError as problem:
            _log.warning("%s", problem.message)
            return _Reply(False, error=problem.message)
        except (msgspec.DecodeError, ValueError) as problem:
            return _Reply(False, error=f"the request is not understood: {problem}")
        except OSError as problem:
            # A sandbox that ends while it is captured.
            _log.warning("%s", problem)
            return _Reply(False, error=f"the node agent met a problem of the system: {problem}")
