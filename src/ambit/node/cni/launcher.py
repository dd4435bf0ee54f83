"""A static ELF program that only executes another one with fixed leading arguments.

The container runtime executes one file by name. The interpreter beside it must be started through its own dynamic
loader with options, and a host need not have a shell (Talos, Bottlerocket), so the file is these 30 to 60 bytes of
machine code: `execve(arguments[0], arguments, environment)`, and exit status 127 when that fails. It takes no argument
and reads nothing. Sources: System V ABI and its AMD64 and AArch64 supplements (initial stack; program headers),
Linux's system call numbers.
"""

import struct
from collections.abc import Callable

from ambit.core.errors import EnvironmentProblem

_BASE = 0x400000
_HEADER, _PROGRAM = 64, 56
_ALIGNMENT = 0x10000
"""The greatest page size of a supported kernel (AArch64)."""
_EXECUTABLE, _LOAD, _STACK = 2, 1, 0x6474E551
_READ_EXECUTE, _READ_WRITE = 5, 6


def launcher(arguments: list[str], machine: str) -> bytes:
    """The program for `machine` (as `uname -m`). Raises EnvironmentProblem for one that is not supported."""
    known = {"x86_64": (62, _x86_64), "aarch64": (183, _aarch64)}
    if machine not in known:
        raise EnvironmentProblem(f"there is no CNI plugin for {machine}", "nodes are x86_64 or aarch64")
    number, code = known[machine]
    start = _HEADER + 2 * _PROGRAM
    table = start + len(code(0, 0))
    table += -table % 8
    position = table + 8 * (len(arguments) + 1)
    pointers, strings = [], b""
    for argument in arguments:
        pointers.append(_BASE + position + len(strings))
        strings += argument.encode() + b"\0"
    program = code(pointers[0], _BASE + table)
    body = program.ljust(table - start, b"\0") + struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0) + strings
    size = start + len(body)
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = struct.pack(
        "<HHIQQQIHHHHHH", _EXECUTABLE, number, 1, _BASE + start, _HEADER, 0, 0, _HEADER, _PROGRAM, 2, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", _LOAD, _READ_EXECUTE, 0, _BASE, _BASE, size, size, _ALIGNMENT)
    stack = struct.pack("<IIQQQQQQ", _STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16)
    return identity + header + load + stack + body


def _x86_64(path: int, arguments: int) -> bytes:
    return b"".join(
        (
            bytes.fromhex("488b3c24"),  # mov rdi, [rsp]: how many arguments there are
            bytes.fromhex(
                "488d54fc10"
            ),  # lea rdx, [rsp + 8*rdi + 16]: the environment, after them and a null
            b"\xbf" + struct.pack("<I", path),  # mov edi, path
            b"\xbe" + struct.pack("<I", arguments),  # mov esi, arguments
            bytes.fromhex("b83b0000000f05"),  # mov eax, execve; syscall
            bytes.fromhex("bf7f000000"),  # mov edi, 127
            bytes.fromhex("b83c0000000f05"),  # mov eax, exit; syscall
        )
    )


def _aarch64(path: int, arguments: int) -> bytes:
    move: Callable[[int, int], int] = lambda register, value: 0xD2800000 | value << 5 | register  # noqa: E731
    move_high: Callable[[int, int], int] = lambda register, value: 0xF2A00000 | value << 5 | register  # noqa: E731
    words = (
        0xF94003E3,  # ldr x3, [sp]: how many arguments there are
        0x8B236FE2,  # add x2, sp, x3, lsl #3
        0x91004042,  # add x2, x2, #16: the environment, after them and a null
        move(0, path & 0xFFFF),
        move_high(0, path >> 16),
        move(1, arguments & 0xFFFF),
        move_high(1, arguments >> 16),
        move(8, 221),  # execve
        0xD4000001,  # svc #0
        move(0, 127),
        move(8, 93),  # exit
        0xD4000001,
    )
    return struct.pack(f"<{len(words)}I", *words)
