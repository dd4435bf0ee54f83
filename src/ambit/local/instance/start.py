"""Starting an instance: state directory, API socket, namespaces, and PID 1 in them."""

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import ambit
from ambit.core.errors import AmbitError, BadInput, EnvironmentProblem
from ambit.local import kernel
from ambit.local.config import ClusterConfig, write_config
from ambit.local.instance.end import end_supervisors
from ambit.local.instance.forking import held_back, let_through
from ambit.local.instance.preflight import (
    check_envoy,
    check_namespaces,
    check_programs,
    check_readable,
    check_space,
    programs_of_pods,
    search_path,
)
from ambit.local.instance.record import InstanceRecord, ProcessId, boot_id, read_record, write_record
from ambit.local.layout import StateDirectory
from ambit.local.pods.ids import user_base

LONGEST_SOCKET_PATH = 100
"""Unix socket paths end at 107 bytes; the forwarder's sockets lie below the state directory."""


def start_instance(state: StateDirectory, config: ClusterConfig, api_port: int = 0) -> InstanceRecord:
    """Leave a running instance behind; the API server is not yet ready. State of a dead instance is removed first.

    Raises AmbitError when it already runs or the machine cannot carry it; nothing is left behind then.
    """
    check_programs()
    check_namespaces()
    check_envoy()
    if user_base(""):
        check_readable(programs_of_pods())
    _check_path(state)
    with instance_lock(state):
        running = read_record(state)
        if running is not None and running.is_running():
            raise BadInput(
                f"instance {config.name!r} is already running",
                f"type `ambit down --name {config.name}` to stop it",
            )
        end_supervisors(state)
        check_space(state.root)
        try:
            return _start(state, config, api_port)
        except OSError as problem:
            _undo(state)
            raise _explain(problem, state) from problem
        except BaseException:
            _undo(state)
            raise


def _start(state: StateDirectory, config: ClusterConfig, api_port: int) -> InstanceRecord:
    discard_state(state)
    for directory in (state.root, state.logs, state.host, state.root / "nodes"):
        directory.mkdir(mode=0o700, parents=True)
    write_config(state, config)
    allowed, allow = os.pipe2(os.O_CLOEXEC)
    try:
        with _listen(api_port) as listener:
            record = InstanceRecord(
                name=config.name,
                version=ambit.__version__,
                supervisor=_launch(state, config, listener, allowed),
                boot=boot_id(),
                api_port=listener.getsockname()[1],
                nodes=config.nodes,
                rootless=os.geteuid() != 0,
            )
        write_record(state, record)
        os.write(allow, b"go")
    finally:
        os.close(allowed)
        os.close(allow)
    return record


def _undo(state: StateDirectory) -> None:
    end_supervisors(state)
    discard_state(state)


@contextmanager
def instance_lock(state: StateDirectory) -> Iterator[None]:
    """One `up` or `down` of an instance at a time. The lock file lies beside the state directory."""
    path = state.root.parent / f".{state.root.name}.lock"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _locked(path)
    except OSError as problem:
        raise _explain(problem, state) from problem
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _locked(path: Path) -> int:
    """The locked file that `path` names: who waited for a file that its owner removed tries again."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)


def discard_state(state: StateDirectory) -> None:
    """Remove the state directory of an instance that does not run."""
    if state.root.is_symlink() or state.root.is_file():
        raise BadInput(
            f"{state.root} is not a directory", "move it away, or set AMBIT_STATE to another directory"
        )
    try:
        _remove(state.root)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise EnvironmentProblem(
            f"cannot remove the state of a former instance: {problem}", f"remove {state.root} as its owner"
        ) from problem


def _remove(root: Path) -> None:
    """Remove a directory; ones in it that a container closed even for their owner are opened first."""
    try:
        shutil.rmtree(root)
    except PermissionError:
        for place, names, _ in os.walk(root):
            for path in (Path(place, name) for name in names):
                if not path.is_symlink():
                    path.chmod(0o700)
        shutil.rmtree(root)


def _check_path(state: StateDirectory) -> None:
    longest = len(os.fsencode(state.host)) + len("/forward-00000.sock")
    if longest > LONGEST_SOCKET_PATH:
        raise BadInput(
            f"the state directory's path is too long for Unix sockets: {state.root}",
            "set AMBIT_STATE to a shorter path",
        )


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as problem:
        listener.close()
        if problem.errno != errno.EADDRINUSE:
            raise
        raise BadInput(
            f"port {port} on 127.0.0.1 is in use",
            "leave out --api-port and a free one is taken, or stop its owner",
        ) from problem
    listener.listen(128)
    return listener


def _launch(state: StateDirectory, config: ClusterConfig, listener: socket.socket, allowed: int) -> ProcessId:
    """Fork a launcher that makes the namespaces, whose child becomes PID 1. Returns PID 1 as the host sees it.

    PID 1 waits until something can be read from `allowed`, and ends when its other side is closed instead: an
    instance that nobody wrote down never runs. Its program has begun when this returns or is interrupted, so that
    `end_supervisors` knows it by its command line.
    """
    log = os.open(state.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    told, tell = os.pipe()
    program = _supervisor_program(state, config, listener, allowed)
    with held_back():
        launcher = os.fork()
        if launcher == 0:
            os.close(told)
            for descriptor in (listener.fileno(), allowed):
                os.set_inheritable(descriptor, True)
            _be_launcher(program, log, tell)
        os.close(log)
        os.close(tell)
        with os.fdopen(told) as answer:
            text = answer.read()  # until PID 1, the last that holds the other end, has begun its program
        os.waitpid(launcher, 0)
    if not text.isdigit():
        raise EnvironmentProblem(
            f"cannot start the instance: {text or 'the launcher died'}", f"see {state.logs}"
        )
    return ProcessId.of(int(text))


def _be_launcher(program: tuple[str, list[str], dict[str, str]], log: int, tell: int) -> NoReturn:
    try:
        os.setsid()
        let_through()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
        user, group = os.geteuid(), os.getegid()
        if user != 0:
            kernel.unshare(flags | kernel.CLONE_NEWUSER)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        else:
            kernel.unshare(flags)
        supervisor = os.fork()
        if supervisor == 0:
            os.chdir("/")
            os.execve(*program)
        os.write(tell, str(supervisor).encode())
    except BaseException as problem:  # noqa: BLE001 - whatever it is, the parent must hear of it
        os.write(tell, str(problem).encode())
        os._exit(1)
    os._exit(0)


def _supervisor_program(
    state: StateDirectory, config: ClusterConfig, listener: socket.socket, allowed: int
) -> tuple[str, list[str], dict[str, str]]:
    """Path, arguments and environment of PID 1. Only what the instance needs of the environment goes in."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(ambit.__file__)))
    environment = {
        "PATH": search_path(),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
        "AMBIT_STATE": os.fspath(state.root.parent),
        **config.environment,
    }
    settings = {
        "api_fd": listener.fileno(),
        "allowed_fd": allowed,
        "logs": os.fspath(state.logs),
        "environment": environment,
        "cluster": [sys.executable, "-m", "ambit", "local", "run", "--name", config.name],
    }
    argv = [sys.executable, "-S", "-s", "-m", "ambit.local.instance.supervisor", json.dumps(settings)]
    return sys.executable, argv, environment


def _explain(problem: OSError, state: StateDirectory) -> AmbitError:
    if problem.errno == errno.ENOSPC:
        return EnvironmentProblem(
            f"no space left on the disk that holds {state.root}",
            "free some, or set AMBIT_STATE to another disk",
        )
    unwritable = problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
    # What /proc says to a new directory.
    is_ours = bool(problem.filename) and state.root.is_relative_to(os.fspath(problem.filename))
    if unwritable or (problem.errno == errno.ENOENT and is_ours):
        return EnvironmentProblem(
            f"cannot write the state directory: {problem}", "set AMBIT_STATE to a directory of yours"
        )
    return EnvironmentProblem(f"cannot start the instance: {problem}")
