"""What the certificate rules need to know of pods: an index over the pod informer, and live lookups behind it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from ambit.ca.issuance import PodFacts
from ambit.core.names import (
    DATAPLANE_MODE_AMBIENT,
    DATAPLANE_MODE_LABEL,
    DATAPLANE_MODE_NONE,
    REDIRECTION_ANNOTATION,
    REDIRECTION_ENABLED,
    SIDECAR_ANNOTATION,
    TRUST_ANNOTATION,
)
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import NAMESPACES, PODS
from ambit.objects.kube import Namespace, Pod

PodEntry = tuple[str, str]


def is_enrolled(pod: Pod, namespace_labels: Mapping[str, str]) -> bool:
    """Whether the mesh captures this pod, or is about to: certificates are asked for before capture begins."""
    if pod.spec.host_network or SIDECAR_ANNOTATION in pod.metadata.annotations:
        return False
    if pod.metadata.annotations.get(REDIRECTION_ANNOTATION) == REDIRECTION_ENABLED:
        return True
    mode = pod.metadata.labels.get(DATAPLANE_MODE_LABEL)
    if mode == DATAPLANE_MODE_NONE:
        return False
    return DATAPLANE_MODE_AMBIENT in (mode, namespace_labels.get(DATAPLANE_MODE_LABEL))


def facts_of(pod: Pod, namespace_labels: Mapping[str, str]) -> PodFacts:
    return PodFacts(
        namespace=pod.metadata.namespace,
        service_account=pod.service_account,
        node=pod.spec.node_name,
        uid=pod.metadata.uid,
        finished=pod.finished,
        enrolled=is_enrolled(pod, namespace_labels),
    )


class PodIndex:
    """Pods as watched, by service account; `live_*` ask the API server instead.

    `pods` and `namespaces` are live views of the informers, keyed by (namespace, name).
    """

    def __init__(
        self, client: Client, pods: Mapping[PodEntry, Pod], namespaces: Mapping[PodEntry, Namespace]
    ) -> None:
        self._client = client
        self._pods = pods
        self._namespaces = namespaces
        self._accounts: dict[tuple[str, str], set[PodEntry]] = {}
        self._captured: Counter[str] = Counter()
        self.on_nodes: Callable[[], None] = lambda: None
        """Called when a node has its first captured pod, or none any more."""

    @property
    def capturing_nodes(self) -> Collection[str]:
        """Nodes that carry traffic of captured pods, so every policy must reach them."""
        return self._captured.keys()

    def trusts(self, accounts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Node and acknowledged trust (empty: none) of each pod with these accounts that has not ended."""
        pods = (self._pods.get(entry) for account in accounts for entry in self._accounts.get(account, ()))
        return [
            (pod.spec.node_name, pod.metadata.annotations.get(TRUST_ANNOTATION, ""))
            for pod in pods
            if pod is not None and pod.spec.node_name and not pod.finished
        ]

    def update(self, kind: str, old: Pod | None, new: Pod | None) -> None:
        """Subscriber of the pod informer."""
        self._count(old, new)
        for pod in (old, new):
            if pod is None:
                continue
            account = (pod.metadata.namespace, pod.service_account)
            entry = (pod.metadata.namespace, pod.metadata.name)
            if pod is new:
                self._accounts.setdefault(account, set()).add(entry)
            elif (members := self._accounts.get(account)) is not None:
                members.discard(entry)
                if not members:
                    del self._accounts[account]

    def _count(self, old: Pod | None, new: Pod | None) -> None:
        before, now = _capturing_node(old), _capturing_node(new)
        if before == now:
            return
        nodes = len(self._captured)
        if now:
            self._captured[now] += 1
        if before:
            self._captured[before] -= 1
            if not self._captured[before]:
                del self._captured[before]
        if len(self._captured) != nodes or (before and now):
            self.on_nodes()

    def pod(self, namespace: str, name: str) -> PodFacts | None:
        """One pod as watched."""
        pod = self._pods.get((namespace, name))
        return facts_of(pod, self._labels(namespace)) if pod is not None else None

    def of_account(self, namespace: str, account: str) -> list[PodFacts]:
        """All pods of a service account as watched."""
        entries = self._accounts.get((namespace, account), ())
        return [facts for entry in entries if (facts := self.pod(*entry)) is not None]

    async def live_pod(self, namespace: str, name: str) -> PodFacts | None:
        """One pod, asked for now. Raises ApiError or Unreachable."""
        try:
            found = await self._client.get(PODS, name, namespace)
        except NotFound:
            return None
        return facts_of(_pod(found), await self._live_labels(namespace))

    async def live_of_node(self, namespace: str, node: str) -> list[PodFacts]:
        """The pods of one namespace on one node, asked for now. Raises ApiError or Unreachable."""
        found = await self._client.list(PODS, namespace, field_selector=f"spec.nodeName={node}")
        if not found:
            return []
        labels = await self._live_labels(namespace)
        return [facts_of(_pod(each), labels) for each in found]

    def _labels(self, namespace: str) -> Mapping[str, str]:
        found = self._namespaces.get(("", namespace))
        return found.metadata.labels if found is not None else {}

    async def _live_labels(self, namespace: str) -> Mapping[str, str]:
        try:
            found = await self._client.get(NAMESPACES, namespace)
        except NotFound:
            return {}
        labels: Mapping[str, str] = (found.get("metadata") or {}).get("labels") or {}
        return labels


def _capturing_node(pod: Pod | None) -> str:
    """Where this pod is captured; empty when it is not, or has ended."""
    if pod is None or pod.finished:
        return ""
    enabled = pod.metadata.annotations.get(REDIRECTION_ANNOTATION) == REDIRECTION_ENABLED
    return pod.spec.node_name if enabled else ""


def _pod(value: Any) -> Pod:
    return msgspec.convert(value, Pod)
