"""Fork one program into a container: its mounts, its rights, its standard streams.

The child reports a failure before exec through a pipe that exec closes, so the caller learns of it as an
OSError.
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios

from ambit.local import kernel as linux
from ambit.local.pods.shim import kernel, root

TYPE_CHECKING = False  # `typing` costs each pod a megabyte
if TYPE_CHECKING:
    from collections.abc import Callable

    from ambit.local.pods.shim.protocol import Container, Process, Sandbox


def start(sandbox: Sandbox, container: Container, stdout: int, stderr: int) -> int:
    """The pid of a new container's first process. Raises OSError with what failed."""

    def prepare() -> None:
        linux.unshare(linux.CLONE_NEWNS)
        if container["privileged"]:
            root.enter_shared(container["mounts"])
        else:
            root.enter(sandbox["staging"], sandbox["hidden"], sandbox["readable"], container["mounts"])

    with open(os.devnull, "rb") as nothing:
        streams = (nothing.fileno(), stdout, stderr)
        return _fork(prepare, container["process"], container["privileged"], streams, terminal=False)


def join(pid: int, process: Process, privileged: bool, streams: tuple[int, int, int], terminal: bool) -> int:
    """The pid of one more program in the container whose first process is `pid`. Raises OSError."""
    target = os.pidfd_open(pid)

    def prepare() -> None:
        kernel.join_namespace(target, linux.CLONE_NEWNS)

    try:
        return _fork(prepare, process, privileged, streams, terminal)
    finally:
        os.close(target)


def _fork(
    prepare: Callable[[], None],
    process: Process,
    privileged: bool,
    streams: tuple[int, int, int],
    terminal: bool,
) -> int:
    report_read, report_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        stage = "namespaces"
        try:
            os.close(report_read)
            _redirect(streams)
            os.setsid()
            if terminal:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            prepare()
            stage = "working directory"
            os.chdir(process["directory"] or "/")
            stage = "user"
            _restrict(process, privileged)
            stage = "command"
            _reset_signals()
            os.execvpe(process["argv"][0], process["argv"], process["environment"])
        except BaseException as problem:  # noqa: BLE001 - the child must end here, whatever happened
            number = problem.errno if isinstance(problem, OSError) and problem.errno else 0
            os.write(report_write, f"{number} {_explained(stage, process, problem)}".encode())
        finally:
            os._exit(127)
    os.close(report_write)
    with os.fdopen(report_read, "rb") as report:
        message = report.read().decode(errors="replace")
    if message:
        os.waitpid(pid, 0)
        code, _, text = message.partition(" ")
        raise OSError(int(code), text)
    return pid


def _explained(stage: str, process: Process, problem: BaseException) -> str:
    name = process["argv"][0] if process["argv"] else ""
    if stage == "command" and isinstance(problem, FileNotFoundError):
        where = "no such file or directory" if "/" in name else "executable file not found in $PATH"
        return f'exec: "{name}": {where}'
    return f"{stage}: {problem}"


def _redirect(streams: tuple[int, int, int]) -> None:
    """Everything else this program ever opens closes on exec."""
    safe = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3) for descriptor in streams]
    for number, descriptor in enumerate(safe):
        os.dup2(descriptor, number)


def _restrict(process: Process, privileged: bool) -> None:
    if not privileged:
        kernel.keep_capabilities({kernel.CAP_NET_BIND_SERVICE})
    if process["group"] is not None or process["groups"]:
        os.setgroups(process["groups"])
    if process["group"] is not None:
        os.setgid(process["group"])
    if process["user"] is not None:
        os.setuid(process["user"])
    if not privileged:
        kernel.forbid_new_privileges()


def _reset_signals() -> None:
    for number in (
        signal.SIGPIPE,
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGCHLD,
        signal.SIGXFSZ,
    ):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
