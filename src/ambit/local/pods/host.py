"""What every pod's worker shares: the API, the network, the files, and what is known of namespaces, services
and images.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from ambit.kube.client import Client
from ambit.local.fabric.interface import Fabric
from ambit.local.layout import SANDBOXES, NodeAddresses, StateDirectory
from ambit.local.pods.environment import ServiceLink
from ambit.local.pods.events import EventRecorder
from ambit.local.pods.images import ImageEntry
from ambit.local.pods.shim.users import IDS

_TABLES = ("uid_map", "gid_map")
_FIRST = 0x70000000
"""Above what systemd-nspawn and useradd give away; below 2**31, which `ping_group_range` ends with."""
_RANGES = 0xFFF


class Host(msgspec.Struct, frozen=True):
    """`hidden` and `readable` are those of `sandbox.private_view`."""

    client: Client
    fabric: Fabric
    state: StateDirectory
    nodes: Mapping[str, NodeAddresses]
    events: EventRecorder
    hidden: list[str]
    readable: list[str]
    namespace_labels: Callable[[str], Mapping[str, str]]
    services: Callable[[], tuple[ServiceLink, ...]]
    images: Callable[[], tuple[ImageEntry, ...]]
    sandboxes: Path = SANDBOXES

    def memory(self, sandbox: str) -> Path:
        """The sandbox's directory on the instance's tmpfs."""
        return self.sandboxes / sandbox

    def disk(self, uid: str) -> Path:
        """Where a pod's emptyDir volumes are."""
        return self.state.root / "pods" / uid


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
