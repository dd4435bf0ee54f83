"""Takes pods into the mesh and lets them go, one at a time per pod.

Order for a pod that has not started: nothing goes in or out (`block`), certificate, listeners, redirection,
annotation, start. For a running pod: the same without `block`, so nothing is cut. At any failure the pod
stays as it was: blocked when new, outside the mesh when running.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from typing import Protocol

import msgspec

from ambit.agent.certificates import Certificates
from ambit.agent.envoy_server import EnvoyServer
from ambit.agent.publication import Publication
from ambit.core.errors import AmbitError, EnvironmentProblem, Unreachable
from ambit.core.identity import Identity
from ambit.core.names import (
    BYPASS_INBOUND_ANNOTATION,
    HBONE_PORT,
    INBOUND_PLAINTEXT_PORT,
    NOT_CAPTURED_ANNOTATION,
    OUTBOUND_PORT,
    REDIRECTION_ANNOTATION,
    REDIRECTION_ENABLED,
    REDIRECTION_PENDING,
)
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import PODS
from ambit.node import connections
from ambit.node.capture import apply as capture
from ambit.node.capture.probes import HostProbes
from ambit.node.configuration.configuration import Configuration
from ambit.node.configuration.secrets import Secrets
from ambit.node.enrol import choice, virtual
from ambit.node.enrol.listening import wait_listening
from ambit.node.enrol.pods import Pod
from ambit.node.enrol.sandbox import Sandbox, checked
from ambit.node.state.database import StateNotWritten, transaction
from ambit.node.state.mesh import MeshState
from ambit.plan.values import LocalPod

_log = logging.getLogger("ambit.enrol")
KNOWN_BY_ALL = 5.0
"""Seconds for which a pod that leaves takes tunnels at least: until other nodes know, they open them."""
ADD_TIMEOUT = 25.0
"""Seconds; below the pod runner's patience, so that it hears the reason."""
REMOVE_TIMEOUT = 10.0
TELL_TIMEOUT = 2.0
"""Seconds for saying on a pod why it is not captured: nobody waits longer for that than for the reason itself."""
_LISTENERS = frozenset({OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, HBONE_PORT})

_decoder = msgspec.json.Decoder(Sandbox)


class RuleSettings(msgspec.Struct, frozen=True):
    """Whether DNS questions of pods are captured that say nothing about it, and whether an agent that starts looks over
    the rules of the pods that it finds captured."""

    dns: bool = True
    reconcile: bool = True


class PodNames(Protocol):
    """DNS inside pods."""

    async def start(self, sandbox: Sandbox) -> None:
        """Answers in the pod's namespace on port 15053. Raises AmbitError."""

    async def stop(self, uid: str) -> None: ...


class _Turn:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0


class Enroller:
    """All pods of this node that are captured or being captured."""

    def __init__(
        self,
        client: Client,
        configuration: Configuration,
        secrets: Secrets,
        server: EnvoyServer,
        certificates: Certificates,
        state: MeshState,
        dns: PodNames,
        complete: asyncio.Event,
        max_drain: float,
        probes: HostProbes | None = None,
        rules: RuleSettings | None = None,
    ) -> None:
        self._client = client
        self._configuration = configuration
        self._secrets = secrets
        self._server = server
        self._certificates = certificates
        self._state = state
        self._dns = dns
        self._complete = complete
        self._max_drain = max_drain
        self._probes = probes
        self._rules = rules or RuleSettings()
        self._sandboxes: dict[str, Sandbox] = {}
        self._unreviewed = set[str]()
        self._turns: dict[str, _Turn] = {}
        self.transparent = False
        """Whether pods that start are captured without NAT, where that is possible."""
        self.pending, self.started, self.stopped = 0, 0, 0
        """Pods that are being captured now; that were captured and that left, in this life of the agent."""

    @property
    def sandboxes(self) -> dict[str, Sandbox]:
        """Captured pods by uid."""
        return self._sandboxes

    def open_before(self, uid: str) -> tuple[int, ...]:
        """Cookies of a pod's sockets that may be older than its enrolment."""
        sandbox = self._sandboxes.get(uid)
        return sandbox.open_before if sandbox is not None and not sandbox.leaving else ()

    def note_generations(self, pod: LocalPod) -> None:
        """Writes down which generations of destination names the pod has in Envoy. Raises StateNotWritten."""
        sandbox = self._sandboxes.get(pod.uid)
        if sandbox is not None and sandbox.generations != pod.generations:
            self._change(pod.uid, generations=pod.generations)

    def ended_before(self, uid: str, still: Collection[int]) -> None:
        """Of what was open before, only `still` is. Not written down: a cookie never comes back."""
        sandbox = self._sandboxes.get(uid)
        if sandbox is not None:
            left = tuple(each for each in sandbox.open_before if each in still)
            self._sandboxes[uid] = msgspec.structs.replace(sandbox, open_before=left)

    def is_reviewed(self, uid: str) -> bool:
        """Whether this agent has captured the pod itself, or has looked at what it found captured."""
        return uid not in self._unreviewed

    def restore(self) -> list[Sandbox]:
        """Takes back the pods of the agent's former life whose namespaces still exist.

        Call before Envoy can connect: what it is not told of, it removes.
        """
        rows = self._state.database.execute("SELECT uid, value FROM pod").fetchall()
        for uid, value in rows:
            try:
                sandbox = _decoder.decode(value)
            except msgspec.DecodeError:
                continue
            if not sandbox.same_namespace():
                self._forget(uid)
                continue
            self._sandboxes[uid] = sandbox
            self._unreviewed.add(uid)
            pod = self._local(sandbox)
            self._certificates.want(pod.identity)
            self._configuration.add(pod)
            if self._probes is not None:
                self._probes.note(uid, sandbox.addresses, _probed(sandbox))
        return list(self._sandboxes.values())

    async def answer(self, sandbox: Sandbox) -> None:
        """After `restore`: DNS again, of all pods before anything else, because their questions wait. Raises
        AmbitError."""
        async with self._turn(sandbox.uid):
            known = self._sandboxes.get(sandbox.uid)
            if known is not None and known.dns:
                await self._dns.start(known)

    async def readopt(self, sandbox: Sandbox) -> None:
        """After `answer`: the rules read back and compared. Raises AmbitError."""
        async with self._turn(sandbox.uid):
            known = self._sandboxes.get(sandbox.uid)
            if known is None or not self._rules.reconcile:  # it ended or left the mesh meanwhile
                return
            if known.dns != known.captures_dns(self._rules.dns):
                self._change(known.uid, dns=not known.dns)
                await (self._dns.stop(known.uid) if known.dns else self._dns.start(known))
            sandbox = self._sandboxes[sandbox.uid]
            if sandbox.leaving:
                return
            if not await capture.is_redirected(sandbox.netns, sandbox.capture):
                _log.warning("the redirection of pod %s/%s was not as written: repaired", *sandbox.key)
                await capture.redirect(sandbox.netns, sandbox.capture)

    def persist(self) -> None:
        """Notes all captured pods again, in a state file that lost them."""
        for sandbox in list(self._sandboxes.values()):
            self._store(sandbox)

    async def add(self, sandbox: Sandbox, pod: Pod, *, started: bool) -> None:
        """Captures a pod; `started` when its containers may already run. May be repeated.

        Raises AmbitError: then the pod is as it was, and one that has not started must not start.
        """
        async with self._turn(sandbox.uid):
            try:
                async with asyncio.timeout(ADD_TIMEOUT):
                    await self._add(sandbox, pod, started)
            except TimeoutError:
                raise AmbitError(
                    f"pod {sandbox.namespace}/{sandbox.name} could not be captured in {ADD_TIMEOUT:.0f} s: "
                    f"{self._waiting_for(pod)}"
                ) from None

    async def remove(self, uid: str, ending: Sandbox | None = None) -> None:
        """Forgets a pod whose sandbox ends; returns when Envoy has no socket there. May be repeated, also for an
        `ending` sandbox after the pod got a new one, which stays."""
        async with self._turn(uid):
            sandbox = self._sandboxes.get(uid)
            if sandbox is None or (ending is not None and not sandbox.is_also(ending)):
                return
            await self._leave(sandbox, self._configuration.remove)

    async def unenrol(self, uid: str) -> bool:
        """Lets a running pod go: no new connection is captured, and when the open ones have ended (or the
        drain cap has passed) the proxy leaves its namespace. Call again until it returns true."""
        async with self._turn(uid):
            sandbox = self._sandboxes.get(uid)
            if sandbox is None:
                return True
            if not sandbox.leaving:
                await capture.release(sandbox.netns, sandbox.capture)
                self._change(uid, leaving=time.time())
                await self._annotate(sandbox, None)
                return False
            since = time.time() - sandbox.leaving
            if 0 <= since < KNOWN_BY_ALL or (
                since < self._max_drain and await asyncio.to_thread(_busy, self._local(sandbox))
            ):
                return False
            await capture.remove(sandbox.netns, sandbox.capture)
            await self._leave(sandbox, self._configuration.release)
            _log.info("pod %s/%s left the mesh", *sandbox.key)
            return True

    async def abandon(self) -> bool:
        """The mesh is uninstalled and Envoy has ended: pods that were leaving get their traffic back now. True when no
        pod is left captured; those that are stay cut off, since nothing decides about their traffic any more."""
        for sandbox in [each for each in self._sandboxes.values() if each.leaving]:
            try:
                await capture.remove(sandbox.netns, sandbox.capture)
            except EnvironmentProblem as problem:
                _log.warning("the rules of pod %s/%s stay: %s", *sandbox.key, problem.message)
            self._drop(sandbox)
        return not self._sandboxes

    async def disown(self, pod: Pod, reason: str = "") -> None:
        """A pod that is not captured says so, and for what `reason` when it asks for it. An annotation that somebody
        else wrote is taken back: callers would open tunnels to a pod that has no proxy. Raises AmbitError."""
        async with self._turn(pod.uid):
            if pod.uid not in self._sandboxes:
                if pod.annotated:
                    _log.warning("pod %s/%s says that it is captured, but is not: corrected", *pod.key)
                await self._write_annotation(pod.key, pod.uid, None, reason)

    async def postponed(self, pod: Pod, reason: str) -> None:
        """A pod that is to be captured and could not be says why, where it can be told."""
        async with self._turn(pod.uid):
            if pod.uid not in self._sandboxes:
                with contextlib.suppress(AmbitError, TimeoutError):
                    async with asyncio.timeout(TELL_TIMEOUT):
                        await self._write_annotation(pod.key, pod.uid, REDIRECTION_PENDING, reason)

    async def _add(self, sandbox: Sandbox, pod: Pod, started: bool) -> None:
        known = self._sandboxes.get(sandbox.uid)
        if known is not None and known.sandbox == sandbox.sandbox and known.same_namespace():
            if known.leaving:
                known = msgspec.structs.replace(known, spared=known.transparent)
                await capture.redirect(known.netns, known.capture)
                self._change(known.uid, leaving=0.0, spared=known.spared, open_before=await _open_now(known))
            if known.uid in self._unreviewed:
                await self._review(self._sandboxes[known.uid], pod)
            if known.leaving or not pod.annotated:
                await self._annotate(known, REDIRECTION_ENABLED)
            return
        if known is not None:
            await self._leave(known, self._configuration.remove)
        described = _described(sandbox, pod, started)
        described = msgspec.structs.replace(described, dns=described.captures_dns(self._rules.dns))
        sandbox = await asyncio.to_thread(lambda: virtual.without_own(checked(described)))
        kept = asyncio.to_thread(choice.kept, sandbox) if started else self._blocked(sandbox, pod)
        sandbox = await kept
        local = self._local(sandbox)
        self._sandboxes[sandbox.uid] = sandbox
        self.pending += 1
        try:
            self._certificates.want(local.identity)
            await self._certificates.obtain(local.identity)
            await self._complete.wait()
            problem = await self._configuration.add(local).settled()
            if problem is not None:
                raise AmbitError(f"Envoy rejected the listeners: {problem}")  # noqa: TRY301
            await wait_listening(sandbox.netns, _LISTENERS)
            if sandbox.dns:
                await self._dns.start(sandbox)
            if self._probes is not None:
                await self._probes.admit(sandbox.uid, sandbox.addresses, _probed(sandbox))
            await capture.redirect(sandbox.netns, sandbox.capture)
            open_before = await _open_now(sandbox) if started else ()
        except BaseException:
            await self._undo(sandbox)
            raise
        finally:
            self.pending -= 1
        self.started += 1
        self._change(sandbox.uid, open_before=open_before)
        await self._annotate(sandbox, REDIRECTION_ENABLED)
        _log.info("pod %s/%s is in the mesh as %s", *sandbox.key, local.identity)

    async def _blocked(self, sandbox: Sandbox, pod: Pod) -> Sandbox:
        """A pod that has not started: how it is going to be captured. Until then nothing enters or leaves it."""
        if self.transparent:
            sandbox = await asyncio.to_thread(choice.chosen, sandbox, pod)
        await capture.block(sandbox.netns)
        return sandbox

    async def _review(self, sandbox: Sandbox, pod: Pod) -> None:
        """What a pod asks for in other ways than by labels counts from its capture on. A change of it while the pod
        runs waits for the next agent, which finds it here."""
        now = msgspec.structs.replace(_described(sandbox, pod, started=True), interfaces=sandbox.interfaces)
        if now.transparent and not now.inbound:
            _log.warning(
                "pod %s/%s: what reaches it stays captured until it is started anew (%s)",
                *now.key,
                BYPASS_INBOUND_ANNOTATION,
            )
            now = msgspec.structs.replace(now, inbound=True)
        if self._rules.reconcile:
            now = msgspec.structs.replace(now, dns=now.captures_dns(self._rules.dns))
        if now != sandbox:
            if now.dns:
                await self._dns.start(now)
            if self._probes is not None:
                await self._probes.admit(now.uid, now.addresses, _probed(now))
            await capture.redirect(now.netns, now.capture)
            if not now.dns:
                await self._dns.stop(now.uid)
            self._store(now)
            _log.info("pod %s/%s is captured as its annotations say now", *now.key)
        self._unreviewed.discard(now.uid)

    async def _undo(self, sandbox: Sandbox) -> None:
        """Back to before, without waiting for Envoy."""
        self._configuration.release(self._local(sandbox).key)
        await self._dns.stop(sandbox.uid)
        self._drop(sandbox)

    async def _leave(self, sandbox: Sandbox, withdraw: Callable[[str], Publication]) -> None:
        publication = withdraw(self._local(sandbox).key)
        await self._dns.stop(sandbox.uid)
        if self._server.connected:
            try:
                async with asyncio.timeout(REMOVE_TIMEOUT):
                    await publication.settled()
            except TimeoutError:
                raise AmbitError(
                    f"Envoy has not acknowledged that the listeners of {sandbox.namespace}/{sandbox.name} "
                    "are gone"
                ) from None
        self._drop(sandbox)
        self.stopped += 1

    def _drop(self, sandbox: Sandbox) -> None:
        self._sandboxes.pop(sandbox.uid, None)
        self._unreviewed.discard(sandbox.uid)
        if self._probes is not None:
            self._probes.dismiss(sandbox.uid)
        self._forget(sandbox.uid)
        identity = self._local(sandbox).identity
        if not any(self._local(other).identity == identity for other in self._sandboxes.values()):
            self._secrets.uncertified(identity)
            with contextlib.suppress(StateNotWritten):
                self._certificates.forget(identity)

    def _local(self, sandbox: Sandbox) -> LocalPod:
        settings = self._configuration.settings
        return LocalPod(
            uid=sandbox.uid,
            namespace=sandbox.namespace,
            name=sandbox.name,
            sandbox=sandbox.sandbox,
            identity=Identity(settings.trust_domain, sandbox.namespace, sandbox.account or "default"),
            addresses=sandbox.addresses,
            netns=sandbox.netns,
            generations=sandbox.generations,
            transparent=sandbox.transparent,
            within=bool(sandbox.interfaces),
        )

    async def _annotate(self, sandbox: Sandbox, value: str | None) -> None:
        """The pod's redirection annotation tells the truth; a pod that is gone needs none."""
        await self._write_annotation(sandbox.key, sandbox.uid, value)

    async def _write_annotation(
        self, key: tuple[str, str], uid: str, value: str | None, reason: str = ""
    ) -> None:
        annotations = {REDIRECTION_ANNOTATION: value, NOT_CAPTURED_ANNOTATION: reason or None}
        patch = {"metadata": {"uid": uid, "annotations": annotations}}
        try:
            # By way of the status, because who may patch pods themselves may change their images.
            await self._client.patch(PODS, key[1], patch, key[0], subresource="status")
        except NotFound:
            return
        except Unreachable as problem:
            raise AmbitError(f"the redirection annotation was not written: {problem.message}") from problem

    def _change(self, uid: str, **changes: object) -> None:
        self._store(msgspec.structs.replace(self._sandboxes[uid], **changes))

    def _store(self, sandbox: Sandbox) -> None:
        self._sandboxes[sandbox.uid] = sandbox
        with transaction(self._state.database) as database:
            database.execute(
                "INSERT OR REPLACE INTO pod VALUES (?, ?)", (sandbox.uid, msgspec.json.encode(sandbox))
            )

    def _forget(self, uid: str) -> None:
        with contextlib.suppress(StateNotWritten), transaction(self._state.database) as database:
            database.execute("DELETE FROM pod WHERE uid = ?", (uid,))

    @contextlib.asynccontextmanager
    async def _turn(self, uid: str) -> AsyncIterator[None]:
        """One at a time for each pod. The lock is forgotten with the last who wants it, and no sooner: whoever comes
        then must not get another one."""
        turn = self._turns.setdefault(uid, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[uid]

    def _waiting_for(self, pod: Pod) -> str:
        return "; ".join(self._reasons(pod)) or "Envoy has not opened its listeners"

    def _reasons(self, pod: Pod) -> Iterator[str]:
        identity = pod.identity(self._configuration.settings.trust_domain)
        for each in self._certificates.states():
            if each.identity == identity and each.problem:
                yield each.problem
        if not self._complete.is_set():
            yield "the control plane has not sent policies and workloads yet"
        if not self._server.connected:
            yield "Envoy is not connected"


def _described(sandbox: Sandbox, pod: Pod, started: bool) -> Sandbox:
    """With what only the API knows. Raises AmbitError when the pod runner speaks of another pod.

    The API may still show the addresses of a former sandbox while a new one is set up.
    """
    if pod.uid != sandbox.uid or pod.key != sandbox.key:
        raise AmbitError(f"pod {sandbox.namespace}/{sandbox.name} has the uid {pod.uid}, not {sandbox.uid}")
    if started and pod.addresses and not set(pod.addresses) <= set(sandbox.addresses):
        raise AmbitError(f"pod {sandbox.namespace}/{sandbox.name} has other addresses than its sandbox")
    return msgspec.structs.replace(
        sandbox,
        account=pod.spec.service_account_name,
        dns_wish=pod.dns_wish,
        dns_policy=pod.spec.dns_policy,
        nameservers=pod.spec.dns_config.nameservers,
        searches=pod.spec.dns_config.searches,
        inbound=pod.captures_inbound,
        interfaces=pod.virtual_interfaces,
        probe_ports=pod.probe_ports,
    )


def _probed(sandbox: Sandbox) -> tuple[int, ...]:
    """Ports that need the host's help: none when inbound traffic passes the proxy by anyway."""
    return sandbox.probe_ports if sandbox.inbound else ()


async def _open_now(sandbox: Sandbox) -> tuple[int, ...]:
    """What is open at this moment, after the redirection: whatever is new since has the proxy at its other end."""
    try:
        return await asyncio.to_thread(connections.cookies, sandbox.netns, sandbox.addresses)
    except OSError as problem:
        _log.warning("what pod %s/%s has open is not known: %s", *sandbox.key, problem.strerror or problem)
        return ()


def _busy(pod: LocalPod) -> bool:
    """Whether the proxy still carries connections of the pod."""
    try:
        open_now = connections.look(pod)
        return bool(open_now.delivered or open_now.plaintext or connections.accepted_outbound(pod.netns))
    except (OSError, AmbitError):
        return False
