"""Certificates of an agent's identities: fetched when wanted, renewed at half life, kept while valid.

Rules:
1. A key is made here for each request and leaves only to the agent's Envoy and to where it is kept.
2. A certificate is renewed at half life with jitter, at once after a jump of the wall clock beyond that; a jump in
   either direction also ends back-off, whose times it made meaningless.
3. A failed renewal keeps the valid certificate, and is repeated more often the less of its life is left; an expired one
   is never offered. A control plane that answers again ends back-off.
4. Whoever waits for a certificate is served before renewals and prefetches.
5. A revoked one is replaced at once. When another authority signs, certificates of the former one are renewed within
   minutes.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

import msgspec

from ambit.agent.csr import Certificate, checked, new_key, signing_request
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity

_log = logging.getLogger("ambit.certificates")
_PARALLEL = 8
_CLOCK_CHECK = 5.0
"""Longest sleep, seconds: a laptop that wakes up, or a clock that is set, is noticed after that."""
_FIRST_RETRY = 1.0
_LAST_RETRY = 150.0
"""Back-off per identity (ztunnel `src/identity/manager.rs`)."""
_LEAST_RETRY = 0.5
_JUMP = 10.0
"""Seconds by which the wall clock and the monotonic one may differ between two looks."""
_SPREAD = 1 / 288
"""Part of a certificate's life over which renewals after a change of the authority are spread: 5 minutes of a day."""

Sign = Callable[[Identity, str], Awaitable[list[str]]]
"""Sends a CSR (PEM) to the authority; raises AmbitError when it refuses or cannot be reached."""


class Kept(Protocol):
    """Where certificates survive the agent."""

    def load(self, identity: Identity) -> Certificate | None:
        """The one that is kept, if it can be read."""

    def save(self, certificate: Certificate) -> str:
        """Why it could not be kept; empty when it was."""

    def drop(self, identity: Identity) -> None:
        """Forget it."""


class CertificateState(msgspec.Struct, frozen=True):
    """What `/certs` shows of one identity."""

    identity: Identity
    certificate: Certificate | None
    problem: str
    due: float = 0.0
    """When it will be asked for again, in seconds since 1970."""


class _Entry:
    __slots__ = (
        "certificate",
        "due",
        "failures",
        "noted",
        "problem",
        "running",
        "strays",
        "urgent",
        "waiters",
    )

    def __init__(self) -> None:
        self.certificate: Certificate | None = None
        self.due = 0.0
        self.failures = 0
        self.noted: Certificate | None = None
        """The one whose expiry was reported."""
        self.problem = ""
        self.running = False
        self.strays = 0
        """Certificates in a row that are of another authority than is said to sign."""
        self.urgent = False
        self.waiters: list[asyncio.Future[Certificate]] = []


class Certificates:
    """All identities wanted on this node. `changed` is told of each new certificate."""

    def __init__(
        self,
        sign: Sign,
        kept: Kept,
        changed: Callable[[Certificate], None],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sign = sign
        self._kept = kept
        self._changed = changed
        self._clock = clock
        self._monotonic = monotonic
        self._seen = (clock(), monotonic())
        self._signer = ""
        self.expired: Callable[[Identity], None] = lambda _: None
        """Called once for each certificate that has expired although its renewal was attempted."""
        self._entries: dict[Identity, _Entry] = {}
        self._wake = asyncio.Event()

    def want(self, identity: Identity) -> None:
        """Keeps a certificate for it from now on."""
        if identity in self._entries:
            return
        entry = self._entries[identity] = _Entry()
        stored = self._kept.load(identity)
        if stored is not None and stored.valid(self._clock()):
            entry.certificate = stored
            entry.due = self._renewal(entry, stored)
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
        self._kept.drop(identity)

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
            raise AmbitError(f"nobody here has the identity {identity}")
        waiter: asyncio.Future[Certificate] = asyncio.get_running_loop().create_future()
        entry.waiters.append(waiter)
        entry.urgent = True
        entry.due = 0.0
        self._wake.set()
        try:
            return await waiter
        finally:
            entry.waiters.remove(waiter)

    def retry(self) -> None:
        """Ends back-off: the control plane answers again. Without this an identity whose certificate has expired would
        wait for up to _LAST_RETRY."""
        now = self._clock()
        for entry in self._entries.values():
            if entry.failures:
                entry.failures = 0
                entry.due = min(entry.due, now)
        self._wake.set()

    def follow(self, signer: str) -> None:
        """From now on the authority with this key identifier signs."""
        if signer == self._signer:
            return
        self._signer = signer
        for entry in self._entries.values():
            entry.strays = 0
            if entry.certificate is not None:
                entry.due = min(entry.due, self._renewal(entry, entry.certificate))
        self._wake.set()

    def replace(self, serials: Collection[int]) -> None:
        """Asks anew for those with these serial numbers: they were revoked."""
        for entry in self._entries.values():
            if entry.certificate is not None and entry.certificate.serial in serials:
                entry.due = self._clock()
        self._wake.set()

    @property
    def strays(self) -> list[Identity]:
        """Whose certificates are of another authority than is said to sign."""
        return [
            identity
            for identity, entry in self._entries.items()
            if entry.certificate is not None and self._is_stray(entry.certificate)
        ]

    def states(self) -> list[CertificateState]:
        return [
            CertificateState(identity, entry.certificate, entry.problem, entry.due)
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
                self._notice_expired(now)
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
        entries = self._entries.values()
        ends = [each.certificate.not_after for each in entries if each.certificate is not None]
        dues = [each.due for each in entries if not each.running]
        next_due = min((*dues, *(end for end in ends if end > now)), default=None)
        seconds = _CLOCK_CHECK if next_due is None else min(_CLOCK_CHECK, max(0.0, next_due - now))
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _notice_clock(self, now: float) -> None:
        """After a jump everything is reckoned anew: what is in the future or over is renewed at once."""
        elapsed = self._monotonic()
        (before, then), self._seen = self._seen, (now, elapsed)
        if abs((now - before) - (elapsed - then)) < _JUMP:
            return
        _log.info("the clock jumped by %.0f seconds", (now - before) - (elapsed - then))
        for entry in self._entries.values():
            held = entry.certificate
            entry.failures = 0
            entry.due = self._renewal(entry, held) if held is not None and held.valid(now) else now

    def _notice_expired(self, now: float) -> None:
        for identity, entry in self._entries.items():
            held = entry.certificate
            if held is None or held.not_after > now or not entry.failures or entry.noted is held:
                continue
            entry.noted = held
            _log.warning("the certificate for %s has expired: %s", identity, entry.problem)
            self.expired(identity)

    def _renewal(self, entry: _Entry, certificate: Certificate) -> float:
        """When to renew."""
        now, jitter = self._clock(), random.random()  # noqa: S311 - jitter, not a secret
        if self._is_stray(certificate):
            if entry.strays:
                return now + min(_LAST_RETRY, _FIRST_RETRY * 2.0 ** min(entry.strays - 1, 8))
            return now + (certificate.not_after - certificate.not_before) * _SPREAD * jitter
        return certificate.renew_at(jitter)

    def _is_stray(self, certificate: Certificate) -> bool:
        return bool(self._signer) and certificate.signer != self._signer

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
        now, held = self._clock(), entry.certificate
        delay = min(_LAST_RETRY, _FIRST_RETRY * 2.0 ** min(entry.failures - 1, 8))
        if held is not None and held.valid(now):
            delay = min(delay, max(_LEAST_RETRY, (held.not_after - now) / 8))
        entry.due = now + delay * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
        if text != entry.problem:
            _log.warning("no certificate for %s: %s", identity, text)
        entry.problem = text
        for waiter in entry.waiters:
            if not waiter.done():
                waiter.set_exception(AmbitError(f"no certificate for {identity}: {text}"))

    def _succeeded(self, identity: Identity, entry: _Entry, certificate: Certificate) -> None:
        entry.failures, entry.problem = 0, ""
        entry.certificate = certificate
        entry.strays = entry.strays + 1 if self._is_stray(certificate) else 0
        now = self._clock()
        # One that is past half of its life when it comes: an authority with another clock is not asked without end.
        entry.due = max(self._renewal(entry, certificate), now + min(60.0, (certificate.not_after - now) / 4))
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
        if problem := self._kept.save(certificate):
            _log.warning("the certificate for %s is only in memory: %s", identity, problem)
        self._changed(certificate)
