"""The Linux calls a pod needs beyond those of `ambit.local.kernel`. Raises OSError with the kernel's errno.

Sources: mount(2), mount_setattr(2), unshare(2), setns(2), pivot_root(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import os

from ambit.local.kernel import MS_BIND, MS_REC, mount

TYPE_CHECKING = False  # `typing` costs each pod a megabyte
if TYPE_CHECKING:
    from collections.abc import Iterable

CAP_NET_BIND_SERVICE = 10

_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NOSUID = 0x2
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155}.get(os.uname().machine, 41)  # 41: the generic table (arm64, riscv64)
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def _checked(result: int, subject: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject or None)
    return result


def join_namespace(descriptor: int, kind: int) -> None:
    """Join the namespace behind a namespace file or a pidfd."""
    _checked(_libc.setns(descriptor, kind), "setns")


def bind(source: str, target: str) -> None:
    """Bind `source` with everything mounted below it. Recursive, since locked mounts allow nothing else."""
    mount(source, target, "", MS_BIND | MS_REC)


def make_read_only(target: str, below: bool = True) -> None:
    """The mount at `target` (and every mount below it) becomes read-only, without set-user-id programs."""
    attributes = _MountAttributes(set=_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID)
    _checked(
        _libc.syscall(
            ctypes.c_long(_SYS_MOUNT_SETATTR),
            ctypes.c_int(_AT_FDCWD),
            os.fsencode(target),
            ctypes.c_uint(_AT_RECURSIVE if below else 0),
            ctypes.byref(attributes),
            ctypes.c_size_t(ctypes.sizeof(attributes)),
        ),
        f"mount_setattr {target}",
    )


def pivot_root(new_root: str, put_old: str) -> None:
    _checked(
        _libc.syscall(ctypes.c_long(_SYS_PIVOT_ROOT), os.fsencode(new_root), os.fsencode(put_old)),
        "pivot_root",
    )


def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def keep_capabilities(kept: Iterable[int]) -> None:
    """Nothing but `kept` can be held by this process and its children after the next exec."""
    wanted = set(kept)
    for capability in range(_last_capability() + 1):
        if capability not in wanted:
            _checked(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), f"drop capability {capability}")
    _checked(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear ambient capabilities")


def forbid_new_privileges() -> None:
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def set_hostname(name: str) -> None:
    encoded = os.fsencode(name)
    _checked(_libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname")
