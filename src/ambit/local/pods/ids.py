"""User and group ids that the host has for pods."""

import hashlib
import os
from pathlib import Path

from ambit.local.pods.shim.users import IDS

_TABLES = ("uid_map", "gid_map")
_FIRST = 0x70000000
"""Above what systemd-nspawn and useradd give away; below 2**31, which `ping_group_range` ends with."""
_RANGES = 0xFFF


def maps_users() -> bool:
    """Whether other users than root exist here: not in an unprivileged user namespace."""
    return os.geteuid() == 0 and all(_maps(table, 0, IDS) for table in _TABLES)


def user_base(uid: str) -> int:
    """The host's id of root in the pod with this uid; 0 where the host has no ids to give to pods.

    Pods have a range each, as with a kubelet's `hostUsers: false`. Two pods may share one, since nothing else
    than the rights of nobody follows from it.
    """
    number = int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=4).digest(), "big")
    base = _FIRST + number % _RANGES * IDS
    possible = os.geteuid() == 0 and all(_maps(table, base, IDS) for table in _TABLES)
    return base if possible else 0


def _maps(table: str, first: int, count: int) -> bool:
    for line in Path("/proc/self", table).read_text().splitlines():
        inside, _, length = map(int, line.split())
        if inside <= first and first + count <= inside + length:
            return True
    return False
