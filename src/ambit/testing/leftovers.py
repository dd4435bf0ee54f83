"""What instances may not leave behind: processes, mounts, network namespaces, files.

An instance's processes are those in its PID namespace and those that name its state directory in their command line
or environment. Kernel objects without a name vanish with the last process that uses them.
"""

import os
from pathlib import Path

from ambit.local.instance.record import InstanceRecord


def pid_namespace(record: InstanceRecord) -> int:
    """The number of a running instance's PID namespace. Raises FileNotFoundError when it is gone."""
    return os.stat(f"/proc/{record.supervisor.pid}/ns/pid").st_ino


def leftovers(root: Path, *namespaces: int) -> list[str]:
    """One line for each process in one of these PID namespaces, and for each process or mount that has to do with the
    state directories below `root`. Run by root, it sees everything; by an ordinary user, what is that user's.
    """
    marker = os.fsencode(os.path.realpath(root))
    return sorted([*_processes(marker, namespaces), *_mounts(marker)])


def _processes(marker: bytes, namespaces: tuple[int, ...]) -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes()
            environment = Path(f"/proc/{name}/environ").read_bytes()
            namespace = os.stat(f"/proc/{name}/ns/pid").st_ino
        except OSError:
            continue
        if namespace in namespaces or marker in command or b"AMBIT_STATE=" + marker in environment:
            words = command.replace(bytes(1), b" ").decode(errors="replace")
            found.append(f"process {name}: {words[:200]}")
    return found


def _mounts(marker: bytes) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    return [f"mount {line.decode(errors='replace')}" for line in lines if marker in line]
