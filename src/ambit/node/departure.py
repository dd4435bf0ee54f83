"""When nobody on this node is sent to a pod any more: what a pod's end waits for, before its containers are told.

Whoever ends pods (the laptop's pod runner) asks the agents of all nodes, so that a container which stops at the first
signal refuses no connection that a proxy chose for it.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable

from ambit.agent.publication import Publication
from ambit.core.errors import AmbitError
from ambit.model.workload import Workload, WorkloadStatus
from ambit.node.enrol.sandbox import Sandbox
from ambit.node.state import keys
from ambit.node.state.mesh import MeshState

PATIENCE = 10.0
"""Seconds after which the question is answered in any case: the control plane may be away."""

Changed = Callable[[Iterable[str]], Awaitable[Publication]]


class Departures:
    """`changed` computes anew what depends on some keys; `published` is all that Envoy was told so far."""

    def __init__(
        self,
        state: MeshState,
        network: str,
        changed: Changed,
        published: Callable[[], Iterable[Publication]],
    ) -> None:
        self._state = state
        self._network = network
        self._changed = changed
        self._published = published
        self._applied = asyncio.Event()

    def applied(self) -> None:
        """Something the control plane said has reached Envoy."""
        self._applied.set()
        self._applied = asyncio.Event()

    async def left(self, sandbox: Sandbox) -> None:
        """Returns when Envoy has acknowledged that new connections to services go to other pods. Raises AmbitError when
        the control plane goes on saying otherwise."""
        try:
            async with asyncio.timeout(PATIENCE):
                while (workload := self._workload(sandbox)) is not None and _is_chosen(workload):
                    await self._applied.wait()
                # What is stored may not have been computed yet.
                touched = keys.of_value(workload) if workload is not None else ()
                await (await self._changed(touched)).settled()
                for publication in self._published():
                    await publication.settled()
        except TimeoutError:
            raise AmbitError(
                f"pod {sandbox.namespace}/{sandbox.name} is an endpoint still after {PATIENCE:.0f} s"
            ) from None

    def _workload(self, sandbox: Sandbox) -> Workload | None:
        for address in sandbox.ips:
            found = self._state.workload_by_address(self._network, ipaddress.ip_address(address))
            if found is not None and (found.namespace, found.name) == (sandbox.namespace, sandbox.name):
                return found
        return None


def _is_chosen(workload: Workload) -> bool:
    return workload.status is WorkloadStatus.HEALTHY and bool(workload.services)
