"""What the server does by itself, every minute: Events older than an hour go (as with etcd's lease on them)."""

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ambit.local.apiserver import clock
from ambit.local.apiserver.failures import ApiFailure
from ambit.local.apiserver.storage.store import Entry, Store

log = logging.getLogger(__name__)

EVENT_LIFE = timedelta(hours=1)
_PERIOD_SECONDS = 60.0


def outdated(entries: Iterable[Entry], now: datetime) -> list[Entry]:
    """Events last seen more than an hour ago."""
    found = []
    for entry in entries:
        body = entry.decode()
        series = body.get("series") or {}
        stamps = (
            body.get("lastTimestamp"),
            series.get("lastObservedTime"),
            body.get("eventTime"),
            body["metadata"].get("creationTimestamp"),
        )
        try:
            seen = max(clock.parse(stamp) for stamp in stamps if stamp)
        except ValueError:
            continue
        if now - seen > EVENT_LIFE:
            found.append(entry)
    return found


async def run(store: Store) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(_PERIOD_SECONDS)
        try:
            for entry in outdated(store.select("events"), datetime.now(UTC)):
                store.delete("events", entry.namespace, entry.name)
        except ApiFailure as failure:
            log.warning("old events stay for now: %s", failure)
