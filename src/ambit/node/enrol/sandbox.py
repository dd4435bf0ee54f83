"""A pod's sandbox as the pod runner names it: checked against the kernel, kept over a restart of the agent.

An identity is bound to a namespace only when three things agree: the API's pod uid, the namespace at the
given path, and the pod's addresses in it. The namespace's inode is remembered: a path that leads elsewhere
later is another sandbox.
"""

import ipaddress
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ambit.core.address import Address
from ambit.core.errors import AmbitError, EnvironmentProblem
from ambit.daemon import process_id
from ambit.node.capture.ruleset import Capture
from ambit.node.netns import identity as netns_identity


class Sandbox(msgspec.Struct, frozen=True):
    """What the pod runner says of a pod, and the namespace found at the path (device and inode)."""

    namespace: str
    name: str
    uid: str
    sandbox: str
    netns: str
    ips: tuple[str, ...]
    account: str = ""
    device: int = 0
    inode: int = 0
    boot: str = ""
    """Of the machine: inodes of namespaces are given away again after the next one. Empty in records that are older."""
    dns: bool = True
    dns_wish: str | None = None
    """Whether its DNS questions are captured, and what its annotation said of that; None in records that are older."""
    dns_policy: str = "ClusterFirst"
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    """The pod's `dnsPolicy` and `dnsConfig`."""
    inbound: bool = True
    interfaces: tuple[str, ...] = ()
    """What enters over these counts as sent by the pod; for its whole life, as its listeners depend on it."""
    probe_ports: tuple[int, ...] = ()
    open_before: tuple[int, ...] = ()
    """Cookies of the sockets that were there when its traffic was redirected (`ambit.node.connections`)."""
    generations: tuple[int, ...] = (0,)
    """Of its destinations' names in Envoy (`ambit.plan.values.LocalPod`)."""
    leaving: float = 0.0
    """Since when (seconds since 1970) it leaves the mesh while it runs; 0 when it does not."""
    transparent: bool = False
    """Whether it is captured without NAT: for its whole life, because what is open cannot change over."""
    spared: bool = False
    """Whether connections may be open that it opened while it was leaving."""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(ipaddress.ip_address(text) for text in self.ips)

    @property
    def capture(self) -> Capture:
        """How its traffic is captured."""
        return Capture(
            dns=self.dns,
            inbound=self.inbound,
            transparent=self.transparent,
            addresses=self.addresses,
            interfaces=self.interfaces,
            spared=self.spared,
        )

    def captures_dns(self, default: bool) -> bool:
        """Whether its DNS questions are to be captured, on a node where they are by `default`."""
        if self.dns_wish is None:
            return self.dns
        return {"true": True, "false": False}.get(self.dns_wish, default)

    def is_also(self, other: "Sandbox") -> bool:
        """Whether both are one sandbox: by the runtime's name for it, or by the name of its pinned namespace (which
        is all that is known of a pod that nobody announced)."""
        return self.sandbox == other.sandbox or Path(self.netns).name == Path(other.netns).name != ""

    def same_namespace(self) -> bool:
        """Whether the path still leads to the namespace that was checked."""
        if self.boot not in ("", process_id.boot_id()):
            return False
        try:
            found = netns_identity.identify(self.netns)
        except EnvironmentProblem:
            return False
        return (found.device, found.inode) == (self.device, self.inode)


def checked(sandbox: Sandbox) -> Sandbox:
    """The sandbox with its namespace's identity. Blocks briefly. Raises AmbitError when path and addresses do
    not agree."""
    if not sandbox.ips:
        raise AmbitError(f"pod {sandbox.namespace}/{sandbox.name} has no address yet")
    found = netns_identity.identify(sandbox.netns)
    present = netns_identity.addresses(sandbox.netns)
    missing = [str(address) for address in sandbox.addresses if address not in present]
    if missing:
        raise AmbitError(
            f"{sandbox.netns} is not the namespace of pod {sandbox.namespace}/{sandbox.name}: "
            f"it lacks the address {', '.join(missing)}"
        )
    return msgspec.structs.replace(sandbox, device=found.device, inode=found.inode, boot=process_id.boot_id())


def find(
    sandboxes: Path, namespaces: Path, uid: str, addresses: tuple[Address, ...]
) -> tuple[str, str] | None:
    """Sandbox id and namespace path of a running pod that nobody announced. Blocks.

    First the laptop pod runner's own records (`<sandboxes>/<id>/pod.json`), then the one pinned namespace in which
    all of the pod's addresses live (on Kubernetes: `ambit.node.netns.kubelet`). None when there is none, or more
    than one.
    """
    for record in sandboxes.glob("*/pod.json"):
        if _uid(record) == uid and (namespaces / record.parent.name).exists():
            return record.parent.name, str(namespaces / record.parent.name)
    found = list(_with_addresses(namespaces, addresses)) if addresses else []
    return found[0] if len(found) == 1 else None


def _uid(record: Path) -> str:
    try:
        return str(json.loads(record.read_bytes()).get("uid", ""))
    except (OSError, ValueError):
        return ""


def _with_addresses(
    namespaces: Path,
    wanted: tuple[Address, ...],
    addresses: Callable[[str], frozenset[Address]] = netns_identity.addresses,
) -> Iterator[tuple[str, str]]:
    for path in sorted(namespaces.iterdir()) if namespaces.is_dir() else ():
        try:
            netns_identity.identify(str(path))
            present = addresses(str(path))
        except (AmbitError, OSError):
            continue
        if set(wanted) <= present:
            yield path.name, str(path)
