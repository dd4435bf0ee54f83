"""How many processors this process is given: the CPU limit of its cgroup, else the node's.

A quota is rounded up, as ztunnel and Envoy do. Both versions of cgroups (`cpu.max`; `cpu.cfs_quota_us`), as a container
sees them and as the host does: the narrowest limit on the way up counts.
"""

import os
from pathlib import Path

MOST = 8
"""What `auto` gives at most: each worker has its own copy of all clusters, and its own sockets in every pod."""


def processors(root: Path = Path("/"), own: int | None = None) -> int:
    """From 1 to MOST. `own`: how many processors the process may run on, if that is not to be asked."""
    found = len(os.sched_getaffinity(0)) if own is None else own
    for quota in _quotas(root):
        found = min(found, quota)
    return max(1, min(found, MOST))


def _quotas(root: Path) -> list[int]:
    """Whole processors that each cgroup on the way up allows; those without a limit say nothing."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        place = top / path.strip("/")
        for folder in (place, *place.parents[: len(place.parents) - len(top.parents)]):
            quota = _limit(folder) if not controllers else _former_limit(folder)
            if quota is not None:
                found.append(quota)
    return found


def _limit(folder: Path) -> int | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _former_limit(folder: Path) -> int | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota < 0 else -(-quota // int((folder / "cpu.cfs_period_us").read_text()))
    except (OSError, ValueError, ZeroDivisionError):
        return None
