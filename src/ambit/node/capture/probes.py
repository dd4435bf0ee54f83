"""The kubelet's probes under STRICT mutual TLS: the host's nftables table that lets pods tell them from other traffic.

A probe comes from the node's own address, like anything else that a process of the host (or a pod with hostNetwork)
sends. So on the host, what root opens straight to a port that some probe of the captured pod names gets a source that
nothing else can have (istio-cni's: 169.254.7.127, fd16:…), and a pod lets only that past the proxy
(`ambit.node.capture.ruleset`). Whatever else comes from the host is subject to policy as ever: other users, other
ports, what went through a Service. A packet that arrives from anywhere with that source is forged and dropped.
The table is ours alone: replaced whole, with its content's digest in the comment, put back when somebody took it away,
and gone with the last captured pod.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping

from ambit.core.address import Address
from ambit.core.errors import AmbitError
from ambit.core.names import PROBE_ADDRESS_V4, PROBE_ADDRESS_V6
from ambit.node.capture import table as text
from ambit.node.netns import nft

_log = logging.getLogger("ambit.probes")
TABLE = "ambit-host"
VERSION = 1
"""Changes whenever the rules do."""
_LOOK_SECONDS = 5.0
"""Between two looks whether the table is still there."""

Target = tuple[Address, int]


def table(targets: Collection[Target]) -> str:
    """The table, as text that nft takes."""
    four = _elements(target for target in targets if target[0].version == 4)
    six = _elements(target for target in targets if target[0].version == 6)
    return _text(_comment(targets), four, six)


def terse(targets: Collection[Target]) -> str:
    """The table as `nft -t` prints it, without the sets' elements; those are in the comment's digest."""
    return _text(_comment(targets), "", "")


def replacing(targets: Collection[Target]) -> str:
    """A script that puts the table in the place of whatever there is, in one transaction."""
    return removing() + table(targets)


def removing() -> str:
    """A script that removes the table, whether it is there or not."""
    return text.removing(TABLE)


class HostProbes:
    """The table in the host's network namespace at `netns`."""

    def __init__(self, netns: str) -> None:
        self._netns = netns
        self._targets: dict[str, frozenset[Target]] = {}
        self._lock = asyncio.Lock()
        self._wanted = self._written = 0
        self._changed = asyncio.Event()

    def note(self, uid: str, addresses: Iterable[Address], ports: Collection[int]) -> None:
        """As `admit`, but written with the next change, or by `run`."""
        self._targets[uid] = frozenset((address, port) for address in addresses for port in ports)
        self._wanted += 1

    async def admit(self, uid: str, addresses: Iterable[Address], ports: Collection[int]) -> None:
        """Probes of these ports pass, when this returns. Raises AmbitError."""
        self.note(uid, addresses, ports)
        await self._write(self._wanted)

    def dismiss(self, uid: str) -> None:
        """A pod has ended or left the mesh: written by `run`."""
        if self._targets.pop(uid, None) is not None:
            self._wanted += 1
            self._changed.set()

    async def remove(self) -> None:
        """Takes the table away, for good. Raises AmbitError."""
        async with self._lock:
            self._targets.clear()
            await nft.load(self._netns, removing())

    async def run(self) -> None:
        """Keeps the table as it should be until cancelled."""
        while True:
            try:
                await self._look()
            except AmbitError as problem:
                _log.error("probes may fail: %s", problem.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._changed.wait()
            self._changed.clear()

    async def _look(self) -> None:
        listed = await nft.listing(self._netns, TABLE, "-t")
        wanted = terse(self._all()) if self._targets else ""
        if listed == wanted:
            return
        if self._written == self._wanted:
            _log.warning("the table %s of the host was not as written: repaired", TABLE)
        self._wanted += 1
        await self._write(self._wanted)

    async def _write(self, version: int) -> None:
        async with self._lock:
            if self._written >= version:
                return
            upto = self._wanted
            await nft.load(self._netns, replacing(self._all()) if self._targets else removing())
            self._written = upto

    def _all(self) -> frozenset[Target]:
        return frozenset().union(*self._targets.values())


def _comment(targets: Collection[Target]) -> str:
    digest = hashlib.blake2b(_elements(targets).encode(), digest_size=8)
    return f"ambit probes {VERSION} {digest.hexdigest()}"


def _elements(targets: Iterable[Target]) -> str:
    return ", ".join(sorted(f"{address} . {port}" for address, port in targets))


_SETS: Mapping[str, str] = {"probes_v4": "ipv4_addr", "probes_v6": "ipv6_addr"}


def _text(comment: str, four: str, six: str) -> str:
    sets = [
        f"\tset {name} {{\n\t\ttype {kind} . inet_service\n{_line(elements)}\t}}\n"
        for (name, kind), elements in zip(_SETS.items(), (four, six), strict=True)
    ]
    refuse = text.chain(
        "refuse_forged",
        "filter hook prerouting priority raw",
        [f"ip saddr {PROBE_ADDRESS_V4} drop", f"ip6 saddr {PROBE_ADDRESS_V6} drop"],
    )
    # Before kube-proxy's and the CNI's masquerading: the first that translates a source decides.
    name = text.chain(
        "name_probes",
        "nat hook postrouting priority srcnat - 10",
        [
            "ct status dnat return",
            f"meta skuid 0 ip daddr . tcp dport @probes_v4 snat ip to {PROBE_ADDRESS_V4}",
            f"meta skuid 0 ip6 daddr . tcp dport @probes_v6 snat ip6 to {PROBE_ADDRESS_V6}",
        ],
    )
    return text.table(TABLE, comment, [*sets, refuse, name])


def _line(elements: str) -> str:
    return f"\t\telements = {{ {elements} }}\n" if elements else ""
