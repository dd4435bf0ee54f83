"""The node agent: its parts, made and joined, from start to SIGTERM.

What was captured in a former life is restored before Envoy can connect, so that Envoy is never told that
something is gone which is only not known yet. Ending the agent leaves Envoy and every capture as they are.
"""

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack

from ambit.agent.authority import Authority
from ambit.agent.binary import envoy_binary
from ambit.agent.certificates import Certificates
from ambit.agent.channel import ControlPlane
from ambit.agent.csr import Certificate
from ambit.agent.envoy_server import EnvoyServer
from ambit.agent.logs import LogServer
from ambit.core.errors import AmbitError, EnvironmentProblem
from ambit.envoy import defaults, names
from ambit.kube.client import Client
from ambit.node.capture import trial
from ambit.node.capture.probes import HostProbes
from ambit.node.cni.chain import PluginSettings
from ambit.node.cni.installer import Installer, is_deleted
from ambit.node.cni.server import CniServer
from ambit.node.configuration.configuration import Configuration
from ambit.node.configuration.secrets import Secrets
from ambit.node.cut import Refused, cut_denied, cut_short, cut_unread
from ambit.node.departure import Departures
from ambit.node.dns.answer import Settings as DnsSettings
from ambit.node.enrol.enroller import Enroller, RuleSettings
from ambit.node.enrol.names import Destination, MeshNames
from ambit.node.enrol.reconciler import Reconciler
from ambit.node.enrol.sandbox import Sandbox
from ambit.node.flows.collector import Collector
from ambit.node.introduction import cluster_ranges, identify
from ambit.node.load_shedding import LoadShedder, memory_of
from ambit.node.netns.kubelet import KubeletPods
from ambit.node.pre_mesh import PreMesh
from ambit.node.settings import AgentSettings, Method
from ambit.node.state import keys
from ambit.node.state.certificates import KeptCertificates
from ambit.node.state.database import StateLost
from ambit.node.state.mesh import MeshState, Stored
from ambit.node.succession import Succession, hold
from ambit.node.supervise.processors import processors
from ambit.node.supervise.spec import EnvoySpec
from ambit.node.supervise.supervisor import Supervisor
from ambit.node.supervise.table import State
from ambit.node.tunnel_renewal import TunnelRenewal
from ambit.node.upstream.subscription import Subscription
from ambit.node.upstream.trust import TrustFollower
from ambit.node.waiting import either, started, unless
from ambit.plan.node import node_proxy
from ambit.plan.values import CLUSTER, LISTENER, ROUTES, SECRET, LocalPod, NodeSettings

_SHARED_MEMORY = "shm"
"""Beside the run directory on Kubernetes: /dev/shm of the node's pods, for Envoys that follow each other."""

_log = logging.getLogger("ambit.node")


class NodeAgent:
    """One node's agent. The parts are attributes for those who show them (`ambit.node.serve`)."""

    def __init__(
        self,
        settings: AgentSettings,
        client: Client,
        locality: tuple[str, str, str],
        write: Callable[[list[str]], None] | None = None,
        services: Collection[str] | None = None,
        *,
        log_as_json: bool = False,
        printed: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self._printed = printed
        self.state = MeshState(settings.state / "mesh.sqlite")
        self.planned = NodeSettings(
            node=settings.node,
            network=settings.network,
            trust_domain=settings.trust_domain,
            trust_domain_aliases=settings.trust_domain_aliases,
            cluster_id=settings.cluster_id,
            region=locality[0],
            zone=locality[1],
            subzone=locality[2],
            same_node_tls=settings.same_node_tls,
            cluster_ranges=cluster_ranges(settings.cluster_ranges, services, self.state),
        )
        control = ControlPlane(
            settings.control,
            settings.root_cert,
            settings.token,
            settings.cluster_id,
            settings.server_name,
            lambda: self.trust.roots,
        )
        self.authority = Authority(control, settings.certificate_lifetime)
        self.subscription = Subscription(control, identify(settings), self.state, self._applied)
        self.certificates = Certificates(self.authority.sign, KeptCertificates(self.state), self._certified)
        self.server = EnvoyServer(settings.run / "xds.sock", self._asked)
        self.logs = LogServer(settings.run / "logs.sock", self._logged, self._lines)
        self.configuration = Configuration(
            self.state,
            self.planned,
            self.server,
            self.subscription.complete.is_set,
            self._generations_noted,
            self.state.keep,
            self.state.kept,
        )
        self.secrets = Secrets(self.server, self.planned.trust_domains, self.certificates.get)
        self.departures = Departures(
            self.state,
            settings.network,
            self.configuration.changed,
            lambda: [self.server.latest(each) for each in (LISTENER, CLUSTER)],
        )
        self.trust = TrustFollower(
            client,
            (settings.pod_namespace, settings.pod_name),
            self.state,
            self.certificates,
            self.secrets.trusted,
            self.secrets.latest,
        )
        self.flows = Collector(
            self.state,
            lambda: self.configuration.table,
            self.planned,
            write,
            lambda client, server: cut_short(client, server, self.configuration.table),
            as_json=log_as_json,
        )
        self.names = MeshNames(
            self.state,
            settings.network,
            settings.resolv_conf,
            DnsSettings(domain=settings.cluster_domain, forward_timeout=settings.dns_timeout),
            self._prepare,
        )
        self.kubelet = (
            KubeletPods(settings.host_proc, settings.namespaces) if settings.host_proc is not None else None
        )
        self.probes = HostProbes(self.kubelet.host) if self.kubelet is not None else None
        self.enroller = Enroller(
            client,
            self.configuration,
            self.secrets,
            self.server,
            self.certificates,
            self.state,
            self.names,
            self.subscription.complete,
            settings.max_drain,
            self.probes,
            RuleSettings(settings.dns_capture, settings.reconcile),
        )
        self.pre_mesh = PreMesh(self.enroller, lambda: tuple(self.configuration.pods), self._cut_denied)
        self.reconciler = Reconciler(
            client,
            settings.node,
            self.enroller,
            sandboxes=settings.sandboxes,
            namespaces=settings.namespaces,
            kubelet=self.kubelet,
            excluded=settings.excluded_namespaces,
        )
        self.supervisor = Supervisor(
            EnvoySpec(
                binary=envoy_binary(),
                bootstrap=settings.run / "bootstrap.pb",
                run=settings.run,
                log=settings.state / "envoy.log",
                concurrency=settings.concurrency or processors(),
                max_drain=settings.max_drain,
                host_proc=settings.host_proc,
            )
        )
        self.load_shedder = LoadShedder(
            lambda: tuple(self.configuration.pods), self._envoys_memory, defaults.HEAP_LIMIT
        )
        self.succession = Succession(settings.run, self._objection)
        self.installer = _installer(settings)
        self._client = client
        self.subscription.completed = self._completed
        self.subscription.stream.on_connected = self.certificates.retry
        self.tunnels = TunnelRenewal(self.certificates, lambda: self.configuration.pods, self._hand_over)
        self.trust.revoked = self.tunnels.note_revoked
        self.certificates.expired = self.tunnels.note_expired
        self.state.lost = self._lost
        self.cut = 0
        """Connections ended because a new policy denies them."""

    async def run(self, stop: asyncio.Event, *beside: Awaitable[None]) -> None:
        """Until `stop` is set or a successor takes over (`succession.granted`); `beside` runs as long. On Kubernetes it
        first asks the agent of the node's former pod for its place. Raises AmbitError when the agent cannot do its
        work."""
        settings = self.settings
        settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(settings.run, 0o700)
        async with AsyncExitStack() as stack:
            lock = await unless(stop, hold(settings.run, succeed=settings.host_proc is not None))
            if lock is None:
                return
            stack.callback(self._let_go, lock)
            stack.callback(self.state.close)
            await stack.enter_async_context(self.succession.offered())
            self._write_bootstrap()
            self.enroller.transparent = await asyncio.to_thread(_is_transparent, settings.capture)
            self.configuration.begin()
            self.trust.restore()
            restored = self.enroller.restore()
            stack.push_async_callback(self.names.close)
            await self.logs.start()
            stack.callback(self.logs.stop)
            await self.server.start()
            stack.push_async_callback(self.server.stop)
            stack.push_async_callback(self.authority.close)
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(each)
                    for each in (
                        self.supervisor.run(),
                        self.subscription.run(),
                        self.certificates.run(),
                        self.pre_mesh.run(),
                        self.trust.run(),
                        self.tunnels.run(),
                        self._end_unread(),
                        self.load_shedder.run(),
                        self._begin_telling(),
                        self.configuration.turnover.run(),
                        self.configuration.moves.detours.run(),
                        self.reconciler.run(),
                        CniServer(
                            settings.run / "cni.sock",
                            self.reconciler.add,
                            self.reconciler.remove,
                            self.departures.left,
                        ).run(),
                        self._readopt(restored),
                        *((self.probes.run(),) if self.probes is not None else ()),
                        *([self.installer.run()] if self.installer is not None else ()),
                        *(started(each) for each in beside),
                    )
                ]
                gc.collect()
                gc.freeze()
                _log.info("the agent of node %s runs", settings.node)
                await either(stop, self.succession.granted)
                # Asked while pods are still watched and served: it may take a while.
                is_over = await unless(self.succession.granted, self._is_uninstalled())
                _log.info("stopping; Envoy goes on")
                for task in running:
                    task.cancel()
            if self.succession.granted.is_set():
                _log.info("the agent of the node's next pod takes over")
            elif is_over:
                await self._uninstall()

    async def _uninstall(self) -> None:
        """Leaves nothing on the node: the plugin last, so that no pod starts half captured. Pods that are captured
        nevertheless (`ambit uninstall --force`) stay cut off, and what is known of them stays for the next agent."""
        settings = self.settings
        _log.info("the mesh is uninstalled: this node is cleared")
        await self.supervisor.end()
        if self.probes is not None:
            with contextlib.suppress(AmbitError):
                await self.probes.remove()
        if await self.enroller.abandon():
            self.state.close()
            for folder in (settings.state, settings.run, settings.run.parent / _SHARED_MEMORY):
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        if self.installer is not None:
            self.installer.uninstall()

    def unready(self) -> list[str]:
        """What is missing before the node can serve new pods; empty when nothing is."""
        missing: list[str] = []
        if self.supervisor.state not in (State.SERVING, State.DRAINING, State.HANDING_OVER):
            missing.append(f"Envoy is {self.supervisor.state}")
        elif self.supervisor.inherited:
            missing.append("the Envoy of the node's former pod is not replaced yet")
        elif not self.server.connected:
            missing.append("Envoy is not connected")
        if not self.subscription.complete.is_set():
            missing.append("no complete answer from the control plane yet")
        if not self.reconciler.is_synced:
            missing.append("pods and namespaces are not known yet")
        if self.installer is not None and self.installer.problem:
            missing.append(self.installer.problem)
        return missing

    async def _is_uninstalled(self) -> bool:
        """Whether no agent comes after this one. Only on Kubernetes; the laptop's instance ends as a whole."""
        settings = self.settings
        if settings.host_proc is None or not settings.pod_name:
            return False
        own = settings.pod_namespace, settings.pod_name
        return await is_deleted(
            self._client, settings.pod_namespace, settings.daemon_set, lambda: self.reconciler.is_ending(own)
        )

    def _objection(self) -> str:
        status = self.supervisor.status
        if self.supervisor.inherited or status.state not in (State.SERVING, State.DRAINING):
            return f"Envoy is {status.state}"
        if status.older is not None:
            held = "" if status.older_connections is None else f" with {status.older_connections} connections"
            return f"an older Envoy{held} is still there"
        return ""

    def _let_go(self, lock: int) -> None:
        """A successor gets the lock when this process has ended: until then libraries may still tidy up sockets that
        it would make anew."""
        if not self.succession.granted.is_set():
            os.close(lock)

    async def _applied(self, stored: Stored) -> str | None:
        concerned = self.configuration.pods_reading(stored.touched)
        self.flows.forget()
        if keys.are_of_policies(stored.touched):
            self.flows.cuts.policies_changed(time.time())
        problem = await (await self.configuration.changed(stored.touched)).settled()
        self.departures.applied()
        if concerned:
            await self._cut_denied(concerned)
        return problem

    async def _cut_denied(self, concerned: Iterable[LocalPod]) -> None:
        table, before = self.configuration.table, self.pre_mesh.of
        ended = await cut_denied(concerned, self.state, table, self.planned, before, self._note_cut)
        self.cut += ended

    async def _end_unread(self) -> None:
        """What was opened before its requests were read ends when Envoy reads; then clients are let in."""
        while True:
            ports, publication = await self.configuration.read_ports.published.get()
            problem = await publication.settled()
            table = self.configuration.table
            self.cut += await cut_unread(ports, table, self.pre_mesh.of, self._note_cut)
            await self._cut_denied(pod for key in ports if (pod := table.by_key(key)) is not None)
            if refused := self.configuration.reads(ports, publication):
                several = ", ".join(refused)
                _log.error(
                    "what came with ports that are to be read of %s stays closed: %s", several, problem
                )

    async def _begin_telling(self) -> None:
        """Requests that are read only to be told of are led to who reads when Envoy has him."""
        while True:
            ports, publication = await self.configuration.told_ports.published.get()
            await publication.settled()
            self.configuration.tells(ports, publication)

    def _envoys_memory(self) -> int:
        status = self.supervisor.status
        return memory_of(each.pid for each in (status.current, status.older) if each is not None)

    def _note_cut(self, refused: Refused) -> None:
        found = refused.connection
        ends = found.client, found.destination, found.destination_port
        self.flows.cuts.note(time.time(), *ends, refused.policy, plain=refused.plain)

    async def _hand_over(self) -> None:
        """A new Envoy takes over, once this one has the newest trust. Raises AmbitError."""
        await self.secrets.latest().settled()
        await self.supervisor.restart()

    def _completed(self) -> None:
        self.configuration.open()

    def _lost(self) -> None:
        """The state file was damaged and is empty now: pods are noted again, the mesh is asked for again."""
        self.flows.forget()
        self.subscription.begin_anew()
        self.enroller.persist()
        self.trust.persist()

    async def _readopt(self, restored: Collection[Sandbox]) -> None:
        for work in (self.enroller.answer, self.enroller.readopt):
            for sandbox in restored:
                try:
                    await work(sandbox)
                except AmbitError as problem:
                    _log.error("%s", problem.message)

    def _generations_noted(self, pod: LocalPod) -> None:
        self.enroller.note_generations(pod)

    def _prepare(self, sandbox: Sandbox, found: Sequence[Destination]) -> Awaitable[object] | None:
        publication = self.configuration.prepare(
            names.pod_key(sandbox.namespace, sandbox.name, sandbox.sandbox), found
        )
        return publication.settled() if publication is not None else None

    def _certified(self, certificate: Certificate) -> None:
        self.trust.certified(certificate)
        self.secrets.certified(certificate)

    def _asked(self, type_url: str, wanted: tuple[str, ...]) -> None:
        if type_url == SECRET:
            self.secrets.asked(wanted)
        elif type_url == CLUSTER:
            self._asked_for_clusters(wanted)
        elif type_url == ROUTES:
            self.configuration.asked_for_tables(wanted)

    def _asked_for_clusters(self, wanted: tuple[str, ...]) -> None:
        try:
            self.configuration.asked(wanted)
        except StateLost as problem:
            _log.error("%s", problem.message)
            self.state.reopen()
            self.configuration.asked(wanted)

    def _logged(self, message: bytes) -> None:
        self.flows.take(message)

    def _lines(self, message: bytes) -> None:
        """Of requests, for those who asked for them. What they are read with is imported then."""
        from ambit.agent.request_lines import printed

        if lines := [*printed(message)]:
            self._printed(lines)

    def _write_bootstrap(self) -> None:
        content = node_proxy.bootstrap(
            self.planned,
            xds_socket=str(self.settings.run / "xds.sock"),
            logs_socket=str(self.settings.run / "logs.sock"),
            admin_socket=str(self.settings.run / "admin.sock"),
        )
        temporary = self.settings.run / "bootstrap.new"
        temporary.write_bytes(content)
        temporary.replace(self.settings.run / "bootstrap.pb")


def _is_transparent(capture: str) -> bool:
    """Whether pods that start are captured without NAT. Raises EnvironmentProblem when they must be and cannot."""
    if capture == Method.NAT:
        return False
    problem = trial.problem()
    if problem and capture == Method.TPROXY:
        raise EnvironmentProblem(
            f"this kernel cannot capture without NAT: {problem}", "use --capture auto, or --capture nat"
        )
    if problem:
        _log.warning("pods are captured by NAT, because this kernel cannot do without: %s", problem)
    return not problem


def _installer(settings: AgentSettings) -> Installer | None:
    if settings.cni_programs is None:
        return None
    names = (*settings.cni_system_namespaces, settings.pod_namespace)
    plugin = PluginSettings(str(settings.run / "cni.sock"), names)
    return Installer(settings.cni_programs, settings.cni_configurations, plugin)
