"""Leader election by a Lease (coordination.k8s.io): one replica writes, all replicas serve.

Clocks of replicas are not compared: a lease counts as abandoned when this replica has seen it unchanged for its whole
duration (as client-go does).
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable

from ambit.core.errors import AmbitError
from ambit.daemon.logs import event
from ambit.kube.client import Client, Object
from ambit.kube.errors import NotFound
from ambit.kube.resource import LEASES

log = logging.getLogger("ambit.control.leader")

DURATION = 15.0
RENEW = 5.0
GIVE_UP = 10.0
"""Seconds without a successful renewal after which this replica stops to write: before others may begin."""


class Leadership:
    """`clock` is monotonic seconds, `wall` the time of day; `on_start` is called when this replica begins to lead."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        instance: str,
        *,
        clock: Callable[[], float],
        wall: Callable[[], dt.datetime],
        on_start: Callable[[], None],
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._instance = instance
        self._clock = clock
        self._wall = wall
        self._on_start = on_start
        self._renewed: float | None = None
        self._seen: tuple[str, float] | None = None
        self.following = False
        """Whether another replica had the lease when this one looked last."""

    @property
    def leading(self) -> bool:
        return self._renewed is not None and self._clock() - self._renewed < GIVE_UP

    async def run(self) -> None:
        """Campaign and renew until cancelled; then let go of the lease."""
        try:
            while True:
                before = self.leading
                try:
                    # Not wait_for: in Python 3.11 it loses a cancellation that comes as the answer does.
                    async with asyncio.timeout(GIVE_UP / 2):
                        await self.campaign()
                except (AmbitError, TimeoutError) as error:
                    event(log, logging.WARNING, "the leader lease cannot be renewed", reason=error)
                if self.leading and not before:
                    event(log, logging.INFO, "this replica leads", instance=self._instance)
                    self._on_start()
                await asyncio.sleep(RENEW if self.leading else RENEW / 2)
        finally:
            if self.leading:
                async with asyncio.timeout(1.0):
                    await self._resign()

    async def campaign(self) -> None:
        """One attempt to take or renew the lease. Raises ApiError, Unreachable."""
        now = self._clock()
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except NotFound:
            body: Object = {
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": self._spec({}),
            }
            await self._client.create(LEASES, body, self._namespace)
            self._renewed = now
            return
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        version = str(lease["metadata"].get("resourceVersion"))
        self.following = holder not in ("", self._instance)
        if self.following:
            self._renewed = None
            if self._seen is None or self._seen[0] != version:
                self._seen = (version, now)
            if now - self._seen[1] < float(spec.get("leaseDurationSeconds") or DURATION):
                return
        await self._client.replace(LEASES, {**lease, "spec": self._spec(spec)}, self._namespace)
        self.following = False
        self._renewed = now

    async def _resign(self) -> None:
        self._renewed = None
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
            if (lease.get("spec") or {}).get("holderIdentity") == self._instance:
                released = {**lease, "spec": {**lease["spec"], "holderIdentity": ""}}
                await self._client.replace(LEASES, released, self._namespace)
        except AmbitError as error:
            event(log, logging.DEBUG, "the leader lease was not released", reason=error)

    def _spec(self, former: Object) -> Object:
        now = self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = former.get("holderIdentity") == self._instance
        transitions = int(former.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self._instance,
            "leaseDurationSeconds": int(DURATION),
            "acquireTime": former.get("acquireTime") if same else now,
            "renewTime": now,
            "leaseTransitions": transitions if same or not former else transitions + 1,
        }
