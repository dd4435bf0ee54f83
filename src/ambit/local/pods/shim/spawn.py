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
    from ambit.local.pods.shim.users import UserNamespace


def start(
    sandbox: Sandbox, users: UserNamespace | None, container: Container, stdout: int, stderr: int
) -> int:
    """The pid of a new container's first process. Raises OSError with what failed.

    `users` is the pod's user namespace; None where it has none, as where an ordinary user started the instance.
    """

    def prepare() -> None:
        linux.unshare(linux.CLONE_NEWNS)
        if container["privileged"]:
            root.enter_shared(container["mounts"])
        else:
            root.enter(sandbox, container["mounts"])

    with open(os.devnull, "rb") as nothing:
        streams = (nothing.fileno(), stdout, stderr)
        restrict = _restriction(container["process"], container["privileged"], users)
        return _fork(prepare, restrict, container["process"], streams, terminal=False)


def join(
    container: tuple[int, bool],
    users: UserNamespace | None,
    process: Process,
    streams: tuple[int, int, int],
    terminal: bool,
) -> int:
    """The pid of one more program in a container, named by its first process's pid and whether it is privileged.

    Raises OSError.
    """
    pid, privileged = container
    target = os.pidfd_open(pid)

    def prepare() -> None:
        kernel.join_namespace(target, linux.CLONE_NEWNS)

    try:
        return _fork(prepare, _restriction(process, privileged, users), process, streams, terminal)
    finally:
        os.close(target)


def _fork(
    prepare: Callable[[], None],
    restrict: Callable[[], None],
    process: Process,
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
            stage = "user"
            restrict()
            stage = "working directory"
            os.chdir(process["directory"] or "/")
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


def _restriction(process: Process, privileged: bool, users: UserNamespace | None) -> Callable[[], None]:
    """What takes a program's rights away, called in the child once its root is assembled."""
    if privileged:
        return lambda: _become(process["user"], process["group"], process["groups"])

    def restrict() -> None:
        user, group, groups = process["user"], process["group"], process["groups"]
        if users is not None:
            user, group = user or 0, group or 0
            users.enter(user, group, groups)
        kernel.keep_capabilities({kernel.CAP_NET_BIND_SERVICE})
        _become(user, group, groups)
        kernel.forbid_new_privileges()

    return restrict


def _become(user: int | None, group: int | None, groups: list[int]) -> None:
    if group is not None or groups:
        os.setgroups(groups)
    if group is not None:
        os.setresgid(group, group, group)
    if user is not None:
        os.setresuid(user, user, user)


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
