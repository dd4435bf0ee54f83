"""Running a command in a container through the API server (WebSocket, `v5.channel.k8s.io`).

Every message starts with the number of its channel: 1 stdout, 2 stderr, 3 the final Status (Kubernetes KEP-4006).
"""

from urllib.parse import urlencode

import msgspec

from ambit.core.errors import Unreachable
from ambit.kube.client import Client
from ambit.kube.resource import PODS
from ambit.kube.websocket import WebSocket, WebSocketError, check_answer, new_key, upgrade_headers

PROTOCOL = "v5.channel.k8s.io"
_STDOUT, _STDERR, _STATUS = 1, 2, 3
_READ = 64 * 1024


class ExecResult(msgspec.Struct, frozen=True):
    """What a command printed, and its exit code."""

    stdout: bytes
    stderr: bytes
    code: int


class _Cause(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct, frozen=True):
    causes: tuple[_Cause, ...] = ()


class _Status(msgspec.Struct, frozen=True):
    status: str = ""
    message: str = ""
    details: _Details | None = None

    def exit_code(self) -> int:
        """0 for success, the command's own code, or 1 when the server could not run it."""
        if self.status == "Success":
            return 0
        causes = self.details.causes if self.details else ()
        return next((int(cause.message) for cause in causes if cause.reason == "ExitCode"), 1)


async def run_in_pod(
    client: Client, namespace: str, pod: str, command: list[str], container: str | None = None
) -> ExecResult:
    """Run `command` without stdin until it ends. Raises `NotFound`, `Unreachable`."""
    query = [("command", word) for word in command] + [("stdout", "true"), ("stderr", "true")]
    if container is not None:
        query.append(("container", container))
    key = new_key()
    path = f"{PODS.path(namespace, pod, 'exec')}?{urlencode(query)}"
    response, connection = await client.upgrade(path, upgrade_headers(key, PROTOCOL))
    channels: dict[int, list[bytes]] = {_STDOUT: [], _STDERR: [], _STATUS: []}
    socket = WebSocket()
    try:
        check_answer(key, PROTOCOL, response.headers)
        while not socket.is_closed and (data := await connection.reader.read(_READ)):
            for message in socket.receive(data):
                channels.setdefault(message[0], []).append(message[1:])
            if output := socket.output():
                connection.writer.write(output)
    except (OSError, WebSocketError) as error:
        raise Unreachable(f"cannot run `{command[0]}` in pod {namespace}/{pod}: {error}") from error
    finally:
        connection.close()
    if not channels[_STATUS]:
        raise Unreachable(f"`{command[0]}` in pod {namespace}/{pod}: the server broke off")
    status = msgspec.json.decode(b"".join(channels[_STATUS]), type=_Status)
    return ExecResult(b"".join(channels[_STDOUT]), b"".join(channels[_STDERR]), status.exit_code())
