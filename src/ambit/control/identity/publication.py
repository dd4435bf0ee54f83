"""Publishes the trusted roots, and revocation lists if there are any, as ConfigMaps in every namespace, and keeps them
there.

Level-based: what is wrong in a namespace is put right, whatever happened. Only the leader writes; the namespace of
the system is written by every replica at start, because node agents cannot start without it.
"""

from collections.abc import Callable, Mapping

import msgspec

from ambit.ca.trust import Trust
from ambit.core.names import CRL_CONFIGMAP, CRL_KEY, ROOT_CERT_CONFIGMAP, ROOT_CERT_KEY
from ambit.kube.client import Client, Patch
from ambit.kube.errors import AlreadyExists, Forbidden, NotFound
from ambit.kube.informer import EventKind, Informer
from ambit.kube.resource import CONFIG_MAPS
from ambit.kube.workqueue import WorkQueue
from ambit.objects.kube import Namespace
from ambit.objects.meta import ObjectMeta

FIELD_MANAGER = "ambit"


class RootMap(msgspec.Struct, frozen=True):
    """A ConfigMap, as far as we read it."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None


class RootPublisher:
    """`trust` is what holds now; `leading` tells whether this replica is the writer now."""

    def __init__(
        self,
        client: Client,
        trust: Callable[[], Trust],
        namespaces: Mapping[tuple[str, str], Namespace],
        leading: Callable[[], bool],
    ) -> None:
        self._client = client
        self._trust = trust
        self._namespaces = namespaces
        self._leading = leading
        self._queue: WorkQueue[str] = WorkQueue("root certificates")
        self.maps = {name: self._informer(name) for name in (ROOT_CERT_CONFIGMAP, CRL_CONFIGMAP)}

    def namespace_changed(self, kind: EventKind, old: Namespace | None, new: Namespace | None) -> None:
        """Subscriber of the namespace informer."""
        if kind == "added" and new is not None:
            self._queue.add(new.metadata.name)

    def look_again(self) -> None:
        """At every namespace: the trust changed, or this replica leads from now on."""
        for _, name in self._namespaces:
            self._queue.add(name)

    async def run(self) -> None:
        """Write until cancelled. The informers in `maps` must be run beside this."""
        for informer in self.maps.values():
            await informer.wait_synced()
        await self._queue.run(self._reconcile, workers=2)

    async def publish(self, namespace: str) -> None:
        """Write the roots of one namespace. Raises ApiError, Unreachable."""
        await self._write(namespace, ROOT_CERT_CONFIGMAP, {ROOT_CERT_KEY: self._trust().roots})

    async def _write(self, namespace: str, name: str, data: dict[str, str]) -> None:
        value = {
            "metadata": {"name": name, "namespace": namespace, "labels": {"istio.io/config": "true"}},
            "data": data,
        }
        try:
            await self._client.create(CONFIG_MAPS, value, namespace)
        except AlreadyExists:
            await self._client.patch(
                CONFIG_MAPS, name, {"data": data}, namespace, kind=Patch.MERGE, field_manager=FIELD_MANAGER
            )

    def _informer(self, name: str) -> Informer[RootMap]:
        informer = Informer(
            self._client,
            CONFIG_MAPS,
            msgspec.json.Decoder(RootMap).decode,
            field_selector=f"metadata.name={name}",
        )
        informer.subscribe(self._map_changed)
        return informer

    def _map_changed(self, kind: EventKind, old: RootMap | None, new: RootMap | None) -> None:
        changed = new or old
        if changed is not None:
            self._queue.add(changed.metadata.namespace)

    async def _reconcile(self, name: str) -> None:
        namespace = self._namespaces.get(("", name))
        if not self._leading() or namespace is None or namespace.metadata.deletion_timestamp is not None:
            return
        trust = self._trust()
        wanted = {
            ROOT_CERT_CONFIGMAP: (ROOT_CERT_KEY, trust.roots),
            CRL_CONFIGMAP: (CRL_KEY, trust.revoked),
        }
        try:
            for each, (key, text) in wanted.items():
                current = self.maps[each].items.get((name, each))
                held = (current.data or {}).get(key) if current is not None else None
                # A list that is withdrawn becomes empty; where there never was one, none is made.
                if held != text and (text or held):
                    await self._write(name, each, {key: text})
        except (NotFound, Forbidden):
            if ("", name) in self._namespaces:
                raise
