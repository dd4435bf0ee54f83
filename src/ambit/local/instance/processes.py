"""What runs in an instance, read from /proc on the host: every process below the supervisor."""

import os
from pathlib import Path

import msgspec

from ambit.local.instance.record import InstanceRecord


class Process(msgspec.Struct, frozen=True):
    """`part` is what it does in the mesh. Sizes in KiB: resident, proportional, and anonymous memory."""

    part: str
    pid: int
    rss: int
    pss: int
    anonymous: int
    command: str


def instance_processes(record: InstanceRecord) -> tuple[Process, ...]:
    """Every process of a running instance, supervisor first. Ones that end meanwhile are left out."""
    children = _children_by_parent()
    found: list[Process] = []
    waiting = [record.supervisor.pid]
    while waiting:
        pid = waiting.pop(0)
        waiting += sorted(children.get(pid, ()))
        try:
            found.append(_read(pid, is_supervisor=pid == record.supervisor.pid))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return tuple(found)


def _children_by_parent() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = Path("/proc", name, "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    return children


def _read(pid: int, *, is_supervisor: bool) -> Process:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, _, value = line.partition(":")
        sizes[key] = int(value.split()[0])
    part = "supervisor" if is_supervisor else part_of(words)
    return Process(part, pid, sizes["Rss"], sizes["Pss"], sizes["Anonymous"], " ".join(words)[:200])


def part_of(words: list[str]) -> str:
    """The part of the mesh a command line belongs to; `application` for everything else."""
    program = words[0] if words else ""
    arguments = words[words.index("ambit") + 1 :] if "ambit" in words else []
    match arguments[:2]:
        case ["local", "run"]:
            return "cluster"
        case ["control", "run"]:
            return "control plane"
        case ["node", "run"]:
            return "node agent"
        case _:
            pass
    if os.path.basename(program) == "envoy":
        return "envoy"
    if any("shim" in word for word in words[1:6]):
        return "shim"
    return "application"
