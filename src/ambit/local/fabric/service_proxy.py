"""Keeps the Service tables of the fabric's and every node's namespace equal to the API's Services."""

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ambit.local.fabric.catalog import ServiceCatalog
from ambit.local.fabric.conntrack import forget_udp
from ambit.local.fabric.following import apply_changes
from ambit.local.fabric.network import load_table
from ambit.local.fabric.service_table import Target, entries, service_table, udp_targets
from ambit.local.fabric.wiring import BRIDGE
from ambit.local.layout import NETNS, NodeAddresses
from ambit.node.netns.enter import in_namespace

log = logging.getLogger(__name__)


class ServiceProxy:
    """Applies the catalog to every namespace. A table is loaded only when its text changed."""

    def __init__(self, catalog: ServiceCatalog, nodes: Iterable[NodeAddresses], pins: Path = NETNS) -> None:
        self._catalog = catalog
        self._nodes = tuple(nodes)
        self._pins = pins
        self._loaded: dict[str, str] = {}
        self._udp: dict[str, frozenset[Target]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the catalog until cancelled; what the kernel refuses is logged and tried again."""
        self._catalog.subscribe(self._changed.set)
        await self._catalog.wait_synced()
        await apply_changes(self._changed, self.apply, "service table not loaded")

    async def apply(self) -> None:
        """Load what the catalog says now. Raises EnvironmentProblem or OSError."""
        slices = self._catalog.slices()
        services = self._catalog.settled()
        for node in ("", *(node.name for node in self._nodes)):
            table = entries(services, slices, self._nodes, node)
            text = service_table(table)
            if self._loaded.get(node) != text:
                udp = udp_targets(table)
                gone = self._udp.get(node, udp) - udp
                pin = self._pins / (node or BRIDGE)
                await asyncio.to_thread(in_namespace, pin, partial(_load, text, gone))
                self._loaded[node], self._udp[node] = text, udp


def _load(text: str, gone: frozenset[Target]) -> None:
    load_table(text)
    if gone:
        forget_udp(gone)
