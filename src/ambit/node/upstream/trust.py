"""What this node trusts: the mesh's ConfigMap `ambit-trust`, followed and acknowledged.

1. Roots and revocation lists go to Envoy at once; certificates of an authority that no longer signs are renewed.
2. The acknowledgement, an annotation on the agent's own pod, is written when Envoy has both. The control plane waits
   for it before it lets go of what this node still needs (`ambit.ca.trust`).
3. The newest trust is kept on disk: a node boots with it while the API server is away.
4. When something is revoked, `revoked` is called: Envoy does not verify open tunnels again.
5. Under a control plane that publishes no such ConfigMap, the roots that came with the newest certificate count.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection

import msgspec

from ambit.agent.certificates import Certificates
from ambit.agent.csr import Certificate
from ambit.agent.publication import Publication
from ambit.ca.bundle import certificates, describe_damage, joined
from ambit.ca.revocation import BadRevocation, revoked_in
from ambit.ca.trust import Trust
from ambit.core.errors import AmbitError
from ambit.core.names import CRL_KEY, ROOT_CERT_KEY, TRUST_ANNOTATION, TRUST_CONFIGMAP
from ambit.kube.client import Client
from ambit.kube.informer import Informer
from ambit.kube.resource import CONFIG_MAPS, PODS
from ambit.node.state.database import StateNotWritten
from ambit.node.state.mesh import MeshState

_log = logging.getLogger("ambit.trust")
_KEPT = "trust"
_FIRST_RETRY, _LAST_RETRY = 0.5, 30.0
"""Seconds between attempts to write the acknowledgement."""


_LOOK = 5.0
"""Longest wait, seconds, between two looks: a certificate that lags may go with its pod."""


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    namespace: str = ""


class _TrustMap(msgspec.Struct, frozen=True):
    """The ConfigMap, as far as we read it."""

    metadata: _Metadata
    data: dict[str, str] = {}


def _revoked(trust: Trust) -> set[tuple[bytes, int]]:
    """Nothing when the lists cannot be read: Envoy says so then."""
    try:
        return revoked_in(trust.revoked)
    except BadRevocation:
        return set()


class TrustFollower:
    """`spread` gives Envoy a bundle (PEM); `settled` awaits Envoy's answer to all secrets and returns its rejection.

    `pod` is the agent's own, as (namespace, name); without a name nothing is acknowledged.
    """

    def __init__(
        self,
        client: Client,
        pod: tuple[str, str],
        state: MeshState,
        certificates: Certificates,
        spread: Callable[[str], Publication],
        settled: Callable[[], Publication],
    ) -> None:
        self._client = client
        self._pod = pod
        self._state = state
        self._certificates = certificates
        self._spread = spread
        self._settled = settled
        self._carried = ""
        self._wake = asyncio.Event()
        self._informer = Informer(
            client,
            CONFIG_MAPS,
            msgspec.json.Decoder(_TrustMap).decode,
            namespace=pod[0],
            field_selector=f"metadata.name={TRUST_CONFIGMAP}",
        )
        self._informer.subscribe(self._changed)
        self.revoked: Callable[[Collection[int]], None] = lambda _: None
        """Called with serial numbers that are revoked now and were not before: open tunnels were not held against
        that."""
        self.trust: Trust | None = None
        self.acknowledged = ""
        """Digest of the trust that was acknowledged last."""
        self.problem = ""

    @property
    def roots(self) -> str:
        """The mesh's roots, for connections to the control plane; empty while they are not known."""
        return self.trust.roots if self.trust is not None else ""

    def restore(self) -> None:
        """Take back what was kept; call before Envoy can connect."""
        kept = self._state.kept(_KEPT)
        if kept is None:
            return
        try:
            self._take(msgspec.json.decode(kept, type=Trust))
        except msgspec.DecodeError as problem:
            _log.warning("the trust that was kept cannot be read: %s", problem)

    def certified(self, certificate: Certificate) -> None:
        """There is a new certificate: its roots count when the mesh's own do not, and it may be the awaited one."""
        self._carried = certificate.roots.decode()
        self._spread(self._bundle())
        self._wake.set()

    async def run(self) -> None:
        """Follow and acknowledge until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._informer.run())
            tasks.create_task(self._acknowledge())

    def _changed(self, kind: str, old: _TrustMap | None, new: _TrustMap | None) -> None:
        """Subscriber of the ConfigMap. When it is deleted, what it said holds on."""
        if new is None:
            return
        data = new.data
        trust = Trust(data.get(ROOT_CERT_KEY, ""), data.get(CRL_KEY, ""), data.get("signer", ""))
        if not certificates(trust.roots) or not trust.signer:
            _log.error("ConfigMap %s/%s names no root or no signer: ignored", self._pod[0], TRUST_CONFIGMAP)
            return
        if trust == self.trust:
            return
        if damage := describe_damage(trust.roots):
            where = f"{self._pod[0]}/{TRUST_CONFIGMAP}"
            _log.warning("ConfigMap %s, %s: %s", where, ROOT_CERT_KEY, damage)
        former = self.trust
        self._take(trust)
        self.persist()
        if former is not None and (more := _revoked(trust) - _revoked(former)):
            self.revoked({serial for _, serial in more})

    def persist(self) -> None:
        """Keep what is trusted, as far as the disk allows."""
        if self.trust is None:
            return
        try:
            self._state.keep(_KEPT, msgspec.json.encode(self.trust))
        except StateNotWritten as problem:
            _log.warning("what is trusted is only in memory: %s", problem.message)

    def _take(self, trust: Trust) -> None:
        self.trust = trust
        _log.info("trust %s: %d roots", trust.digest, len(certificates(trust.roots)))
        self._certificates.follow(trust.signer)
        self._certificates.replace({serial for _, serial in _revoked(trust)})
        self._spread(self._bundle())
        self._wake.set()

    def _bundle(self) -> str:
        """Roots and revocation lists for Envoy. When the certificates have nothing in common with the ConfigMap, it is
        of another mesh than the authority that signs for this node: then both count."""
        if self.trust is None:
            return self._carried
        mesh, carried = certificates(self.trust.roots), certificates(self._carried)
        strange = self._carried if carried and not set(mesh) & set(carried) else ""
        return joined(self.trust.roots) + strange + self.trust.revoked

    async def _acknowledge(self) -> None:
        delay = _FIRST_RETRY
        while self._pod[1]:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._wake.wait()
            self._wake.clear()
            trust = self.trust
            if trust is None or trust.digest == self.acknowledged or self._certificates.strays:
                continue
            self.problem = await self._settled().settled() or ""
            if self.problem:
                _log.error("Envoy rejected what is to be trusted: %s", self.problem)
                continue
            if trust is not self.trust or self._certificates.strays:
                self._wake.set()
                continue
            patch = {"metadata": {"annotations": {TRUST_ANNOTATION: trust.digest}}}
            try:
                await self._client.patch(PODS, self._pod[1], patch, self._pod[0], subresource="status")
            except AmbitError as problem:
                _log.warning("trust %s could not be acknowledged: %s", trust.digest, problem.message)
                await asyncio.sleep(delay)
                delay = min(_LAST_RETRY, delay * 2)
                self._wake.set()
                continue
            delay = _FIRST_RETRY
            self.acknowledged = trust.digest
