"""Turns the wanted forwards into the forwarders' files, and has the forwarders started when there is
something.

Both Envoys are children of the instance's supervisor, not of the cluster process, so that connections of the
host outlive a restart of the latter.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path

import msgspec

from ambit.core.names import SYSTEM_NAMESPACE
from ambit.kube.client import Client
from ambit.kube.informer import Informer
from ambit.kube.resource import CONFIG_MAPS
from ambit.local.fabric.catalog import ServiceCatalog
from ambit.local.fabric.following import apply_changes
from ambit.local.fabric.services import Service
from ambit.local.forward.config import Forward
from ambit.local.forward.manager import Forwards
from ambit.local.forward.wanted import CONFIG_MAP, KEY, WantedForward, parse_wanted
from ambit.local.layout import NETNS, StateDirectory

log = logging.getLogger(__name__)

OUTER, INNER = "host-forwarder", "fabric-forwarder"

Start = Callable[[str, list[str]], None]
"""Has a named program run in the host's network namespace; asking again changes nothing."""


class _ConfigMap(msgspec.Struct, frozen=True):
    data: dict[str, str] | None = None


class ForwardController:
    """Follows the list of wanted forwards and the Services they name."""

    def __init__(
        self, client: Client, catalog: ServiceCatalog, state: StateDirectory, start: Start | None = None
    ) -> None:
        self._catalog = catalog
        self._forwards = Forwards(state)
        self._start = start or start_by_supervisor
        self._changed = asyncio.Event()
        self._wanted: Informer[_ConfigMap] = Informer(
            client,
            CONFIG_MAPS,
            msgspec.json.Decoder(_ConfigMap).decode,
            namespace=SYSTEM_NAMESPACE,
            field_selector=f"metadata.name={CONFIG_MAP}",
        )

    async def run(self) -> None:
        """Follow until cancelled."""
        self._catalog.subscribe(self._changed.set)
        self._wanted.subscribe(lambda *_: self._changed.set())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wanted.run())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        await self._wanted.wait_synced()
        await self._catalog.wait_synced()
        await apply_changes(self._changed, self._apply, "host forwards not applied")

    async def _apply(self) -> None:
        texts = [(item.data or {}).get(KEY, "") for item in self._wanted.items.values()]
        wanted = parse_wanted(texts[0]) if texts else ()
        forwards = resolve(wanted, self._catalog.services)
        self._forwards.replace(forwards)
        if forwards:
            self._start(INNER, in_fabric(self._forwards.inner_command()))
            self._start(OUTER, self._forwards.outer_command())


def resolve(wanted: Iterable[WantedForward], services: Iterable[Service]) -> tuple[Forward, ...]:
    """The forwards that are possible now. A Service without address waits; a host port goes to the first."""
    addresses = {service.key: service.cluster_addresses for service in services}
    found: dict[int, Forward] = {}
    for entry in wanted:
        given = sorted(addresses.get((entry.namespace, entry.service), ()), key=lambda text: ":" in text)
        if given and entry.host_port not in found:
            name = (
                f"{entry.namespace}/{entry.service}:{entry.port}{'/udp' if entry.protocol == 'UDP' else ''}"
            )
            address = str(ip_address(given[0]))
            found[entry.host_port] = Forward(name, entry.host_port, address, entry.port, entry.protocol)
    return tuple(found.values())


def in_fabric(command: list[str], netns: Path = NETNS / "fabric") -> list[str]:
    """The command line that runs `command` in the fabric's network namespace."""
    return ["nsenter", f"--net={netns}", "--", *command]


def start_by_supervisor(name: str, command: list[str]) -> None:
    """Ask PID 1 of the instance, which restarts the program until the instance ends."""
    line = json.dumps({"run": name, "argv": command}) + "\n"
    os.write(int(os.environ["AMBIT_SUPERVISOR_FD"]), line.encode())
