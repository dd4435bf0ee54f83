"""Namespaces: what every one of them contains from the start, and their end.

A new namespace gets the ServiceAccount `default`, the ConfigMap `kube-root-ca.crt` and its name as a
label. One that is being deleted is emptied, kind by kind, as often as it takes, and then finalized.
"""

from contextlib import suppress
from typing import ClassVar

from ambit.kube.client import Client
from ambit.kube.discovery import discover
from ambit.kube.errors import AlreadyExists, ApiError, Conflict, Forbidden, MethodNotAllowed, NotFound
from ambit.kube.reflector import Key
from ambit.kube.resource import CONFIG_MAPS, NAMESPACES, PODS, SERVICE_ACCOUNTS, Resource
from ambit.local.controllers.caches import Cache, Caches, decode_metadata
from ambit.local.controllers.controller import Controller
from ambit.local.controllers.objects import Object, is_deleting, key_of, labels_of

NAME_LABEL = "kubernetes.io/metadata.name"
ROOT_CA = "kube-root-ca.crt"
DEFAULT_ACCOUNT = "default"
RETRY = 0.2
"""Seconds between two looks at a namespace that is not empty yet."""


class NamespaceController(Controller):
    """Namespaces -> their default contents; deleted ones -> nothing."""

    name: ClassVar[str] = "namespace-controller"

    def __init__(self, caches: Caches, cluster_ca: str) -> None:
        super().__init__(caches)
        self._cluster_ca = cluster_ca
        self.spaces = self.watch(NAMESPACES)
        caches.of(CONFIG_MAPS, decode_metadata)
        caches.of(SERVICE_ACCOUNTS, decode_metadata)
        self.accounts = self._defaults(SERVICE_ACCOUNTS, DEFAULT_ACCOUNT)
        self.maps = self._defaults(CONFIG_MAPS, ROOT_CA)

    def _defaults(self, resource: Resource, name: str) -> Cache:
        def keys(value: Object) -> list[Key]:
            namespace, found = key_of(value)
            return [("", namespace)] if found == name else []

        return self.watch(resource, keys)

    async def reconcile(self, key: Key) -> None:
        space = self.spaces.get(key)
        if space is None:
            return
        if is_deleting(space):
            await self._empty(space)
            return
        name = key[1]
        if labels_of(space).get(NAME_LABEL) != name:
            await self.client.patch(NAMESPACES, name, {"metadata": {"labels": {NAME_LABEL: name}}})
        await self._ensure(self.accounts, SERVICE_ACCOUNTS, name, {"metadata": {"name": DEFAULT_ACCOUNT}})
        document = {"metadata": {"name": ROOT_CA}, "data": {"ca.crt": self._cluster_ca}}
        await self._ensure(self.maps, CONFIG_MAPS, name, document)

    async def _ensure(self, cache: Cache, resource: Resource, namespace: str, value: Object) -> None:
        if cache.get((namespace, value["metadata"]["name"])) is not None:
            return
        # Forbidden: the namespace began to end meanwhile, and its own event follows.
        with suppress(AlreadyExists, Forbidden, NotFound):
            await self.client.create(resource, value, namespace)

    async def _empty(self, space: Object) -> None:
        _, name = key_of(space)
        left = await delete_contents(self.client, name)
        if left:
            self.queue.add_after(("", name), RETRY)
            return
        finalizers = (space.get("spec") or {}).get("finalizers") or []
        if "kubernetes" in finalizers:
            fresh = await self.client.get(NAMESPACES, name)
            kept = [item for item in finalizers if item != "kubernetes"]
            fresh["spec"] = {**(fresh.get("spec") or {}), "finalizers": kept}
            with suppress(NotFound, Conflict):
                await self.client.replace(NAMESPACES, fresh, subresource="finalize")


async def delete_contents(client: Client, namespace: str) -> int:
    """Ask for the deletion of everything in a namespace; how many objects are still there afterwards."""
    left = 0
    known = [item for item in await discover(client) if item.resource.namespaced]
    known.sort(key=lambda item: item.resource == PODS)
    for item in known:
        if not {"list", "delete"} <= item.verbs:
            continue
        try:
            values = await client.list(item.resource, namespace)
        except (NotFound, MethodNotAllowed):
            continue
        for value in values:
            if not is_deleting(value):
                with suppress(NotFound, Conflict):
                    await client.delete(
                        item.resource, value["metadata"]["name"], namespace, propagation="Background"
                    )
        if values:
            with suppress(ApiError):
                left += len(await client.list(item.resource, namespace))
    return left
