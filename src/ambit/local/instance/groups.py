"""Runs a program for which setgroups(2) succeeds without doing anything: `python -m … PROGRAM ARGUMENTS`.

An ordinary user's user namespace may not change supplementary groups (user_namespaces(7)), and tcpdump, being root
there, insists on it before it captures. Nothing is gained by the pretence: the groups stay what they were.
"""

import ctypes
import os
import platform
import struct
import sys

from ambit.local import kernel

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO_0 = 0x00050000
BPF_LD_W_ABS, BPF_JMP_JEQ_K, BPF_RET_K = 0x20, 0x15, 0x06
OFFSET_OF_NUMBER, OFFSET_OF_ARCHITECTURE = 0, 4
SETGROUPS = {"x86_64": (0xC000003E, 116), "aarch64": (0xC00000B7, 159)}
"""Machine to AUDIT_ARCH_* (linux/audit.h) and the number of setgroups."""


class _Program(ctypes.Structure):
    """`struct sock_fprog` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def program(architecture: int, number: int) -> bytes:
    """Seccomp filter: success without effect for one system call of one architecture, everything else as ever."""
    instructions = (
        (BPF_LD_W_ABS, 0, 0, OFFSET_OF_ARCHITECTURE),
        (BPF_JMP_JEQ_K, 0, 3, architecture),
        (BPF_LD_W_ABS, 0, 0, OFFSET_OF_NUMBER),
        (BPF_JMP_JEQ_K, 0, 1, number),
        (BPF_RET_K, 0, 0, SECCOMP_RET_ERRNO_0),
        (BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW),
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def ignore_setgroups() -> None:
    """For this process and what it starts. Needs CAP_SYS_ADMIN in the user namespace; raises OSError."""
    known = SETGROUPS.get(platform.machine())
    if known is None:
        return
    code = program(*known)
    loaded = _Program(len(code) // 8, code)
    kernel.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(loaded))


def main() -> None:
    ignore_setgroups()
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
