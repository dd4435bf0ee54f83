"""The shim's loop: one thread, one poll; requests, container output and dead children in the order the kernel
tells them.

Rules:
1. A leftover of an ended container is killed (it is known by its mount namespace), unless the container is
   privileged: the node agent's Envoy must outlive the agent. Everything dies with the pod.
2. Closing the connection of an `exec` kills that program.
3. The loop never waits for a peer: answers that do not fit a socket's buffer close that connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from functools import partial

from ambit.local.pods.shim import family, spawn
from ambit.local.pods.shim.logfile import LogFile
from ambit.local.pods.shim.users import UserNamespace

TYPE_CHECKING = False  # `typing` costs each pod a megabyte
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ambit.local.pods.shim.protocol import Container, ContainerState, Reply, Request, Sandbox

_LONGEST_REQUEST = 4 * 1024 * 1024


class _Connection:
    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.buffer = b""
        self.descriptors: list[int] = []
        self.watching = False
        self.exec_pid: int | None = None


class _Running:
    def __init__(self, container: Container, state: ContainerState, log: LogFile, namespace: int) -> None:
        self.container = container
        self.state = state
        self.log = log
        self.namespace = namespace
        self.pipes: dict[int, str] = {}


class Server:
    """Listens when constructed; `serve` never returns."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._users = UserNamespace(sandbox["user_base"]) if sandbox["user_base"] else None
        self._running: dict[str, _Running] = {}
        self._connections: dict[int, _Connection] = {}
        self._handlers: dict[int, Callable[[], object]] = {}
        self._poll = select.poll()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(sandbox["socket"])
        self._listener.bind(sandbox["socket"])
        os.chmod(sandbox["socket"], 0o600)
        self._listener.listen(16)
        self._watch(self._listener.fileno(), self._accept)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._wake = wake_read
        self._watch(wake_read, self._reap)

    def serve(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                handler = self._handlers.get(descriptor)
                if handler is not None:
                    handler()

    def _watch(self, descriptor: int, handler: Callable[[], object]) -> None:
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.POLLIN)

    def _forget(self, descriptor: int) -> None:
        del self._handlers[descriptor]
        self._poll.unregister(descriptor)

    def _accept(self) -> None:
        peer, _ = self._listener.accept()
        peer.setblocking(False)
        connection = _Connection(peer)
        self._connections[peer.fileno()] = connection
        self._watch(peer.fileno(), lambda: self._receive(connection))

    def _receive(self, connection: _Connection) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(connection.peer, 65536, 3)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)  # Python 3.11's recv_fds ignores MSG_CMSG_CLOEXEC
        connection.descriptors += descriptors
        connection.buffer += data
        if not data or len(connection.buffer) > _LONGEST_REQUEST:
            self._close(connection)
            return
        while connection.peer.fileno() >= 0 and b"\n" in connection.buffer:
            line, connection.buffer = connection.buffer.split(b"\n", 1)
            self._answer(connection, line)

    def _close(self, connection: _Connection) -> None:
        if connection.peer.fileno() < 0:
            return
        if connection.exec_pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(connection.exec_pid, signal.SIGKILL)
        self._drop_descriptors(connection)
        self._forget(connection.peer.fileno())
        del self._connections[connection.peer.fileno()]
        connection.peer.close()

    def _drop_descriptors(self, connection: _Connection) -> None:
        for descriptor in connection.descriptors:
            os.close(descriptor)
        connection.descriptors = []

    def _send(self, connection: _Connection, reply: Reply) -> None:
        try:
            connection.peer.sendall(json.dumps(reply).encode() + b"\n")
        except OSError:
            self._close(connection)

    def _answer(self, connection: _Connection, line: bytes) -> None:
        try:
            request: Request = json.loads(line)
            reply = self._perform(connection, request)
        except OSError as problem:
            reply = {"ok": False, "error": problem.strerror or str(problem)}
        except (KeyError, ValueError, TypeError) as problem:
            reply = {"ok": False, "error": f"bad request: {problem!r}"}
        self._drop_descriptors(connection)
        self._send(connection, reply)

    def _perform(self, connection: _Connection, request: Request) -> Reply:
        match request["op"]:
            case "start":
                return {"ok": True, "pid": self._start(request["container"])}
            case "exec":
                return {"ok": True, "pid": self._exec(connection, request)}
            case "signal":
                return {"ok": self._signal(request["name"], request["signal"])}
            case "watch":
                connection.watching = True
                return self._state()
            case "state":
                return self._state()
            case "stop":
                return self._stop(connection)
            case unknown:
                raise ValueError(unknown)

    def _state(self) -> Reply:
        return {"ok": True, "containers": [item.state for item in self._running.values()]}

    def _start(self, container: Container) -> int:
        before = self._running.get(container["name"])
        if before is not None and before.state["finished"] is None:
            raise ValueError(f"container {container['name']} already runs")
        log = LogFile(container["log"])
        pipes = [os.pipe(), os.pipe()]
        try:
            pid = spawn.start(self._sandbox, self._users, container, pipes[0][1], pipes[1][1])
        except OSError:
            for read_end, _ in pipes:
                os.close(read_end)
            log.close()
            raise
        finally:
            for _, write_end in pipes:
                os.close(write_end)
        state: ContainerState = {
            "name": container["name"],
            "attempt": container["attempt"],
            "pid": pid,
            "started": container["started"],
            "finished": None,
            "exit_code": None,
            "signal": None,
        }
        running = _Running(container, state, log, family.mount_namespace(pid))
        self._running[container["name"]] = running
        for (read_end, _), stream in zip(pipes, ("stdout", "stderr"), strict=True):
            os.set_blocking(read_end, False)
            running.pipes[read_end] = stream
            self._watch(read_end, partial(self._copy, running, read_end))
        self._tell()
        return pid

    def _copy(self, running: _Running, end: int) -> bool:
        """Move what a pipe holds into the log; False when it holds nothing now, or ended."""
        try:
            data = os.read(end, 65536)
        except BlockingIOError:
            return False
        running.log.write(running.pipes[end], data)
        if not data:
            self._forget(end)
            os.close(end)
            del running.pipes[end]
            if not running.pipes:
                running.log.close()
        return bool(data)

    def _drain(self, running: _Running) -> None:
        """Everything a container said is in its log before its end is told."""
        for end in list(running.pipes):
            while self._copy(running, end):
                pass

    def _exec(self, connection: _Connection, request: Request) -> int:
        running = self._running.get(request["name"])
        if running is None or running.state["finished"] is not None:
            raise ValueError(f"container {request['name']} does not run")
        if len(connection.descriptors) != 3:
            raise ValueError("exec needs three file descriptors")
        stdin, stdout, stderr = connection.descriptors
        connection.exec_pid = spawn.join(
            (running.state["pid"], running.container["privileged"]),
            self._users,
            request["process"],
            (stdin, stdout, stderr),
            request.get("terminal", False),
        )
        return connection.exec_pid

    def _signal(self, name: str, number: int) -> bool:
        running = self._running.get(name)
        if running is None or running.state["finished"] is not None:
            return False
        os.kill(running.state["pid"], number)
        return True

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        ended = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended |= self._ended(pid, status)
        if ended:
            self._tell()

    def _ended(self, pid: int, status: int) -> bool:
        code = os.waitstatus_to_exitcode(status)
        exit_code = 128 - code if code < 0 else code
        for running in self._running.values():
            if running.state["pid"] == pid and running.state["finished"] is None:
                if not running.container["privileged"]:
                    family.kill_in_mount_namespace(running.namespace)
                self._drain(running)
                running.state["finished"] = time.time()
                running.state["exit_code"] = exit_code
                running.state["signal"] = -code if code < 0 else None
                return True
        for connection in list(self._connections.values()):
            if connection.exec_pid == pid:
                connection.exec_pid = None
                self._send(connection, {"ok": True, "exit_code": exit_code})
        return False

    def _tell(self) -> None:
        for connection in list(self._connections.values()):
            if connection.watching:
                self._send(connection, self._state())

    def _stop(self, connection: _Connection) -> NoReturn:
        """Kill everything of the pod, save what was logged, answer, end."""
        if self._sandbox["host_pids"]:
            family.kill_descendants(os.getpid())
        else:
            family.kill_everything()
        for running in self._running.values():
            self._drain(running)
            running.log.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._sandbox["socket"])
        self._send(connection, {"ok": True})
        os._exit(0)
