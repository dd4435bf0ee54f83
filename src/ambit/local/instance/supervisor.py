"""PID 1 of an instance: makes its private view of the machine, starts the cluster process, and restarts it.

Runs on the standard library alone, as `python -S -m ambit.local.instance.supervisor CONFIG`, so that it stays small
and nothing in the virtual environment can break it. It lives in the host's network namespace; when it dies the
kernel kills every process of the instance, and mounts and network namespaces vanish with their last user.

    unshare(user, mount, pid, ipc) ─> fork ─> [PID 1: this] ─ fork ─> cluster process (joins the fabric's network)
                                                            └ fork ─> host processes, as the cluster process asks
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from ambit.local import kernel

RUN = "/run"
DIRECTORIES = ("/run/ambit/netns", "/run/ambit/sandboxes", "/run/ambit/nodes", "/run/lock")
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
QUIET = 10.0
"""A child that lived this long starts again with the first pause (seconds)."""


class Child:
    """One supervised program: restarted with growing pauses until the instance ends."""

    def __init__(self, name: str, argv: list[str], environment: dict[str, str], log: str) -> None:
        self.name = name
        self.argv = argv
        self.environment = environment
        self.log = log
        self.pid = 0
        self.started = 0.0
        self.pause = FIRST_PAUSE
        self.due = 0.0
        self.channel: socket.socket | None = None

    def start(self, inherited: dict[str, int]) -> None:
        """`inherited` maps environment variable to a descriptor the child keeps under it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        kept = {**inherited, "AMBIT_SUPERVISOR_FD": theirs.fileno()}
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._become(kept)
            except BaseException as problem:  # noqa: BLE001 - the child must not return into the supervisor
                say(f"cannot start {self.name}: {problem}")
            os._exit(127)
        theirs.close()
        if self.channel is not None:
            self.channel.close()
        self.channel = ours

    def _become(self, kept: dict[str, int]) -> None:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.setsid()
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        environment = dict(self.environment)
        for variable, descriptor in kept.items():
            os.set_inheritable(descriptor, True)
            environment[variable] = str(descriptor)
        os.execvpe(self.argv[0], self.argv, environment)

    def ended(self, status: int) -> None:
        lived = time.monotonic() - self.started
        self.pause = FIRST_PAUSE if lived > QUIET else min(self.pause * 2, LONGEST_PAUSE)
        self.due = time.monotonic() + (0 if lived > QUIET else self.pause)
        self.pid = 0
        say(
            f"{self.name} ended after {lived:.1f} s with {os.waitstatus_to_exitcode(status)}; starting it again"
        )


def say(text: str) -> None:
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} supervisor: {text}\n"
    with contextlib.suppress(OSError):  # the log's disk may be full, which must not end the instance
        os.write(2, line.encode())


def make_private_view() -> None:
    """Our own /proc for the new PID namespace, an empty /run whose later mounts reach privileged pods."""
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("tmpfs", RUN, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755,size=64m")
    # Envoy leaves its shared memory behind when it is killed: it must vanish with the instance.
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777,size=64m")  # noqa: S108
    kernel.mount("none", RUN, flags=kernel.MS_SHARED)
    for directory in DIRECTORIES:
        os.makedirs(directory, 0o700)


class Supervisor:
    """The loop: reap, restart what is due, obey the cluster process and SIGTERM."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.inherited = {"AMBIT_API_FD": int(config["api_fd"])}
        self.logs = str(config["logs"])
        self.environment = {str(key): str(value) for key, value in config["environment"].items()}
        cluster = Child(
            "cluster", config["cluster"], self.environment, os.path.join(self.logs, "cluster.log")
        )
        self.cluster = cluster
        self.children: dict[str, Child] = {cluster.name: cluster}
        self.stopping = False

    def run(self) -> None:
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        while not self.stopping:
            self._reap()
            self._start_due()
            channel = self.cluster.channel
            watched = [wake] if channel is None else [wake, channel.fileno()]
            ready, _, _ = select.select(watched, [], [], self._next_due())
            if wake in ready:
                os.read(wake, 4096)
            if channel is not None and channel.fileno() in ready:
                self._obey(channel)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self.children.values():
                if child.pid == pid:
                    child.ended(status)

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self.children.values():
            if child.pid == 0 and child.due <= now:
                child.start(self.inherited if child is self.cluster else {})

    def _next_due(self) -> float | None:
        waiting = [child.due for child in self.children.values() if child.pid == 0]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _obey(self, channel: socket.socket) -> None:
        """One request a datagram-sized line: `{"run": NAME, "argv": [...]}` starts a program in the host's network."""
        try:
            received = channel.recv(65536)
        except BlockingIOError:
            return
        if not received:
            channel.close()
            self.cluster.channel = None
            return
        for line in received.splitlines():
            request = json.loads(line)
            name = str(request["run"])
            if name not in self.children:
                log = os.path.join(self.logs, f"{name}.log")
                self.children[name] = Child(name, request["argv"], self.environment, log)


def main() -> None:
    config = json.loads(sys.argv[1])
    allowed = int(config["allowed_fd"])
    if not os.read(allowed, 1):
        say("the command that started this instance went away before it was written down")
        return
    os.close(allowed)
    make_private_view()
    Supervisor(config).run()
    say("stopping: every process of the instance ends now")


if __name__ == "__main__":
    main()
