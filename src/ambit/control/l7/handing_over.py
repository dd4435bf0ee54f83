"""Runs `handover`: tells nodes and waypoints what is next when those before have answered, or time is over."""

import asyncio
from collections.abc import Collection

from ambit.control.discovery import Discovery
from ambit.control.handover import Handovers, Mark, Place
from ambit.control.l7.proxies import ProxyDiscovery
from ambit.control.mesh import updates_of
from ambit.control.view import LiveView
from ambit.ingest.mesh import MeshDelta
from ambit.xds.messages import ADDRESS_TYPE

LOOK = 0.02
"""Seconds between two looks at who has answered, while somebody is waited for."""


class HandingOver:
    """Single event loop. `at_once` comes before what it gives is published, `compiled` when waypoints were told."""

    def __init__(self, view: LiveView, nodes: Discovery, proxies: ProxyDiscovery) -> None:
        self._view = view
        self._nodes = nodes
        self._proxies = proxies
        self._handovers = Handovers(view)
        self._timer: asyncio.TimerHandle | None = None

    def kept(self, place: Place) -> Collection[str]:
        """Keys of what a waypoint still serves although it is not bound to it any more."""
        return self._handovers.kept(place)

    def at_once(self, delta: MeshDelta) -> MeshDelta:
        """The part of a batch that nodes are told at once."""
        return self._handovers.take(delta, asyncio.get_running_loop().time())

    def compiled(self) -> None:
        """The batch is on its way to nodes and waypoints."""
        if not self._handovers.is_waiting and self._handovers.lingers_until is None:
            return
        loop = asyncio.get_running_loop()
        self._handovers.told(self._proxies.mark, self._nodes.store.revision(ADDRESS_TYPE), loop.time())
        if self._timer is not None:
            self._timer.cancel()
        until = self._handovers.lingers_until or 0.0
        when = loop.time() + LOOK if self._handovers.is_waiting else until
        self._timer = loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        step = self._handovers.proceed(asyncio.get_running_loop().time(), self._has_taken, self._nodes_have)
        if updates := updates_of(step.delta):
            self._nodes.publish(updates)
        self._proxies.release(step.released)
        self.compiled()

    def _has_taken(self, place: Place, mark: Mark) -> bool:
        service = self._view.service("/".join(place))
        behind = self._view.endpoints(service) if service is not None else ()
        if behind and all(each.application_tunnel is not None for each in behind):
            return True  # somebody else's, whom we tell nothing
        pods = {each.name for each in behind}
        return self._proxies.has_taken(place, mark, pods)

    def _nodes_have(self, revision: int) -> bool:
        return self._nodes.has_acknowledged(ADDRESS_TYPE, revision)
