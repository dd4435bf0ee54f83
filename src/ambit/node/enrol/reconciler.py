"""Follows the node's pods and all namespaces, and makes capture agree with their labels.

The pod runner announces new pods over the CNI socket; what is found here are running pods whose labels
changed, and pods that ended without a word.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import msgspec

from ambit.core.errors import AmbitError, Unreachable
from ambit.core.names import REDIRECTION_PENDING
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.informer import EventKind, Informer
from ambit.kube.resource import NAMESPACES, PODS
from ambit.kube.workqueue import WorkQueue
from ambit.node.enrol.enroller import Enroller
from ambit.node.enrol.pods import Namespace, Pod, namespace_decoder, pod_decoder, refusal, wanted
from ambit.node.enrol.sandbox import Sandbox, find
from ambit.node.netns.kubelet import KubeletPods

Key = tuple[str, str]
_DRAIN_CHECK = 1.0
"""Seconds between two looks at the open connections of a pod that leaves."""


class Reconciler:
    """Runs until cancelled; `add` and `remove` are what the CNI socket asks for. With `kubelet`, pods are a
    kubelet's; without, the laptop's pod runner keeps records of them. Pods of `excluded` namespaces stay outside."""

    def __init__(
        self,
        client: Client,
        node: str,
        enroller: Enroller,
        *,
        sandboxes: Path,
        namespaces: Path,
        kubelet: KubeletPods | None = None,
        excluded: Collection[str] = (),
    ) -> None:
        self._client = client
        self._node = node
        self._enroller = enroller
        self._sandboxes = sandboxes
        self._netns = namespaces
        self._kubelet = kubelet
        self._excluded = frozenset(excluded)
        self._pods = Informer(client, PODS, pod_decoder.decode, field_selector=f"spec.nodeName={node}")
        self._namespaces = Informer(client, NAMESPACES, namespace_decoder.decode)
        self._queue: WorkQueue[Key] = WorkQueue("enrolment")

    @property
    def is_synced(self) -> bool:
        return self._pods.is_synced and self._namespaces.is_synced

    def is_ending(self, key: Key) -> bool:
        """Whether a pod of this node is there and is being deleted."""
        pod = self._pods.items.get(key)
        return pod is not None and pod.metadata.deletion_timestamp is not None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pods.run())
            tasks.create_task(self._namespaces.run())
            await self._pods.wait_synced()
            await self._namespaces.wait_synced()
            self._pods.subscribe(self._pod_changed)
            self._namespaces.subscribe(self._namespace_changed)
            for sandbox in self._enroller.sandboxes.values():
                self._queue.add(sandbox.key)
            await self._queue.run(self._reconcile)

    async def add(self, sandbox: Sandbox) -> bool:
        """A new pod's sandbox; false when its labels do not ask for capture. Raises AmbitError."""
        pod = await self._pod(sandbox)
        if pod.spec.node_name != self._node:
            raise AmbitError(f"pod {sandbox.namespace}/{sandbox.name} is not on node {self._node}")
        if not wanted(pod, await self._namespace(sandbox.namespace), self._excluded):
            return False
        async with self._told(pod):
            _check_kind(pod)
            if self._kubelet is not None:
                sandbox = msgspec.structs.replace(sandbox, netns=self._kubelet.pinned(sandbox.netns))
            await self._enroller.add(sandbox, pod, started=False)
        return True

    async def remove(self, sandbox: Sandbox) -> None:
        """A pod's sandbox ends, perhaps told more than once. Raises AmbitError while Envoy still has sockets in
        it."""
        await self._enroller.remove(sandbox.uid, sandbox)

    def _pod_changed(self, kind: EventKind, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is not None:
            self._queue.add(pod.key)

    def _namespace_changed(self, kind: EventKind, old: Namespace | None, new: Namespace | None) -> None:
        if old is not None and new is not None and old.metadata.labels == new.metadata.labels:
            return
        name = (new or old).metadata.name  # type: ignore[union-attr]
        for key in self._pods.items:
            if key[0] == name:
                self._queue.add(key)

    async def _reconcile(self, key: Key) -> None:
        pod = self._pods.items.get(key)
        for sandbox in list(self._enroller.sandboxes.values()):
            if sandbox.key == key and (pod is None or pod.uid != sandbox.uid):
                await self._enroller.remove(sandbox.uid)
        if pod is None:
            return
        known = self._enroller.sandboxes.get(pod.uid)
        captured = known is not None
        if pod.terminating:
            return
        namespace = self._namespaces.items.get(("", key[0]))
        refused = refusal(pod, namespace, self._excluded)
        if wanted(pod, namespace, self._excluded):
            if pod.running and (
                known is None
                or known.leaving
                or not pod.annotated
                or not known.same_namespace()
                or not self._enroller.is_reviewed(pod.uid)
            ):
                async with self._told(pod):
                    await self._capture(pod)
        elif captured and not await self._enroller.unenrol(pod.uid):
            self._queue.add_after(key, _DRAIN_CHECK)
        elif pod.said != ("", refused):
            await self._enroller.disown(pod, refused)

    @contextlib.asynccontextmanager
    async def _told(self, pod: Pod) -> AsyncIterator[None]:
        """What keeps a pod from being captured is said on the pod, too."""
        try:
            yield
        except (AmbitError, OSError) as problem:
            reason = problem.message if isinstance(problem, AmbitError) else str(problem)
            if pod.said != (REDIRECTION_PENDING, reason):
                await self._enroller.postponed(pod, reason)
            raise

    async def _capture(self, pod: Pod) -> None:
        known = self._enroller.sandboxes.get(pod.uid)
        if known is not None and known.same_namespace():
            await self._enroller.add(known, pod, started=True)
            return
        _check_kind(pod)
        sandbox, netns = await asyncio.to_thread(self._found, pod)
        ips = tuple(str(address) for address in pod.addresses)
        await self._enroller.add(
            Sandbox(pod.key[0], pod.key[1], pod.uid, sandbox, netns, ips), pod, started=True
        )

    def _found(self, pod: Pod) -> tuple[str, str]:
        if self._kubelet is not None:
            return self._kubelet.find(pod.uid, pod.addresses)
        found = find(self._sandboxes, self._netns, pod.uid, pod.addresses)
        if found is None:
            raise AmbitError(f"no network namespace was found for pod {pod.key[0]}/{pod.key[1]}")
        return found

    async def _pod(self, sandbox: Sandbox) -> Pod:
        """From the copy when it has this uid, else from the server: a new pod may be ahead of the watch."""
        pod = self._pods.items.get(sandbox.key)
        if pod is not None and pod.uid == sandbox.uid:
            return pod
        path = PODS.path(sandbox.namespace, sandbox.name)
        try:
            return pod_decoder.decode(await self._client.raw("GET", path))
        except NotFound:
            raise AmbitError(f"pod {sandbox.namespace}/{sandbox.name} does not exist") from None

    async def _namespace(self, name: str) -> Namespace | None:
        namespace = self._namespaces.items.get(("", name))
        if namespace is not None:
            return namespace
        try:
            return namespace_decoder.decode(await self._client.raw("GET", NAMESPACES.path(None, name)))
        except NotFound:
            return None
        except Unreachable as problem:
            raise AmbitError(f"namespace {name} cannot be read: {problem.message}") from problem


def _check_kind(pod: Pod) -> None:
    """Raises AmbitError for what cannot be captured although its labels ask for it."""
    if pod.static:
        raise AmbitError(
            f"pod {pod.key[0]}/{pod.key[1]} is a static pod, which cannot be captured",
            "label it istio.io/dataplane-mode=none, or run it in a namespace outside the mesh",
        )
