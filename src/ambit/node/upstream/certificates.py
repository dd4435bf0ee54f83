"""Certificates of the node's pods: fetched when wanted, renewed at half life, kept while valid.

Rules:
1. A key is made here for each request and leaves only to this node's Envoy and state file.
2. A certificate is renewed at half life with jitter, at once after a jump of the wall clock beyond that.
3. A failed renewal keeps the valid certificate; an expired one is never offered.
4. Whoever waits for a certificate is served before renewals and prefetches.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

import msgspec

from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.node.state.database import StateNotWritten, transaction
from ambit.node.state.mesh import MeshState
from ambit.node.upstream.csr import Certificate, checked, new_key, parsed, signing_request

_log = logging.getLogger("ambit.certificates")
_PARALLEL = 8
_CLOCK_CHECK = 5.0
"""Longest sleep, seconds: a laptop that wakes up, or a clock that is set, is noticed after that."""
_FIRST_RETRY = 1.0
_LAST_RETRY = 150.0
"""Back-off per identity (ztunnel `src/identity/manager.rs`)."""

Sign = Callable[[Identity, str], Awaitable[list[str]]]
"""Sends a CSR (PEM) to the authority; raises AmbitError when it refuses or cannot be reached."""


class CertificateState(msgspec.Struct, frozen=True):
    """What `/certs` shows of one identity."""

    identity: Identity
    certificate: Certificate | None
    problem: str


class _Entry:
    __slots__ = ("certificate", "due", "failures", "problem", "running", "urgent", "waiters")

    def __init__(self) -> None:
        self.certificate: Certificate | None = None
        self.due = 0.0
        self.failures = 0
        self.problem = ""
        self.running = False
        self.urgent = False
        self.waiters: list[asyncio.Future[Certificate]] = []


class Certificates:
    """All identities wanted on this node. `changed` is told of each new certificate."""

    def __init__(
        self,
        sign: Sign,
        state: MeshState,
        changed: Callable[[Certificate], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sign = sign
        self._state = state
        self._changed = changed
        self._clock = clock
        self._entries: dict[Identity, _Entry] = {}
        self._wake = asyncio.Event()

    def want(self, identity: Identity) -> None:
        """Keeps a certificate for it from now on."""
        if identity in self._entries:
            return
        entry = self._entries[identity] = _Entry()
        stored = self._load(identity)
        if stored is not None and stored.valid(self._clock()):
            entry.certificate = stored
            entry.due = stored.renew_at(random.random())  # noqa: S311 - jitter, not a secret
            self._changed(stored)
        self._wake.set()

    def forget(self, identity: Identity) -> None:
        """Drops the key and whoever waits for it."""
        entry = self._entries.pop(identity, None)
        if entry is None:
            return
        for waiter in entry.waiters:
            if not waiter.done():
                waiter.set_exception(AmbitError(f"{identity} is not wanted here any more"))
        with transaction(self._state.database) as database:
            database.execute("DELETE FROM certificate WHERE identity = ?", (identity.uri,))

    def get(self, identity: Identity) -> Certificate | None:
        """The valid certificate of a wanted identity, if there is one."""
        entry = self._entries.get(identity)
        if entry is None or entry.certificate is None or not entry.certificate.valid(self._clock()):
            return None
        return entry.certificate

    async def obtain(self, identity: Identity) -> Certificate:
        """The valid certificate of a wanted identity, when there is one.

        Raises AmbitError with the authority's reason when it refuses, or when the identity is not wanted.
        """
        held = self.get(identity)
        if held is not None:
            return held
        entry = self._entries.get(identity)
        if entry is None:
            raise AmbitError(f"no pod of this node has the identity {identity}")
        waiter: asyncio.Future[Certificate] = asyncio.get_running_loop().create_future()
        entry.waiters.append(waiter)
        entry.urgent = True
        entry.due = 0.0
        self._wake.set()
        try:
            return await waiter
        finally:
            entry.waiters.remove(waiter)

    def states(self) -> list[CertificateState]:
        return [
            CertificateState(identity, entry.certificate, entry.problem)
            for identity, entry in sorted(self._entries.items())
        ]

    async def run(self) -> None:
        """Fetches and renews until cancelled."""
        slots = asyncio.Semaphore(_PARALLEL)
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                now = self._clock()
                self._notice_clock(now)
                for identity in self._due(now):
                    await slots.acquire()
                    entry = self._entries.get(identity)
                    if entry is None or entry.running:
                        slots.release()
                        continue
                    entry.running = True
                    tasks.create_task(self._fetch(identity, entry, slots))
                await self._sleep(now)

    async def _sleep(self, now: float) -> None:
        next_due = min((entry.due for entry in self._entries.values() if not entry.running), default=None)
        seconds = _CLOCK_CHECK if next_due is None else min(_CLOCK_CHECK, max(0.0, next_due - now))
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _notice_clock(self, now: float) -> None:
        """A clock set back makes certificates not yet valid: those are renewed at once."""
        for entry in self._entries.values():
            if entry.certificate is not None and entry.certificate.not_before > now and not entry.failures:
                entry.due = min(entry.due, now)

    def _due(self, now: float) -> list[Identity]:
        due = [
            (not entry.urgent, entry.certificate is not None, entry.due, identity)
            for identity, entry in self._entries.items()
            if not entry.running and entry.due <= now
        ]
        return [each[3] for each in sorted(due)]

    async def _fetch(self, identity: Identity, entry: _Entry, slots: asyncio.Semaphore) -> None:
        key = new_key()
        try:
            answer = await self._sign(identity, signing_request(identity, key))
            certificate = checked(identity, key, answer)
            if not certificate.valid(self._clock()):
                raise ValueError("the certificate is not valid now: is this machine's clock right?")  # noqa: TRY301
        except (AmbitError, ValueError) as problem:
            self._failed(identity, entry, str(problem))
        else:
            self._succeeded(identity, entry, certificate)
        finally:
            entry.running = False
            entry.urgent = any(not waiter.done() for waiter in entry.waiters)
            slots.release()
            self._wake.set()

    def _failed(self, identity: Identity, entry: _Entry, text: str) -> None:
        entry.failures += 1
        delay = min(_LAST_RETRY, _FIRST_RETRY * 2.0 ** min(entry.failures - 1, 8))
        entry.due = self._clock() + delay * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
        if text != entry.problem:
            _log.warning("no certificate for %s: %s", identity, text)
        entry.problem = text
        for waiter in entry.waiters:
            if not waiter.done():
                waiter.set_exception(AmbitError(f"no certificate for {identity}: {text}"))

    def _succeeded(self, identity: Identity, entry: _Entry, certificate: Certificate) -> None:
        entry.failures, entry.problem = 0, ""
        entry.certificate = certificate
        entry.due = certificate.renew_at(random.random())  # noqa: S311 - jitter, not a secret
        _log.info(
            "certificate for %s, valid until %s",
            identity,
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(certificate.not_after)),
        )
        for waiter in entry.waiters:
            if not waiter.done():
                waiter.set_result(certificate)
        if self._entries.get(identity) is not entry:
            return
        try:
            with transaction(self._state.database) as database:
                database.execute(
                    "INSERT OR REPLACE INTO certificate VALUES (?, ?, ?, ?)",
                    (identity.uri, certificate.key, certificate.chain, certificate.roots),
                )
        except StateNotWritten as problem:
            _log.warning("the certificate for %s is only in memory: %s", identity, problem.message)
        self._changed(certificate)

    def _load(self, identity: Identity) -> Certificate | None:
        row = self._state.database.execute(
            "SELECT key, chain, roots FROM certificate WHERE identity = ?", (identity.uri,)
        ).fetchone()
        try:
            return parsed(*row) if row is not None else None
        except ValueError:
            return None
