"""`pods/exec` and `pods/attach` over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`.

Each message starts with a channel byte: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 terminal size; in v5, 255
closes the channel named by the next byte. Spec: KEP-4006, `remotecommand` constants.
"""

import asyncio
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import WSMsgType, web

from ambit.local.apiserver.failures import ApiFailure, bad_request
from ambit.local.apiserver.pod_logs import choose_container
from ambit.local.apiserver.requests import flag
from ambit.local.apiserver.store import Json
from ambit.local.streams import ExecSession, LogOptions, PodStreams

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255


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


async def open_socket(request: web.Request, protocols: tuple[str, ...]) -> web.WebSocketResponse:
    """Upgrades the request. Raises ApiFailure 400 when the client speaks none of the protocols."""
    offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request(
            "Upgrade request required: use a client that speaks WebSocket (kubectl 1.31 or later)"
        )
    if not set(offered) & set(protocols):
        raise ApiFailure(403, "Forbidden", f"none of the protocols {offered} is served: {list(protocols)}")
    socket = web.WebSocketResponse(protocols=protocols, max_msg_size=0, compress=False)
    await socket.prepare(request)
    return socket


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
    try:
        socket = await open_socket(request, PROTOCOLS)
        await _run(socket, session, outputs=_outputs(query.get("stderr", "true"), tty=tty))
    finally:
        await session.kill()
    return socket


def _outputs(stderr: str, *, tty: bool) -> tuple[int, ...]:
    wanted = stderr.lower() in {"1", "true"} and not tty
    return (_STDOUT, _STDERR) if wanted else (_STDOUT,)


async def _run(socket: web.WebSocketResponse, session: ExecSession, outputs: tuple[int, ...]) -> None:
    """Until the command ends or the client goes."""
    readers = {_STDOUT: session.read_stdout, _STDERR: session.read_stderr}
    copies = [asyncio.create_task(_copy(socket, channel, readers[channel])) for channel in outputs]
    feed = asyncio.create_task(_feed(socket, session))
    ended = asyncio.create_task(session.wait())
    try:
        await asyncio.wait({feed, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return
        await asyncio.gather(*copies)
        await _send_status(socket, _exit_status(ended.result()))
    except (ConnectionResetError, LookupError) as error:
        await _send_status(socket, _failure(str(error)))
    finally:
        for task in (*copies, feed, ended):
            task.cancel()
        await asyncio.gather(*copies, feed, ended, return_exceptions=True)
        await socket.close()


async def _send_status(socket: web.WebSocketResponse, status: Json) -> None:
    if not socket.closed:
        await socket.send_bytes(bytes([_STATUS]) + orjson.dumps(status))


async def _copy(socket: web.WebSocketResponse, channel: int, read: Callable[[], Awaitable[bytes]]) -> None:
    while data := await read():
        await socket.send_bytes(bytes([channel]) + data)


async def _feed(socket: web.WebSocketResponse, session: ExecSession) -> None:
    """Client to command, until the client closes the socket."""
    async for message in socket:
        data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
        if not data:
            continue
        channel, rest = data[0], bytes(data[1:])
        if channel == _STDIN and rest:
            await session.write_stdin(rest)
        elif channel == _CLOSE and rest[:1] == bytes([_STDIN]):
            await session.close_stdin()
        elif channel == _RESIZE and rest:
            size = orjson.loads(rest)
            await session.resize(int(size.get("Width", 80)), int(size.get("Height", 24)))


async def serve_attach(request: web.Request, pod: Json, streams: PodStreams) -> web.StreamResponse:
    """Shows what the container writes from now on. Input is not connected; both outputs are in the log."""
    metadata = pod["metadata"]
    container = choose_container(pod, request.query.get("container"))
    options = LogOptions(follow=True, tail_lines=0)
    socket = await open_socket(request, PROTOCOLS)
    watch = asyncio.create_task(_until_closed(socket))
    chunks = streams.read_log(metadata["namespace"], metadata["name"], container, options)

    async def copy() -> None:
        async for chunk in chunks:
            await socket.send_bytes(bytes([_STDOUT]) + chunk)

    copying = asyncio.create_task(copy())
    try:
        await asyncio.wait({watch, copying}, return_when=asyncio.FIRST_COMPLETED)
        if copying.done():
            error = copying.exception()
            await _send_status(socket, _failure(str(error)) if error else _exit_status(0))
    finally:
        for task in (watch, copying):
            task.cancel()
        await asyncio.gather(watch, copying, return_exceptions=True)
        await socket.close()
    return socket


async def _until_closed(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass
