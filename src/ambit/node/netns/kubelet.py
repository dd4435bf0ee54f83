"""Network namespaces of a kubelet's pods, found by pod uid for pods that nobody announced.

A kubelet puts every process of a pod below one cgroup that carries the pod's uid (`.../pod<uid>/<container>`, or
`...-pod<uid with _>.slice/...` with the systemd driver, on cgroup v1 and v2), and containerd and CRI-O pin each pod's
network namespace under /var/run/netns until the sandbox ends. The pin that a process of the pod is in and that has the
pod's addresses is the pod's. So the agent never mounts anything, and nothing is left to unpin. Sources: kubelet
`cm/pod_container_manager_linux.go`, cgroups(7), cgroup_namespaces(7) (paths seen from another cgroup namespace begin
with `/..`, so only the pod's own component counts).
"""

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ambit.core.address import Address
from ambit.core.errors import AmbitError, EnvironmentProblem
from ambit.node.netns import identity
from ambit.node.netns.identity import NamespaceId

RUNTIME_PINS = frozenset({Path("/var/run/netns"), Path("/run/netns")})
"""Where containerd and CRI-O pin namespaces, as they name it."""
_UID = "[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}"
_COMPONENT = re.compile(rf"(?:.*-)?pod({_UID})(?:\.slice)?")


def pod_uid(cgroup: str) -> str | None:
    """The pod that a process with this `/proc/<pid>/cgroup` belongs to; None when it belongs to none, or when its
    hierarchies do not agree."""
    found = set(filter(None, map(_uid_of_line, cgroup.splitlines())))
    return found.pop() if len(found) == 1 else None


def _uid_of_line(line: str) -> str | None:
    for component in line.partition(":")[2].partition(":")[2].split("/"):
        if (match := _COMPONENT.fullmatch(component)) is not None:
            return match[1].replace("_", "-")
    return None


class KubeletPods:
    """`proc` is the host's /proc and `pins` the host's /var/run/netns, both as this process sees them."""

    def __init__(
        self,
        proc: Path,
        pins: Path,
        addresses: Callable[[str], frozenset[Address]] = identity.addresses,
    ) -> None:
        self._proc = proc
        self._pins = pins
        self._addresses = addresses
        self._pids: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        """The host's network namespace."""
        return str(self._proc / "1/ns/net")

    def pinned(self, netns: str) -> str:
        """Where this process sees the namespace that the container runtime names. Raises AmbitError."""
        path = Path(netns)
        if path.parent not in RUNTIME_PINS or path.name in ("", ".."):
            raise AmbitError(
                f"the container runtime keeps the pod's network namespace at {netns!r}",
                "it must be under /var/run/netns, as containerd and CRI-O do it",
            )
        return str(self._pins / path.name)

    def find(self, uid: str, wanted: tuple[Address, ...]) -> tuple[str, str]:
        """Name and path of the pin of the pod's namespace. Blocks. Raises AmbitError with what is missing."""
        with self._lock:
            namespaces = self._namespaces(uid) or self._scanned(uid)
        if not namespaces:
            raise AmbitError(f"no process of the pod with uid {uid} runs on this node")
        pins = [path for path, found in self._pinned() if found in namespaces]
        if not pins:
            raise AmbitError(
                f"the network namespace of the pod with uid {uid} is not under {self._pins}",
                "the container runtime must pin it there, as containerd and CRI-O do it",
            )
        having = [path for path in pins if set(wanted) <= self._present(path)]
        if not wanted or len(having) != 1:
            raise AmbitError(
                f"{len(having)} network namespaces of the pod with uid {uid} have its addresses "
                f"({', '.join(map(str, wanted)) or 'none known'})"
            )
        return having[0].name, str(having[0])

    def _scanned(self, uid: str) -> set[NamespaceId]:
        """One look at all processes answers for all pods of the node."""
        pids: dict[str, list[int]] = {}
        for entry in os.scandir(self._proc):
            if entry.name.isdigit() and (owner := self._owner(int(entry.name))) is not None:
                pids.setdefault(owner, []).append(int(entry.name))
        self._pids = pids
        return self._namespaces(uid)

    def _namespaces(self, uid: str) -> set[NamespaceId]:
        return {
            found
            for pid in self._pids.get(uid, ())
            if (found := self._namespace(pid)) is not None and self._owner(pid) == uid
        }

    def _owner(self, pid: int) -> str | None:
        try:
            return pod_uid((self._proc / str(pid) / "cgroup").read_text())
        except (OSError, ValueError):
            return None

    def _namespace(self, pid: int) -> NamespaceId | None:
        try:
            found = os.stat(self._proc / str(pid) / "ns/net")
        except PermissionError as problem:
            raise EnvironmentProblem(
                "the agent may not see which network namespace a pod's process is in",
                "it needs the capability SYS_PTRACE",
            ) from problem
        except OSError:
            return None
        return NamespaceId(found.st_dev, found.st_ino)

    def _pinned(self) -> Iterator[tuple[Path, NamespaceId]]:
        for path in self._pins.iterdir() if self._pins.is_dir() else ():
            try:
                yield path, identity.identify(str(path))
            except AmbitError:
                continue

    def _present(self, path: Path) -> frozenset[Address]:
        try:
            return self._addresses(str(path))
        except OSError:
            return frozenset()
