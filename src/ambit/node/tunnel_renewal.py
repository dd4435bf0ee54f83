"""Ends the use of tunnels whose certificates were revoked or have expired.

1. Tunnels of this node's own pods whose certificates were revoked are cut at once, in both directions.
2. After a revocation, and when a certificate has expired, a new Envoy takes over: it verifies whoever opens a tunnel,
   and the former one opens no connection any more. What else is open there ends by itself, at the latest with the
   drain.
3. Then tunnels of rule 1 are cut again: one may have opened to a node that did not know of the revocation yet.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable

from ambit.agent.certificates import Certificates
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.node.cut import cut_tunnels
from ambit.plan.values import LocalPod

_log = logging.getLogger("ambit.node")
RETRY = 5.0
"""Seconds between attempts to hand over, while a still older Envoy carries connections."""


class TunnelRenewal:
    """`pods` are those of this node; `hand_over` exchanges Envoy once it has the newest trust, or raises AmbitError."""

    def __init__(
        self,
        certificates: Certificates,
        pods: Callable[[], Iterable[LocalPod]],
        hand_over: Callable[[], Awaitable[None]],
    ) -> None:
        self._certificates = certificates
        self._pods = pods
        self._hand_over = hand_over
        self._revoked: set[Identity] = set()
        self._cuts_wanted = asyncio.Event()
        self._doubted = asyncio.Event()

    def note_revoked(self, serials: Collection[int]) -> None:
        """Certificates with these serial numbers were revoked, this node's or others'."""
        self._revoked |= {
            each.identity
            for each in self._certificates.states()
            if each.certificate is not None and each.certificate.serial in serials
        }
        self._cuts_wanted.set()
        self._doubted.set()

    def note_expired(self, _: Identity) -> None:
        """A certificate of this node has expired."""
        self._doubted.set()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cut())
            tasks.create_task(self._renew())

    async def _cut(self) -> None:
        while True:
            await self._cuts_wanted.wait()
            self._cuts_wanted.clear()
            await self._cut_now(self._revoked)

    async def _cut_now(self, revoked: Collection[Identity]) -> None:
        ended = await cut_tunnels([pod for pod in self._pods() if pod.identity in revoked])
        if ended:
            _log.warning("cut %d tunnels of pods whose certificates were revoked", ended)

    async def _renew(self) -> None:
        said = False
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            revoked = set(self._revoked)
            try:
                await self._hand_over()
            except AmbitError as problem:
                _log.log(
                    logging.DEBUG if said else logging.WARNING,
                    "tunnels with revoked or expired certificates are still in use: %s",
                    problem.message,
                )
                said = True
                self._doubted.set()
                await asyncio.sleep(RETRY)
            else:
                await self._cut_now(revoked)
                self._revoked -= revoked
                said = False
                _log.info("tunnels are opened anew: certificates were revoked or have expired")
