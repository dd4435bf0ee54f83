"""Deletes events an hour after they last happened, as Kubernetes' API server does."""

import asyncio
import time
from contextlib import suppress

from ambit.core.errors import AmbitError
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import EVENTS
from ambit.local.controllers.objects import Object, at, key_of

LIFETIME = 3600.0
PERIOD = 300.0
"""Seconds between two rounds."""


def last_seen(event: Object) -> float:
    """When the event last happened, in Unix seconds, by whichever of its fields is filled."""
    series = event.get("series") or {}
    stamps = (
        event["metadata"].get("creationTimestamp"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        series.get("lastObservedTime"),
    )
    return max(at(stamp) for stamp in stamps)


async def expire_events(client: Client, *, period: float = PERIOD) -> None:
    """Keep deleting old events until cancelled."""
    while True:
        with suppress(AmbitError):
            await expire_once(client, time.time())
        await asyncio.sleep(period)


async def expire_once(client: Client, now: float) -> None:
    """Delete the events that are too old at `now` (Unix seconds)."""
    for event in await client.list(EVENTS):
        if last_seen(event) + LIFETIME < now:
            namespace, name = key_of(event)
            with suppress(NotFound):
                await client.delete(EVENTS, name, namespace)
