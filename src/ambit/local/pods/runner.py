"""The pod runner: the kubelet of a laptop cluster, for all of its nodes at once.

Watches pods, gives each that is bound to one of our nodes a worker, and keeps what the workers share up to
date.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ambit.core.errors import AmbitError
from ambit.core.names import SYSTEM_NAMESPACE
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.kube.informer import Informer
from ambit.local.fabric.interface import Fabric, PodNetwork
from ambit.local.layout import SANDBOXES, NodeAddresses, StateDirectory
from ambit.local.pods import cni, images, nodes, sandbox
from ambit.local.pods.content import objects_needed, volumes_of
from ambit.local.pods.environment import ServiceLink, ServicePort
from ambit.local.pods.events import EventRecorder
from ambit.local.pods.host import Host
from ambit.local.pods.images import ImageEntry
from ambit.local.pods.streams import Streams
from ambit.local.pods.worker import PodWorker
from ambit.objects.documents import Malformed, read_value

log = logging.getLogger(__name__)

IMAGE_MAP = (SYSTEM_NAMESPACE, "image-map")
IMAGE_KEY = "images.yaml"
_RESTART = 1.0
"""Seconds before a worker that failed by a defect of ours is started again."""


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    labels: dict[str, str] = {}
    namespace: str = ""
    resource_version: str = ""


class _Named(msgspec.Struct, frozen=True):
    metadata: _Metadata


class _ServiceSpec(msgspec.Struct, frozen=True, rename="camel"):
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    ports: tuple[ServicePort, ...] = ()


class _Service(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _ServiceSpec = _ServiceSpec()


class _ConfigMap(msgspec.Struct, frozen=True):
    metadata: _Metadata
    data: dict[str, str] = {}


class PodRunner:
    """`streams` serves logs, exec and port-forward. `run` runs until cancelled; pods survive that.

    `labels` gives a node's topology labels.
    """

    def __init__(
        self,
        client: Client,
        fabric: Fabric,
        state: StateDirectory,
        nodes: tuple[NodeAddresses, ...],
        labels: Callable[[NodeAddresses], Mapping[str, str]] = lambda _: {},
    ) -> None:
        hidden, readable = sandbox.private_view(state.root)
        self._client = client
        self._labels = labels
        self._images: tuple[ImageEntry, ...] = ()
        self._workers: dict[str, PodWorker] = {}
        self._by_name: dict[tuple[str, str], PodWorker] = {}
        self._events = EventRecorder(client)
        self._host = Host(
            client=client,
            fabric=fabric,
            state=state,
            nodes={node.name: node for node in nodes},
            events=self._events,
            hidden=hidden,
            readable=readable,
            namespace_labels=self._namespace_labels,
            services=self._services,
            images=lambda: self._images,
        )
        self._pods: Informer[dict[str, Any]] = Informer(client, kinds.PODS, msgspec.json.decode)
        self._namespaces = Informer(client, kinds.NAMESPACES, msgspec.json.Decoder(_Named).decode)
        self._service_list = Informer(client, kinds.SERVICES, msgspec.json.Decoder(_Service).decode)
        self._secrets = Informer(client, kinds.SECRETS, msgspec.json.Decoder(_Named).decode)
        self._config_maps = Informer(client, kinds.CONFIG_MAPS, _decode_config_map)
        self._group: asyncio.TaskGroup | None = None
        self._synced = asyncio.Event()
        self.streams = Streams(state, self._find)

    async def run(self) -> None:
        sandboxes = sorted(SANDBOXES.iterdir()) if SANDBOXES.is_dir() else []
        networks = await self._host.fabric.attached()
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._events.run())
            group.create_task(self._register())
            shared = (self._namespaces, self._service_list, self._secrets, self._config_maps)
            self._secrets.subscribe(lambda _, old, new: self._object_changed("secret", new or old))
            self._config_maps.subscribe(lambda _, old, new: self._config_map_changed(old, new))
            for informer in shared:
                group.create_task(informer.run())
            for informer in shared:
                await informer.wait_synced()
            self._pods.subscribe(
                lambda kind, old, new: self._pod_changed(old if kind == "deleted" else new, kind)
            )
            group.create_task(self._pods.run())
            await self._pods.wait_synced()
            self._synced.set()
            await self._sweep(sandboxes, networks)

    async def _find(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod. While a restarted runner still takes over what runs, this waits for it."""
        await self._synced.wait()
        worker = self._by_name.get((namespace, name))
        if worker is not None and worker.place.runs(worker.pod):
            await worker.taken_over.wait()
        return worker

    async def _register(self) -> None:
        for node in self._host.nodes.values():
            while True:
                try:
                    await nodes.register(self._client, node, self._labels(node))
                    break
                except AmbitError as problem:
                    log.warning("node %s not registered yet: %s", node.name, problem.message)
                    await asyncio.sleep(_RESTART)

    def _pod_changed(self, pod: dict[str, Any] | None, kind: str) -> None:
        if pod is None or pod["spec"].get("nodeName") not in self._host.nodes:
            return
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if kind == "deleted":
            if worker is not None:
                worker.update(None)
            return
        if worker is not None:
            worker.update(pod)
            return
        worker = PodWorker(self._host, pod)
        self._workers[uid] = worker
        self._by_name[pod["metadata"]["namespace"], pod["metadata"]["name"]] = worker
        assert self._group is not None
        self._group.create_task(self._work(uid, worker))

    async def _work(self, uid: str, worker: PodWorker) -> None:
        """A defect in one pod's worker must not take down the others; the next one adopts what runs."""
        try:
            await worker.run()
        except Exception:
            log.exception("worker of pod %s failed, starting it again", worker.id)
            await asyncio.sleep(_RESTART)
            self._forget(uid, worker)
            key = (worker.pod["metadata"]["namespace"], worker.pod["metadata"]["name"])
            newest = self._pods.items.get(key)
            if newest is not None:
                self._pod_changed(newest, "modified")
        else:
            self._forget(uid, worker)

    def _forget(self, uid: str, worker: PodWorker) -> None:
        self._workers.pop(uid, None)
        key = (worker.pod["metadata"]["namespace"], worker.pod["metadata"]["name"])
        if self._by_name.get(key) is worker:
            del self._by_name[key]

    async def _sweep(self, sandboxes: list[Path], networks: tuple[PodNetwork, ...]) -> None:
        """Of what was there before we watched, end what belongs to no pod any more."""
        known = {worker.id for worker in self._workers.values()}
        owners = {}
        for directory in sandboxes:
            if directory.name not in known:
                owners[directory.name] = sandbox.read_owner(directory)
                await sandbox.remove(directory)
        for network in networks:
            if network.sandbox in known:
                continue
            owner = owners.get(network.sandbox)
            if owner is not None and network.node in self._host.nodes:
                run = self._host.nodes[network.node].run
                with suppress(AmbitError):  # an agent that is not there holds nothing
                    await cni.call(run, "del", owner.namespace, owner.name, owner.uid, network)
            await self._host.fabric.detach(network.sandbox)

    def _namespace_labels(self, name: str) -> Mapping[str, str]:
        namespace = self._namespaces.items.get(("", name))
        return namespace.metadata.labels if namespace is not None else {}

    def _services(self) -> tuple[ServiceLink, ...]:
        return tuple(
            ServiceLink(item.metadata.namespace, item.metadata.name, item.spec.cluster_ip, item.spec.ports)
            for item in self._service_list.items.values()
            if item.spec.cluster_ip not in {"", "None"}
        )

    def _config_map_changed(self, old: _ConfigMap | None, new: _ConfigMap | None) -> None:
        changed = new or old
        if changed is None:
            return
        if (changed.metadata.namespace, changed.metadata.name) == IMAGE_MAP:
            self._read_images(new)
        self._object_changed("configMap", changed)

    def _read_images(self, config_map: _ConfigMap | None) -> None:
        text = config_map.data.get(IMAGE_KEY, "") if config_map is not None else ""
        try:
            self._images = images.parse_entries(read_value(text))
        except (AmbitError, Malformed) as problem:
            log.warning("the image map keeps its last good content: %s", problem)
            return
        for worker in self._workers.values():
            worker.poke()

    def _object_changed(self, kind: str, changed: _Named | _ConfigMap | None) -> None:
        """Wake the pods that use it, as volume or in their environment."""
        if changed is None:
            return
        wanted = (kind, changed.metadata.name)
        for worker in self._workers.values():
            if worker.pod["metadata"]["namespace"] != changed.metadata.namespace:
                continue
            used = {item for volume in volumes_of(worker.pod) for item in objects_needed(volume)}
            if wanted in used or any(slot.waiting is not None for slot in worker.slots):
                worker.poke()


def _decode_config_map(body: bytes) -> _ConfigMap:
    """Only the image map's data is kept in memory."""
    value = msgspec.json.decode(body, type=_ConfigMap)
    if (value.metadata.namespace, value.metadata.name) == IMAGE_MAP:
        return value
    return _ConfigMap(value.metadata)
