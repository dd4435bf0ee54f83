"""The user namespace of a pod: root in the pod is nobody on the host.

Source: user_namespaces(7). Files that the pod is to own belong to `base` on the host.
"""

from __future__ import annotations

import contextlib
import os
import stat

from ambit.local import kernel as linux
from ambit.local.pods.shim import kernel

IDS = 65536
"""User and group ids that a pod has, from 0 on."""


class UserNamespace:
    """A user namespace in which id 0 is the host's `base`. Raises OSError when the kernel refuses it."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._descriptor = _make(base)

    def enter(self, user: int, group: int, groups: list[int]) -> None:
        """This process gets every capability there and none outside; it still has to become `user`.

        Its standard streams change their owner: a program may open them again (`/dev/stdout`) only then.
        """
        for each in (user, group, *groups):
            if each >= IDS:
                raise OSError(f"{each} is above {IDS - 1}, the last id of a pod")
        for descriptor in (0, 1, 2):
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode) or os.isatty(descriptor):
                with contextlib.suppress(OSError):
                    os.fchown(descriptor, self._base + user, self._base + group)
        kernel.join_namespace(self._descriptor, linux.CLONE_NEWUSER)


def _make(base: int) -> int:
    """A descriptor of the namespace. A child makes it and waits: only a process outside may map ids not its own."""
    report, reported = os.pipe()
    held, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(hold)
            linux.unshare(linux.CLONE_NEWUSER)
            os.write(reported, b"made")
            os.read(held, 1)
        except OSError as problem:
            os.write(reported, str(problem).encode())
        finally:
            os._exit(0)
    try:
        os.close(reported)
        os.close(held)
        answer = os.read(report, 1000).decode()
        if answer != "made":
            raise OSError(f"no user namespace for the pod (see sysctl user.max_user_namespaces): {answer}")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write(f"0 {base} {IDS}")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(report)
        os.close(hold)
        os.waitpid(pid, 0)
