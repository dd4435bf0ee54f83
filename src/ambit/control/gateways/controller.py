"""Makes proxies of Gateways run: the objects of each, and the GatewayClasses that people name.

Level-based, by the elected replica: what is missing or changed is put right. Objects go with their Gateway, by their
owner reference; when its class needs no pods any more, some seconds after nobody goes to them (`leaving`); and when a
class of another kind has given it others: at once, since pods and Services of both find each other by the Gateway's
name, or, from one class of the edge to another, when one of the new pods is ready. An
object of such a name that is not the Gateway's own is left alone, and the Gateway says so: a proxy acts as the service
account of its name, so taking over another's would give its identity away.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from ambit.control.gateways.leaving import Leaving
from ambit.control.gateways.objects import Object, ProxyPods, gateway_objects, objects_name
from ambit.control.gateways.patches import OPTIONAL, patched, scaled
from ambit.core.finding import ObjectRef
from ambit.core.names import (
    GATEWAY_CLASS_NAMES,
    GATEWAY_CONTROLLER,
    INLINE_CLASS,
    INLINE_CONTROLLER,
    MANAGED_GATEWAY,
    MANAGED_LABEL,
    MANAGED_WAYPOINT,
    WAYPOINT_CLASSES,
    WAYPOINT_CONTROLLER,
)
from ambit.daemon.logs import event
from ambit.ingest.gateway.pod_labels import managed_as
from ambit.ingest.mesh import Change, MeshDelta
from ambit.kube.client import Client
from ambit.kube.errors import AlreadyExists, Forbidden, Invalid, NotFound
from ambit.kube.informer import EventKind, Informer
from ambit.kube.resource import (
    DEPLOYMENTS,
    GATEWAY_CLASSES,
    GATEWAYS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from ambit.kube.workqueue import WorkQueue
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.status import Condition, GatewayStatus, Status
from ambit.objects.gateway import Gateway
from ambit.objects.kube import Service
from ambit.objects.meta import ObjectMeta
from ambit.objects.strategic import PatchError

log = logging.getLogger("ambit.control.gateways")

_MANAGED = (MANAGED_WAYPOINT, MANAGED_GATEWAY)
_CONTROLLERS = {
    **dict.fromkeys(WAYPOINT_CLASSES, WAYPOINT_CONTROLLER),
    **dict.fromkeys(GATEWAY_CLASS_NAMES, GATEWAY_CONTROLLER),
    INLINE_CLASS: INLINE_CONTROLLER,
}
"""Of the GatewayClasses, by their names."""

CLASSES = "/classes"
"""In the queue: the GatewayClasses. No Gateway has such a key."""
CLASSES_AGAIN = 10.0
"""Seconds until the classes are tried again where the Gateway API is not installed."""

BLOCKED_AGAIN = 10.0
"""Seconds until it is looked again whether what was in the way is gone."""

LOOK_AGAIN = 1.0
"""Seconds until it is looked again whether a pod is ready that others wait for."""
_LEFT = (*OPTIONAL, DEPLOYMENTS, SERVICES, SERVICE_ACCOUNTS)
"""What goes then, in this order: what is watched last, so that all goes also when somebody ends in between."""


class Managed(msgspec.Struct, frozen=True):
    """An object of a Gateway's proxy, as far as we read it."""

    metadata: ObjectMeta


class GatewayKeeper:
    """Writes while `leading`. `gateways` are live, by (namespace, name); `proxies` what was compiled of them."""

    def __init__(
        self,
        client: Client,
        pods: ProxyPods,
        gateways: Mapping[tuple[str, str], Gateway],
        proxies: Callable[[], Mapping[str, Proxy]],
        leading: Callable[[], bool],
    ) -> None:
        self._client = client
        self._pods = pods
        self._gateways = gateways
        self._proxies = proxies
        self._leading = leading
        self._queue: WorkQueue[str] = WorkQueue("gateways")
        self._blocked: dict[str, Condition] = {}
        """What is in the way of a Gateway."""
        self._leaving = Leaving()
        self.on_blocked: Callable[[ObjectRef], None] = lambda _: None
        """Called when something comes into a Gateway's way, or goes."""
        self._optional = {each: self._informer(each) for each in OPTIONAL}
        self.informers = [
            *(self._informer(each) for each in (DEPLOYMENTS, SERVICE_ACCOUNTS)),
            *self._optional.values(),
        ]

    def compiled(self, changes: Iterable[Change], delta: MeshDelta) -> None:
        """A batch was compiled."""
        for key in delta.proxies.upserts:
            self._queue.add(key)
        for change in changes:
            if change.resource == GATEWAYS.qualified:
                self._queue.add(change.key)
            elif change.resource == GATEWAY_CLASSES.qualified and change.value is None:
                self._queue.add(CLASSES)

    def service_changed(self, kind: EventKind, old: Service | None, new: Service | None) -> None:
        """Subscriber of the services' informer."""
        service = new or old
        if service is not None and service.metadata.labels.get(MANAGED_LABEL) in _MANAGED:
            self._owner_changed(service.metadata)

    def started_leading(self) -> None:
        """Look at every Gateway again."""
        self._leaving.clear()
        self._queue.add(CLASSES)
        for key in self._proxies():
            self._queue.add(key)

    def amended(self, status: Status) -> Status:
        """What a Gateway's status says when something is in its way."""
        origin = status.version.origin
        blocked = self._blocked.get(f"{origin.namespace}/{origin.name}")
        if blocked is None or not isinstance(status, GatewayStatus):
            return status
        conditions = tuple(each for each in status.conditions if each.type != blocked.type)
        return msgspec.structs.replace(status, conditions=(*conditions, blocked))

    async def run(self) -> None:
        """Write until cancelled. The informers must run beside this."""
        for informer in self.informers:
            await informer.wait_synced()
        await self._queue.run(self._reconcile, workers=4)

    def _informer(self, kind: Resource) -> Informer[Managed]:
        selector = f"{MANAGED_LABEL} in ({','.join(_MANAGED)})"
        decode = msgspec.json.Decoder(Managed).decode
        informer = Informer(self._client, kind, decode, label_selector=selector)
        informer.subscribe(self._managed_changed)
        return informer

    def _managed_changed(self, kind: EventKind, old: Managed | None, new: Managed | None) -> None:
        """Only what somebody wrote counts, not what the cluster says in the status."""
        if old is not None and new is not None and _without_status(old) == _without_status(new):
            return
        managed = new or old
        if managed is not None:
            self._owner_changed(managed.metadata)

    def _owner_changed(self, meta: ObjectMeta) -> None:
        """Of an object of a Gateway, its Gateway is looked at."""
        for each in _owners(meta):
            self._queue.add(f"{meta.namespace}/{each}")

    async def _reconcile(self, key: str) -> None:
        if not self._leading():
            return
        if key == CLASSES:
            await self._create_classes()
            return
        namespace, _, name = key.partition("/")
        gateway = self._gateways.get((namespace, name))
        proxy = self._proxies().get(key)
        if gateway is None or proxy is None or gateway.metadata.deletion_timestamp is not None:
            self._leaving.stays(key)
            self._set_blocked(key, None)
            return
        if proxy.kind is ProxyKind.INLINE:
            self._set_blocked(key, None)
            await self._without_pods(key, gateway)
            return
        self._leaving.stays(key)
        if proxy.parameters.problem:  # the status says so, and what there is goes on as it is
            self._set_blocked(key, None)
            return
        blocked = await self._made(gateway, proxy)
        self._set_blocked(key, blocked)
        if blocked is not None:
            self._queue.add_after(key, BLOCKED_AGAIN)
        else:
            await self._without_others(key, gateway, proxy)

    async def _made(self, gateway: Gateway, proxy: Proxy) -> Condition | None:
        """Makes the objects of a Gateway as they should be, unless something is in the way, which it returns."""
        namespace, own = gateway.metadata.namespace, objects_name(proxy)
        try:
            wanted = patched(gateway_objects(gateway, proxy, self._pods), gateway, proxy)
        except PatchError as error:
            return _refused(str(error))
        live = {resource: await self._live(resource, own, namespace) for resource, _ in wanted}
        foreign = [
            f"{resource.kind} {namespace}/{own}"
            for resource, found in live.items()
            if found is not None and not _is_owned(found, gateway.metadata.uid)
        ]
        if foreign:
            text = f"{' and '.join(foreign)} exists already and is not this Gateway's"
            return Condition("Programmed", "False", "NoResources", text)
        for resource, value in scaled(wanted, live[DEPLOYMENTS]):
            try:
                await self._client.apply(resource, value, namespace, field_manager="ambit", force=True)
            except (Invalid, Forbidden) as error:
                if not proxy.parameters.patches:
                    raise
                return _refused(f"with its parameters {resource.kind} {namespace}/{own} is refused: {error}")
        await self._removed(gateway, own, {resource for resource, _ in wanted})
        return None

    async def _removed(self, gateway: Gateway, name: str, wanted: Collection[Resource]) -> None:
        """Takes away what nobody wants any more."""
        for resource, informer in self._optional.items():
            if resource not in wanted and (gateway.metadata.namespace, name) in informer.items:
                await self._take_away(gateway, resource, name)

    async def _without_pods(self, key: str, gateway: Gateway) -> None:
        """Takes away what made a Gateway's pods run when it needed some."""
        names = self._names(gateway)
        if not names:
            self._leaving.stays(key)
            return
        seconds = self._leaving.seconds(key, asyncio.get_running_loop().time())
        if seconds:
            self._queue.add_after(key, seconds)
            return
        gone = await self._all_taken_away(gateway, names)
        if gone:
            event(log, logging.INFO, "a Gateway needs no pods any more", gateway=key, deleted=",".join(gone))

    async def _without_others(self, key: str, gateway: Gateway, proxy: Proxy) -> None:
        """Takes away what made its pods run under the name that it had by another class."""
        own, kind = objects_name(proxy), managed_as(proxy.kind)
        names = {name: kinds for name, kinds in self._names(gateway).items() if name != own}
        if not names:
            return
        deployment = await self._live(DEPLOYMENTS, own, gateway.metadata.namespace) or {}
        is_ready = bool((deployment.get("status") or {}).get("readyReplicas"))
        going = [name for name, kinds in names.items() if is_ready or kind not in kinds]
        if len(going) < len(names):
            self._queue.add_after(key, LOOK_AGAIN)
        gone = await self._all_taken_away(gateway, going)
        if gone:
            text = "a Gateway has others by another class"
            event(log, logging.INFO, text, gateway=key, names=",".join(going), deleted=",".join(gone))

    def _names(self, gateway: Gateway) -> dict[str, set[str]]:
        """Of what makes, or made, its pods run; and what that is the proxy of."""
        meta = gateway.metadata
        found: dict[str, set[str]] = {}
        for informer in self.informers:
            for (namespace, name), managed in informer.items.items():
                if namespace == meta.namespace and meta.name in _owners(managed.metadata):
                    found.setdefault(name, set()).add(managed.metadata.labels.get(MANAGED_LABEL, ""))
        return found

    async def _all_taken_away(self, gateway: Gateway, names: Iterable[str]) -> list[str]:
        """Kinds of what went."""
        return [
            resource.kind
            for resource in _LEFT
            for name in sorted(names)
            if await self._take_away(gateway, resource, name)
        ]

    async def _take_away(self, gateway: Gateway, resource: Resource, name: str) -> bool:
        """An object of this name, when it is the Gateway's and was made here; whether there was one."""
        namespace = gateway.metadata.namespace
        found = await self._live(resource, name, namespace)
        if found is None or not _is_owned(found, gateway.metadata.uid):
            return False
        if (found["metadata"].get("labels") or {}).get(MANAGED_LABEL) not in _MANAGED:
            return False
        with contextlib.suppress(NotFound):
            await self._client.delete(resource, name, namespace, uid=found["metadata"]["uid"])
        return True

    async def _live(self, resource: Resource, name: str, namespace: str) -> Object | None:
        try:
            return await self._client.get(resource, name, namespace)
        except NotFound:
            return None

    def _set_blocked(self, key: str, blocked: Condition | None) -> None:
        if blocked == self._blocked.get(key):
            return
        if blocked is not None:
            self._blocked[key] = blocked
            event(log, logging.WARNING, "a proxy cannot be made", gateway=key, reason=blocked.message)
        else:
            del self._blocked[key]
        namespace, _, name = key.partition("/")
        self.on_blocked(ObjectRef("Gateway", namespace, name))

    async def _create_classes(self) -> None:
        for name, controller in _CONTROLLERS.items():
            value: Object = {"metadata": {"name": name}, "spec": {"controllerName": controller}}
            try:
                await self._client.create(GATEWAY_CLASSES, value)
            except AlreadyExists:
                continue
            except NotFound:
                self._queue.add_after(CLASSES, CLASSES_AGAIN)
                return
            event(log, logging.INFO, "made a GatewayClass", name=name)


def _refused(text: str) -> Condition:
    """Of a Gateway whose parameters fit, and what comes of them does not."""
    return Condition("Accepted", "False", "InvalidParameters", text)


def _is_owned(live: Mapping[str, Any], uid: str) -> bool:
    references = (live.get("metadata") or {}).get("ownerReferences") or ()
    return any(each.get("uid") == uid and each.get("controller") for each in references)


def _owners(meta: ObjectMeta) -> list[str]:
    """Names of the Gateways that control an object."""
    return [each.name for each in meta.owner_references if each.controller and each.kind == "Gateway"]


def _without_status(managed: Managed) -> tuple[Any, ...]:
    meta = managed.metadata
    return (meta.uid, meta.generation, meta.labels, meta.owner_references)
