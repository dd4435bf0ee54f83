"""Keeps what the mesh trusts and who signs: follows the operator's Secrets, step by step, once for all replicas.

1. Every replica signs and serves by the state Secret, which it watches; only the leader writes it.
2. Nodes acknowledge on their own pods (`ambit.io/trust`), so every replica sees the answers of all nodes, whichever
   replica they talk to, and so does the next leader. A proxy that does not (a stock ztunnel) is waited for as long as
   a certificate can live.
3. A wish that cannot be fulfilled changes nothing; its problem is logged and shown.
4. A wall clock that jumps starts the waiting anew: it must not make a certificate's life seem to be over.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from cryptography import x509

from ambit.ca.authority import Authority
from ambit.ca.bundle import certificates, fingerprint
from ambit.ca.revocation import ends, lists
from ambit.ca.trust import Phase, Trust, TrustState, Wanted, advance
from ambit.control.identity import roots
from ambit.control.metrics import family
from ambit.control.settings import Settings
from ambit.core.errors import AmbitError
from ambit.core.names import CRL_KEY, ROOT_CERT_KEY, TRUST_CONFIGMAP
from ambit.daemon.logs import event
from ambit.kube.client import Client, Patch
from ambit.kube.errors import AlreadyExists, NotFound
from ambit.kube.informer import Informer
from ambit.kube.resource import CONFIG_MAPS, SECRETS
from ambit.objects.meta import ObjectMeta

log = logging.getLogger("ambit.control.trust")

TICK = 5.0
"""Seconds between looks at the clock."""
JUMP = 30.0
"""Seconds by which the wall clock may differ from the monotonic one between two looks."""

Agents = Callable[[], Mapping[str, str]]
"""Nodes that carry traffic, and the digest of the trust that each has acknowledged (empty: none)."""


class RootView(msgspec.Struct, frozen=True, rename="camel"):
    """One trusted root. `signs`: certificates that are issued now end in it. `ends` is in seconds since 1970."""

    subject: str
    serial_number: str
    fingerprint: str
    signs: bool
    valid_from: str
    expiration_time: str
    ends: float


class TrustStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What `/debug/trust` shows. `behind` are the nodes that have not acknowledged what holds. Times are seconds since
    1970; `latest_end` is when the phase ends without those that are behind."""

    phase: Phase
    since: float
    digest: str
    signer: str
    signer_ends: float
    certificates: tuple[RootView, ...]
    nodes: int
    behind: tuple[str, ...]
    latest_end: float | None
    revoked: int
    revocation_end: float | None
    source: str
    """The Secret that the operator wants to be followed; empty when there is none."""
    signs_from: str
    """The Secret with who signs now; empty when only our own still has it."""
    problem: str


class _Published(msgspec.Struct, frozen=True):
    """The ConfigMap for nodes, as far as we read it."""

    metadata: ObjectMeta
    data: dict[str, str] = {}


class TrustKeeper:
    """One replica's view, and the writer's hand when it leads. `changed` is told after each change of the state."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        state: TrustState,
        agents: Agents,
        *,
        leading: Callable[[], bool],
        clock: Callable[[], float],
        wall: Callable[[], dt.datetime],
        changed: Callable[[], None],
    ) -> None:
        self._client = client
        self._settings = settings
        self._agents = agents
        self._leading = leading
        self._clock = clock
        self._wall = wall
        self._changed = changed
        self._wake = asyncio.Event()
        self._seen = (clock(), wall())
        self.problem = ""
        self._damage: dict[str, str] = {}
        self.state = state
        self.authority = self._authority_of(state)
        self.trust = state.trust()
        self.secrets = {name: self._informer(name) for name in (roots.STATE, roots.PLUGGED_IN, roots.OWN)}
        self.published = Informer(
            client,
            CONFIG_MAPS,
            msgspec.json.Decoder(_Published).decode,
            namespace=settings.system_namespace,
            field_selector=f"metadata.name={TRUST_CONFIGMAP}",
        )
        self.published.subscribe(lambda *_: self.wake())
        self.secrets[roots.STATE].subscribe(self._followed)
        for name in (roots.PLUGGED_IN, roots.OWN):
            self.secrets[name].subscribe(self._source_changed)

    @property
    def informers(self) -> Sequence[Informer[Any]]:
        """What is watched."""
        return (*self.secrets.values(), self.published)

    def signer(self) -> Authority:
        """Who signs now, with the roots that go along."""
        return self.authority

    def wake(self) -> None:
        """Something changed that may let the mesh take a step."""
        self._wake.set()

    async def run(self) -> None:
        """Follow until cancelled. The `informers` must be run beside this."""
        for informer in self.informers:
            await informer.wait_synced()
        while True:
            self._wake.clear()
            try:
                await self._look()
            except AmbitError as problem:
                event(log, logging.WARNING, "the state of the authority cannot be written", reason=problem)
            try:
                async with asyncio.timeout(TICK):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _source_changed(self, kind: str, old: object, new: roots.StoredSecret | None) -> None:
        """Subscriber of the operator's Secrets. Each damage is logged once, by every replica."""
        self.wake()
        if new is None:
            return
        name, damage = new.metadata.name, roots.describe_damage(new)
        if damage and damage != self._damage.get(name):
            where = f"{new.metadata.namespace}/{name}"
            event(log, logging.WARNING, "damaged root", secret=where, key=roots.ROOTS, reason=damage)
        self._damage[name] = damage

    async def _look(self) -> None:
        jumped = self._clock_jumped()
        if not self._leading():
            return
        state = self.state
        if jumped and state.phase is not Phase.STEADY:
            state = msgspec.structs.replace(state, since=self._wall())
        state = self._advanced(state)
        if state != self.state:
            await self._write(msgspec.structs.replace(state, revision=state.revision + 1))
        told = self.published.items.get((self._settings.system_namespace, TRUST_CONFIGMAP))
        if told is None or told.data != trust_data(self.trust):
            await self._publish(self.trust)

    def _advanced(self, state: TrustState) -> TrustState:
        try:
            now = self._wall()
            following = advance(state, self._wanted(state), settled=self._settled(state, now), now=now)
        except AmbitError as problem:
            self._complain(f"{problem.message}; {problem.hint}" if problem.hint else problem.message)
            return state
        self._complain("")
        return following

    def _wanted(self, state: TrustState) -> Wanted:
        """What the operator asks for; when there is no Secret, what is."""
        source = self._source()
        return roots.wanted_of(source) if source is not None else Wanted(state.active, state.revoked)

    def _source(self) -> roots.StoredSecret | None:
        namespace = self._settings.system_namespace
        for name in (roots.PLUGGED_IN, roots.OWN):
            found = self.secrets[name].items.get((namespace, name))
            if found is not None:
                return found
        return None

    def _signs_from(self) -> str:
        namespace = self._settings.system_namespace
        for name in (roots.PLUGGED_IN, roots.OWN):
            found = self.secrets[name].items.get((namespace, name))
            if found is not None and roots.signs_with(found, self.state.active):
                return name
        return ""

    def _settled(self, state: TrustState, now: dt.datetime) -> bool:
        return not self._behind() or now - state.since >= self._settings.leaf_lifetime

    def _behind(self) -> tuple[str, ...]:
        return tuple(sorted(node for node, digest in self._agents().items() if digest != self.trust.digest))

    def _clock_jumped(self) -> bool:
        clock, wall = self._clock(), self._wall()
        before, self._seen = self._seen, (clock, wall)
        return abs((wall - before[1]).total_seconds() - (clock - before[0])) > JUMP

    async def _write(self, state: TrustState) -> None:
        """Only over what this replica knows: another leader may have gone on. Raises ApiError, Unreachable."""
        namespace = self._settings.system_namespace
        value = roots.state_secret(state, namespace)
        try:
            stored = await self._client.get(SECRETS, roots.STATE, namespace)
        except NotFound:
            # Somebody deleted it.
            await self._client.create(SECRETS, value, namespace)
            self._take(state)
            return
        newest = roots.state_of(msgspec.convert(stored, roots.StoredSecret))
        if newest != self.state:
            self._take(newest)
            return
        version = {"resourceVersion": stored["metadata"]["resourceVersion"]}
        value["metadata"] |= version
        await self._client.replace(SECRETS, value, namespace)
        self._take(state)

    async def _publish(self, trust: Trust) -> None:
        """Tell the nodes. Raises ApiError, Unreachable."""
        namespace = self._settings.system_namespace
        data = trust_data(trust)
        try:
            await self._client.patch(
                CONFIG_MAPS, TRUST_CONFIGMAP, {"data": data}, namespace, kind=Patch.MERGE
            )
        except NotFound:
            value = {"metadata": {"name": TRUST_CONFIGMAP, "namespace": namespace}, "data": data}
            try:
                await self._client.create(CONFIG_MAPS, value, namespace)
            except AlreadyExists:
                self.wake()

    def _followed(self, kind: str, old: object, new: roots.StoredSecret | None) -> None:
        """Subscriber of the state Secret."""
        if new is None:
            # Somebody deleted it: what we know is as good, and is written with the next change.
            return
        try:
            state = roots.state_of(new)
        except AmbitError as problem:
            self._complain(problem.message)
            return
        # The watch may be behind what this replica has written itself.
        if state.revision >= self.state.revision:
            self._take(state)

    def _take(self, state: TrustState) -> None:
        if state == self.state:
            return
        if state.phase is not self.state.phase or state.active != self.state.active:
            event(log, logging.INFO, "the authority changes", phase=state.phase, signer=state.trust().signer)
        self.state, self.authority, self.trust = state, self._authority_of(state), state.trust()
        self._changed()
        self.wake()

    def _authority_of(self, state: TrustState) -> Authority:
        return state.active.load().trusting(state.roots, self._settings.leaf_lifetime)

    def _complain(self, problem: str) -> None:
        if problem and problem != self.problem:
            event(log, logging.ERROR, "the authority stays as it is", reason=problem)
        self.problem = problem

    def _informer(self, name: str) -> Informer[roots.StoredSecret]:
        return Informer(
            self._client,
            SECRETS,
            roots.decode_secret,
            namespace=self._settings.system_namespace,
            field_selector=f"metadata.name={name}",
        )

    def metrics(self) -> list[str]:
        """Lines of Prometheus' text form."""
        status = self.status()
        moments = {"signer": status.signer_ends}
        moments |= {f"root-{each.serial_number}": each.ends for each in status.certificates}
        if status.revocation_end is not None:
            moments["revocation-list"] = status.revocation_end
        samples = [((("certificate", name),), moment) for name, moment in moments.items()]
        return [
            *family("ambit_ca_end_timestamp_seconds", "gauge", "When what the authority has ends.", samples),
            *family(
                "ambit_trust_nodes_behind",
                "gauge",
                "Nodes that have not acknowledged the trust that holds.",
                [((), len(status.behind))],
            ),
            *family(
                "ambit_trust_problem",
                "gauge",
                "1 while the operator's Secret cannot be followed.",
                [((), int(bool(status.problem)))],
            ),
        ]

    def status(self) -> TrustStatus:
        state, source = self.state, self._source()
        waiting = state.phase is not Phase.STEADY
        held = lists(state.revoked)
        end = ends(state.revoked)
        return TrustStatus(
            phase=state.phase,
            since=state.since.timestamp(),
            digest=self.trust.digest,
            signer=self.trust.signer,
            signer_ends=self.authority.not_after.timestamp(),
            certificates=tuple(_view(each, self.authority) for each in certificates(state.roots)),
            nodes=len(self._agents()),
            behind=self._behind(),
            latest_end=(state.since + self._settings.leaf_lifetime).timestamp() if waiting else None,
            revoked=sum(len(each) for each in held),
            revocation_end=end.timestamp() if end is not None else None,
            source=source.metadata.name if source is not None else "",
            signs_from=self._signs_from(),
            problem=self.problem,
        )


def _view(root: x509.Certificate, signing: Authority) -> RootView:
    return RootView(
        root.subject.rfc4514_string(),
        str(root.serial_number),
        fingerprint(root),
        signing.ends_in(root),
        f"{root.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        f"{root.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        root.not_valid_after_utc.timestamp(),
    )


def trust_data(trust: Trust) -> dict[str, str]:
    """The ConfigMap's data."""
    return {ROOT_CERT_KEY: trust.roots, CRL_KEY: trust.revoked, "signer": trust.signer}


def acknowledged(agents: Iterable[tuple[str, str]], capturing: Iterable[str]) -> dict[str, str]:
    """What each node has acknowledged, from the node and the annotation of each agent's pod. Of two agents on a node
    (one replaces the other) the one that lags counts; a node that captures and has no agent has acknowledged nothing.
    """
    digests: dict[str, set[str]] = {node: set() for node in capturing}
    for node, digest in agents:
        digests.setdefault(node, set()).add(digest)
    return {node: found.pop() if len(found) == 1 else "" for node, found in digests.items()}
