"""`pods/exec` and `pods/attach`: stdin, stdout, stderr, terminal sizes and the final Status, each a channel."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from ambit.local.apiserver.failures import ApiFailure, bad_request
from ambit.local.apiserver.pods.channels import (
    RESIZE,
    STATUS,
    STDERR,
    STDIN,
    STDOUT,
    Channels,
    open_channels,
)
from ambit.local.apiserver.pods.logs import choose_container
from ambit.local.apiserver.requests import flag
from ambit.local.apiserver.storage.store import Json
from ambit.local.streams import ExecSession, LogOptions, PodStreams


def _exit_status(code: int) -> Json:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _failure(message: str) -> Json:
    return {"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500}


async def serve_exec(request: web.Request, pod: Json, streams: PodStreams) -> web.StreamResponse:
    """Runs a command. Raises ApiFailure 400."""
    query, metadata = request.query, pod["metadata"]
    command = query.getall("command", [])
    if not command:
        raise bad_request("you must specify at least one command for the container")
    container = choose_container(pod, query.get("container"))
    wants_input, tty = flag(query, "stdin"), flag(query, "tty")
    try:
        session = await streams.exec(
            metadata["namespace"], metadata["name"], container, command, stdin=wants_input, tty=tty
        )
    except LookupError as error:
        raise ApiFailure(400, "BadRequest", str(error.args[0] if error.args else error)) from error
    asked = {
        STATUS: True,
        STDIN: wants_input,
        STDOUT: flag(query, "stdout"),
        STDERR: flag(query, "stderr") and not tty,
        RESIZE: tty,
    }
    try:
        channels = await open_channels(request, {channel for channel, wanted in asked.items() if wanted})
        await _run(channels, session, _outputs(query.get("stderr", "true"), tty=tty))
    finally:
        await session.kill()
    return channels.response


def _outputs(stderr: str, *, tty: bool) -> tuple[int, ...]:
    wanted = stderr.lower() in {"1", "true"} and not tty
    return (STDOUT, STDERR) if wanted else (STDOUT,)


async def _run(channels: Channels, session: ExecSession, outputs: tuple[int, ...]) -> None:
    """Until the command ends or the client goes."""
    readers = {STDOUT: session.read_stdout, STDERR: session.read_stderr}
    copies = [asyncio.create_task(_copy(channels, channel, readers[channel])) for channel in outputs]
    feed = asyncio.create_task(_feed(channels, session))
    ended = asyncio.create_task(session.wait())
    try:
        await asyncio.wait({feed, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return
        await asyncio.gather(*copies)
        await _send_status(channels, _exit_status(ended.result()))
    except (ConnectionResetError, LookupError) as error:
        await _send_status(channels, _failure(str(error)))
    finally:
        for task in (*copies, feed, ended):
            task.cancel()
        await asyncio.gather(*copies, feed, ended, return_exceptions=True)
        await channels.close()


async def _send_status(channels: Channels, status: Json) -> None:
    with contextlib.suppress(ConnectionResetError):
        await channels.send(STATUS, orjson.dumps(status))


async def _copy(channels: Channels, channel: int, read: Callable[[], Awaitable[bytes]]) -> None:
    while data := await read():
        await channels.send(channel, data)


async def _feed(channels: Channels, session: ExecSession) -> None:
    """Client to command, until the client closes the connection."""
    async for channel, data in channels.received():
        if channel == STDIN and data:
            await session.write_stdin(data)
        elif channel == STDIN:
            await session.close_stdin()
        elif channel == RESIZE and data:
            size = orjson.loads(data)
            await session.resize(int(size.get("Width", 80)), int(size.get("Height", 24)))


async def serve_attach(request: web.Request, pod: Json, streams: PodStreams) -> web.StreamResponse:
    """Shows what the container writes from now on. Input is not connected; both outputs are in the log."""
    metadata = pod["metadata"]
    container = choose_container(pod, request.query.get("container"))
    options = LogOptions(follow=True, tail_lines=0)
    channels = await open_channels(request, {STATUS})
    watch = asyncio.create_task(_until_closed(channels))
    chunks = streams.read_log(metadata["namespace"], metadata["name"], container, options)

    async def copy() -> None:
        async for chunk in chunks:
            await channels.send(STDOUT, chunk)

    copying = asyncio.create_task(copy())
    try:
        await asyncio.wait({watch, copying}, return_when=asyncio.FIRST_COMPLETED)
        if copying.done():
            error = copying.exception()
            await _send_status(channels, _failure(str(error)) if error else _exit_status(0))
    finally:
        for task in (watch, copying):
            task.cancel()
        await asyncio.gather(watch, copying, return_exceptions=True)
        await channels.close()
    return channels.response


async def _until_closed(channels: Channels) -> None:
    async for _ in channels.received():
        pass
