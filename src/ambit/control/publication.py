"""Publishes the trusted roots as a ConfigMap in every namespace, and keeps it there.

Level-based: what is wrong in a namespace is put right, whatever happened. Only the leader writes; the namespace of
the system is written by every replica at start, because node agents cannot start without it.
"""

from collections.abc import Callable, Mapping

import msgspec

from ambit.core.names import ROOT_CERT_CONFIGMAP, ROOT_CERT_KEY
from ambit.kube.client import Client, Patch
from ambit.kube.errors import AlreadyExists, Forbidden, NotFound
from ambit.kube.informer import EventKind, Informer
from ambit.kube.resource import CONFIG_MAPS
from ambit.kube.workqueue import WorkQueue
from ambit.objects.kube import Namespace
from ambit.objects.meta import ObjectMeta

FIELD_MANAGER = "ambit"


class RootMap(msgspec.Struct, frozen=True):
    """The ConfigMap, as far as we read it."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None


class RootPublisher:
    """`leading` tells whether this replica is the writer now."""

    def __init__(
        self,
        client: Client,
        roots: str,
        namespaces: Mapping[tuple[str, str], Namespace],
        leading: Callable[[], bool],
    ) -> None:
        self._client = client
        self._roots = roots
        self._namespaces = namespaces
        self._leading = leading
        self._queue: WorkQueue[str] = WorkQueue("root certificates")
        self.maps = Informer(
            client,
            CONFIG_MAPS,
            msgspec.json.Decoder(RootMap).decode,
            field_selector=f"metadata.name={ROOT_CERT_CONFIGMAP}",
        )
        self.maps.subscribe(self._map_changed)

    def namespace_changed(self, kind: EventKind, old: Namespace | None, new: Namespace | None) -> None:
        """Subscriber of the namespace informer."""
        if kind == "added" and new is not None:
            self._queue.add(new.metadata.name)

    def started_leading(self) -> None:
        """Look at every namespace again."""
        for _, name in self._namespaces:
            self._queue.add(name)

    async def run(self) -> None:
        """Write until cancelled. The ConfigMap informer must be run beside this."""
        await self.maps.wait_synced()
        await self._queue.run(self._reconcile, workers=2)

    async def publish(self, namespace: str) -> None:
        """Write the ConfigMap of one namespace. Raises ApiError, Unreachable."""
        value = {
            "metadata": {
                "name": ROOT_CERT_CONFIGMAP,
                "namespace": namespace,
                "labels": {"istio.io/config": "true"},
            },
            "data": {ROOT_CERT_KEY: self._roots},
        }
        try:
            await self._client.create(CONFIG_MAPS, value, namespace)
        except AlreadyExists:
            await self._client.patch(
                CONFIG_MAPS,
                ROOT_CERT_CONFIGMAP,
                {"data": value["data"]},
                namespace,
                kind=Patch.MERGE,
                field_manager=FIELD_MANAGER,
            )

    def _map_changed(self, kind: EventKind, old: RootMap | None, new: RootMap | None) -> None:
        changed = new or old
        if changed is not None:
            self._queue.add(changed.metadata.namespace)

    async def _reconcile(self, name: str) -> None:
        namespace = self._namespaces.get(("", name))
        if not self._leading() or namespace is None or namespace.metadata.deletion_timestamp is not None:
            return
        current = self.maps.items.get((name, ROOT_CERT_CONFIGMAP))
        if current is not None and (current.data or {}).get(ROOT_CERT_KEY) == self._roots:
            return
        try:
            await self.publish(name)
        except (NotFound, Forbidden):
            if ("", name) in self._namespaces:
                raise
