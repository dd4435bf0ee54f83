"""Kernel settings of the calling thread's network namespace, by their files below /proc/sys (Linux `ip-sysctl.rst`)."""

import ctypes
import errno
import os

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
"""Numbers of system calls; the same on all architectures."""
_CLOSE_ON_EXEC, _CREATE = 1, 6
_libc = ctypes.CDLL(None, use_errno=True)


def write(name: str, wanted: bytes, only_from: bytes = b"") -> None:
    """The setting `name` (`net/ipv4/tcp_timestamps`) is `wanted`; with `only_from`, if it was that. Raises OSError."""
    try:
        _write_below(os.open("/proc", os.O_PATH | os.O_CLOEXEC), name, wanted, only_from)
    except OSError as problem:
        if problem.errno not in (errno.EROFS, errno.EACCES):
            raise
        # A container's /proc/sys is read-only; a mount of our own, that nobody else sees, is not.
        _write_below(_own_proc(), name, wanted, only_from)


def _write_below(proc: int, name: str, wanted: bytes, only_from: bytes) -> None:
    """Closes `proc`."""
    try:
        file = os.open(f"sys/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        with os.fdopen(file, "rb") as reading:
            found = reading.read().strip()
        if found == wanted or (only_from and found != only_from):
            return
        file = os.open(f"sys/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        with os.fdopen(file, "wb", buffering=0) as writing:
            writing.write(wanted)
    finally:
        os.close(proc)


def _own_proc() -> int:
    context = _call(_FSOPEN, b"proc", _CLOSE_ON_EXEC)
    try:
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        return _call(_FSMOUNT, context, _CLOSE_ON_EXEC, 0)
    finally:
        os.close(context)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
