"""Where one pod lives: its network, the node agent's consent, its volumes, its shim. In that order, and back.

Rules:
1. No shim before the network is attached and, for an enrolled pod, the node agent said yes (fail closed).
2. The network is detached only after every process is dead and the agent let go.
3. What exists already is taken over as it is.
"""

import asyncio
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ambit.core.enrolment import is_enrolled
from ambit.core.errors import AmbitError, Unreachable
from ambit.core.names import REDIRECTION_ANNOTATION, REDIRECTION_ENABLED
from ambit.local.fabric.interface import PodNetwork
from ambit.local.pods import cni, names, plan, sandbox
from ambit.local.pods.host import Host
from ambit.local.pods.ids import user_base
from ambit.local.pods.probes import Target
from ambit.local.pods.sandbox import Owner, ShimClient
from ambit.local.pods.shim.protocol import ContainerState, Mount
from ambit.local.pods.volumes import PodVolumes

log = logging.getLogger(__name__)

_FILES = ("hosts", "resolv.conf", "hostname")
_DEL_TRIES = 5
_DEL_PAUSE = 0.2


class Place:
    """Every step may be repeated. They raise AmbitError or OSError when the kernel, the agent or the API refuses."""

    def __init__(self, host: Host, pod: Mapping[str, Any]) -> None:
        self._host = host
        self.id = plan.sandbox_id(pod)
        self.network: PodNetwork | None = None
        self.shim: ShimClient | None = None
        self._enrolled = False
        self._directory = host.memory(self.id)
        self._disk = host.disk(pod["metadata"]["uid"])
        private = [host.state.root.parent, Path("/run")]  # of all instances
        self._user_base = user_base(pod["metadata"]["uid"])
        self.volumes = PodVolumes(
            host.client, self._directory / "volumes", self._disk, private, self._user_base
        )

    def exists(self) -> bool:
        """Whether anything of it is left from before."""
        return self._directory.exists()

    def runs(self, pod: Mapping[str, Any]) -> bool:
        """Whether this pod's shim is alive."""
        owner = sandbox.read_owner(self._directory)
        return owner is not None and owner.uid == pod["metadata"]["uid"] and sandbox.is_alive(owner)

    async def attach(self, pod: Mapping[str, Any]) -> None:
        node = self._host.nodes[pod["spec"]["nodeName"]]
        if pod["spec"].get("hostNetwork"):
            self.network = PodNetwork(self.id, node.name, node.netns, (node.v4, node.v6))
        else:
            self.network = await self._host.fabric.attach(self.id, node.name)

    async def mount(self, pod: Mapping[str, Any]) -> None:
        """`pod` has its addresses in its status already: the downward API shows them."""
        await self.volumes.refresh(pod)
        await asyncio.to_thread(self._write_names, pod)

    async def start(self, pod: Mapping[str, Any]) -> ShimClient:
        """Take over the shim that runs, or enrol the pod and start one."""
        assert self.network is not None
        metadata = pod["metadata"]
        self._enrolled = is_enrolled(
            self._host.namespace_labels(metadata["namespace"]),
            metadata.get("labels") or {},
            metadata.get("annotations") or {},
            host_network=bool(pod["spec"].get("hostNetwork")),
        )
        if self.runs(pod):
            self.shim = ShimClient(str(self._directory / "shim.sock"))
            return self.shim
        if self._enrolled:
            await self._call_agent("add", pod)
        settings = plan.sandbox_of(
            pod,
            self._directory,
            self.network.netns,
            (self._host.hidden, self._host.readable),
            self._user_base,
        )
        owner = Owner(metadata["namespace"], metadata["name"], metadata["uid"], self.network.node, 0, 0)
        self.shim = await sandbox.launch(self._directory, settings, owner)
        return self.shim

    def target(self, pod: Mapping[str, Any]) -> Target:
        """Where its probes go."""
        assert self.network is not None
        node = self._host.nodes[self.network.node]
        return Target(str(self.network.addresses[0]), node.netns, bool(pod["spec"].get("hostNetwork")))

    def name_mounts(self) -> list[Mount]:
        """/etc/hosts and its like, for every container."""
        directory = self._directory / "names"
        return [
            {"source": str(directory / name), "target": f"/etc/{name}", "read_only": True} for name in _FILES
        ]

    async def states(self) -> list[ContainerState]:
        """What the shim knows of its containers; nothing when it is gone."""
        if self.shim is None:
            return []
        try:
            return await self.shim.state()
        except Unreachable:
            return []

    async def leave(self, pod: Mapping[str, Any]) -> None:
        """Everything dead, then the agent lets go, then the network goes (rule 2)."""
        await sandbox.remove(self._directory)
        self.shim = None
        if self.network is None:
            found = (item for item in await self._host.fabric.attached() if item.sandbox == self.id)
            self.network = next(found, None)
        if self.network is not None and not pod["spec"].get("hostNetwork"):
            annotations = pod["metadata"].get("annotations") or {}
            if self._enrolled or annotations.get(REDIRECTION_ANNOTATION) == REDIRECTION_ENABLED:
                await self._let_go(pod)
            await self._host.fabric.detach(self.id)
        await asyncio.to_thread(shutil.rmtree, self._disk, ignore_errors=True)

    async def _let_go(self, pod: Mapping[str, Any]) -> None:
        """An agent that stays away cannot hold the pod for ever: the namespace goes, which closes its listeners."""
        for attempt in range(_DEL_TRIES):
            try:
                await self._call_agent("del", pod)
            except AmbitError as problem:
                self._host.events.record(pod, "Warning", "FailedKillPod", problem.message)
                await asyncio.sleep(_DEL_PAUSE * 2**attempt)
            else:
                return

    async def _call_agent(self, command: Literal["add", "del"], pod: Mapping[str, Any]) -> None:
        assert self.network is not None
        metadata = pod["metadata"]
        run = self._host.nodes[self.network.node].run
        await cni.call(run, command, metadata["namespace"], metadata["name"], metadata["uid"], self.network)

    async def leave_services(self, pod: Mapping[str, Any], patience: float) -> None:
        """Returns when no proxy of any node sends new connections to the pod, or after `patience` seconds: an agent
        that is away, or a control plane, must not keep a pod from ending."""
        if self.network is None or pod["spec"].get("hostNetwork"):
            return
        network, metadata = self.network, pod["metadata"]
        name = metadata["namespace"], metadata["name"], metadata["uid"]

        async def ask(run: Path) -> None:
            try:
                await cni.call(run, "leave", *name, network, timeout=patience)
            except AmbitError as problem:
                log.debug("not waited for", extra={"pod": self.id, "reason": problem.message})

        await asyncio.gather(*(ask(node.run) for node in self._host.nodes.values()))

    def _write_names(self, pod: Mapping[str, Any]) -> None:
        directory = self._directory / "names"
        directory.mkdir(parents=True, exist_ok=True)
        resolver = Path("/etc/resolv.conf")
        host_file = resolver.read_text() if resolver.exists() else ""
        addresses = [str(address) for address in self.network.addresses] if self.network else []
        contents = (names.hosts_file(pod, addresses), names.resolver_file(pod, host_file))
        for name, text in zip(_FILES, (*contents, names.hostname_of(pod) + "\n"), strict=True):
            (directory / name).write_text(text)
