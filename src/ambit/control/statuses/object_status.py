"""Writes what the compiler has to say into the status of Gateway API objects and of what is bound to waypoints.

Level-based, by the elected replica. A status is written only for the very object that was compiled; what is not said
any more is taken back from an object that is still there.
"""

import datetime as dt
from collections.abc import Callable, Collection

from ambit.control.statuses.restoration import Restoration
from ambit.control.statuses.status_fields import to_withdraw, to_write
from ambit.core.finding import ObjectRef
from ambit.ingest.mesh import MeshDelta
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.workqueue import WorkQueue
from ambit.model.status import Status

KINDS = {
    each.kind: each
    for each in (
        kinds.GATEWAY_CLASSES,
        kinds.GATEWAYS,
        kinds.HTTP_ROUTES,
        kinds.GRPC_ROUTES,
        kinds.LISTENER_SETS,
        kinds.TLS_ROUTES,
        kinds.TCP_ROUTES,
        kinds.UDP_ROUTES,
        kinds.BACKEND_TLS_POLICIES,
        kinds.BACKEND_TRAFFIC_POLICIES,
        kinds.SERVICES,
        kinds.SERVICE_ENTRIES,
        kinds.WORKLOAD_ENTRIES,
        kinds.REQUEST_AUTHENTICATIONS,
        kinds.AUTHORIZATION_POLICIES,
        kinds.TELEMETRIES,
    )
}

REMEMBERED = 10_000
"""So many objects whose status is to be taken back."""


class ObjectStatusWriter:
    """Writes while `leading`; `amended` may change what is said."""

    def __init__(
        self,
        client: Client,
        leading: Callable[[], bool],
        amended: Callable[[Status], Status],
        wall: Callable[[], dt.datetime],
    ) -> None:
        self._client = client
        self._leading = leading
        self._amended = amended
        self._wall = wall
        self._said: dict[str, Status] = {}
        """By the text of the object."""
        self._withdrawn: dict[ObjectRef, Status] = {}
        """What is no longer said, until it is gone from the object."""
        self._queue: WorkQueue[ObjectRef] = WorkQueue("object status")
        self._restoration = Restoration(self._queue.add, leading)
        self.seen = self._restoration.seen
        """To be called with each version of an object: another writer may have changed its status."""

    def compiled(self, delta: MeshDelta) -> None:
        """A batch was compiled."""
        for text, status in delta.statuses.upserts.items():
            self._said[text] = status
            self._withdrawn.pop(status.version.origin, None)
            self._restoration.changed(status.version.origin)
            self._queue.add(status.version.origin)
        for text in delta.statuses.removals:
            former = self._said.pop(text, None)
            if former is not None:
                self._withdrawn[former.version.origin] = former
                self._restoration.forget(former.version.origin)
                self._queue.add(former.version.origin)
        # A replica that does not lead takes nothing back; it remembers the newest, in case it leads soon.
        while len(self._withdrawn) > REMEMBERED:
            del self._withdrawn[next(iter(self._withdrawn))]

    def look_again(self, origin: ObjectRef) -> None:
        """What `amended` makes of this object's status may have changed."""
        self._queue.add(origin)

    def look_again_at(self, texts: Collection[str]) -> None:
        """The same of several, by the text of the objects."""
        for each in texts:
            if (status := self._said.get(each)) is not None:
                self._queue.add(status.version.origin)

    def started_leading(self) -> None:
        """Look at every object again."""
        for status in (*self._said.values(), *self._withdrawn.values()):
            self._queue.add(status.version.origin)

    async def run(self) -> None:
        """Write until cancelled."""
        await self._queue.run(self._reconcile, workers=4)

    async def _reconcile(self, origin: ObjectRef) -> None:
        said, former = self._said.get(str(origin)), self._withdrawn.get(origin)
        if not self._leading() or (said is None and former is None):
            return
        resource = KINDS[origin.kind]
        try:
            live = await self._client.get(resource, origin.name, origin.namespace or None)
        except NotFound:
            self._withdrawn.pop(origin, None)
            return
        metadata = live["metadata"]
        if said is not None:
            version = said.version
            if (version.uid, version.generation) != (
                metadata.get("uid"),
                int(metadata.get("generation") or 0),
            ):
                return  # The watch brings what is there now, and leads here again.
            fields = to_write(live, self._amended(said), self._wall())
        else:
            assert former is not None
            fields = to_withdraw(live, former)
        if fields is not None:
            live = await self._client.patch(
                resource,
                origin.name,
                {"metadata": {"resourceVersion": metadata.get("resourceVersion")}, "status": fields},
                origin.namespace or None,
                subresource="status",
                field_manager="ambit",
            )
        if said is not None:
            self._restoration.good(origin, str(live["metadata"]["resourceVersion"]))
        if said is None and self._withdrawn.get(origin) is former:
            del self._withdrawn[origin]
