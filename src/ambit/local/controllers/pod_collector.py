"""Ends pods whose node is gone: nobody else would ever report their end.

A node must have been missing for `QUARANTINE` seconds, so that a cluster that is just starting loses no pod.
"""

import time
from typing import ClassVar

from ambit.kube.errors import Conflict, NotFound
from ambit.kube.reflector import Key
from ambit.kube.resource import NODES, PODS
from ambit.local.controllers.caches import Caches
from ambit.local.controllers.controller import Controller
from ambit.local.controllers.objects import Object, is_deleting, key_of, uid_of

QUARANTINE = 30.0


class PodCollector(Controller):
    """Pods of vanished nodes -> gone."""

    name: ClassVar[str] = "pod-garbage-collector"

    def __init__(self, caches: Caches) -> None:
        super().__init__(caches)
        self._missing_since: dict[str, float] = {}
        self.nodes = self.watch(NODES, lambda node: self._on(node["metadata"]["name"]))
        self.pods = self.watch(PODS, self._suspects)

    def _on(self, node: str) -> list[Key]:
        return [key_of(pod) for pod in self.pods.items.values() if pod["spec"].get("nodeName") == node]

    def _suspects(self, pod: Object) -> list[Key]:
        node = pod["spec"].get("nodeName")
        return [key_of(pod)] if node and ("", node) not in self.nodes.items else []

    async def reconcile(self, key: Key) -> None:
        pod = self.pods.get(key)
        node = pod["spec"].get("nodeName") if pod is not None else None
        if pod is None or not node or ("", node) in self.nodes.items:
            self._missing_since.pop(node or "", None)
            return
        now = time.monotonic()
        left = self._missing_since.setdefault(node, now) + QUARANTINE - now
        if left > 0 and not is_deleting(pod):
            self.queue.add_after(key, left + 0.05)
            return
        try:
            await self.client.delete(PODS, key[1], key[0], grace_period=0, uid=uid_of(pod))
        except (NotFound, Conflict):
            return
