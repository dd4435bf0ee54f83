"""Events as kubelet writes them, so that `kubectl describe pod` tells the story. Losing one is no error."""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from ambit.core.errors import AmbitError
from ambit.kube import resource as kinds
from ambit.kube.client import Client

log = logging.getLogger(__name__)

_QUEUE = 1000
_REMEMBERED = 2000


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class EventRecorder:
    """`record` never waits; `run` writes. The same event about the same thing is counted, not repeated."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: asyncio.Queue[tuple[tuple[str, ...], dict[str, Any]]] = asyncio.Queue(_QUEUE)
        self._known: OrderedDict[tuple[str, ...], tuple[str, int]] = OrderedDict()

    def record(
        self,
        pod: Mapping[str, Any],
        kind: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        container: str = "",
    ) -> None:
        metadata = pod["metadata"]
        involved = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        if container:
            involved["fieldPath"] = container
        key = (metadata["uid"], kind, reason, message, container)
        event = {
            "metadata": {
                "namespace": metadata["namespace"],
                "name": f"{metadata['name']}.{time.time_ns():016x}",
            },
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet", "host": pod["spec"].get("nodeName", "")},
            "reportingComponent": "kubelet",
            "reportingInstance": pod["spec"].get("nodeName", ""),
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait((key, event))

    async def run(self) -> None:
        while True:
            key, event = await self._queue.get()
            try:
                await self._write(key, event)
            except AmbitError as problem:
                log.debug("event lost", extra={"reason": event["reason"], "error": problem.message})

    async def _write(self, key: tuple[str, ...], event: dict[str, Any]) -> None:
        known = self._known.get(key)
        namespace = event["metadata"]["namespace"]
        if known is None:
            await self._client.create(kinds.EVENTS, event, namespace)
            self._known[key] = (event["metadata"]["name"], 1)
        else:
            name, count = known
            patch = {"count": count + 1, "lastTimestamp": event["lastTimestamp"]}
            self._known.pop(key)
            await self._client.patch(kinds.EVENTS, name, patch, namespace)
            self._known[key] = (name, count + 1)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
