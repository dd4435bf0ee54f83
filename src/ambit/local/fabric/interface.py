"""What the pod runner needs of the network: a namespace with addresses for each pod sandbox."""

from pathlib import Path
from typing import Protocol

import msgspec

from ambit.core.address import Address


class PodNetwork(msgspec.Struct, frozen=True):
    """`netns` is pinned there until `detach`. Addresses: IPv4 first, then IPv6."""

    sandbox: str
    node: str
    netns: Path
    addresses: tuple[Address, ...]


class Fabric(Protocol):
    """Every method may be repeated with the same effect. Raises AmbitError when the kernel refuses."""

    async def attach(self, sandbox: str, node: str) -> PodNetwork:
        """A new pinned namespace joined to the node, lo up, addresses and default routes set."""
        ...

    async def detach(self, sandbox: str) -> None:
        """Unpin and free the addresses. Never called before the node agent let go of the namespace."""
        ...

    async def attached(self) -> tuple[PodNetwork, ...]:
        """What exists now: how a restarted cluster process finds the sandboxes it must adopt."""
        ...
