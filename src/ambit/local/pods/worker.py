"""One pod from its binding to a node until it is gone from the API. One task for each pod; level-based.

    sandbox (network, CNI, shim) ─> init containers in order ─> containers, restarted by policy
    ─> termination ─> removal

Rules:
1. Nothing starts before the network is attached and, for an enrolled pod, the node agent said yes (fail
   closed).
2. The network is detached only after every process is dead and the agent let go.
3. A restarted cluster process adopts the sandbox and its containers as they are.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from ambit.core.enrolment import is_enrolled
from ambit.core.errors import AmbitError, Unreachable
from ambit.core.names import REDIRECTION_ANNOTATION, REDIRECTION_ENABLED
from ambit.kube import resource as kinds
from ambit.kube.errors import ApiError, Conflict, NotFound
from ambit.local.fabric.interface import PodNetwork
from ambit.local.pods import cni, names, plan, sandbox
from ambit.local.pods.containers import Containers
from ambit.local.pods.environment import MissingReference
from ambit.local.pods.events import now
from ambit.local.pods.host import Host
from ambit.local.pods.probes import Target
from ambit.local.pods.sandbox import Owner, ShimClient
from ambit.local.pods.shim.protocol import ContainerState, Mount
from ambit.local.pods.status import TERMINAL, Facts, Slot, phase_of, status_of
from ambit.local.pods.volumes import PodVolumes

log = logging.getLogger(__name__)

_RETRY_FIRST = 0.2
_RETRY_LONGEST = 10.0
_CNI_DEL_TRIES = 5
_LEAST_GRACE = 2.0
"""What a sidecar still gets after its containers used up the pod's grace (kubelet's minimum), in seconds."""
_DEADLINE = "DeadlineExceeded"
_SANDBOX_LOST = "Pod sandbox changed, it will be killed and re-created."


class _Deleted(Exception):
    """The pod is to end although its sandbox was never finished."""


class PodWorker:
    """`update` brings the newest object; `run` returns when the pod is gone from the API."""

    def __init__(self, host: Host, pod: Mapping[str, Any]) -> None:
        self._host = host
        self.pod = pod
        self.id = plan.sandbox_id(pod)
        self.slots = plan.slots_of(pod)
        self.shim: ShimClient | None = None
        self.containers: Containers | None = None
        self.network: PodNetwork | None = None
        self._gone = False
        self._wake = asyncio.Event()
        self._stale = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._enrolled = False
        self._reason = ("", "")
        self._start_time = now()
        self._sandbox_ready = False
        self._written: dict[str, Any] | None = None
        self._directory = host.memory(self.id)
        self._disk = host.disk(pod["metadata"]["uid"])
        private = [host.state.root.parent, Path("/run")]  # of all instances
        self._volumes = PodVolumes(host.client, self._directory / "volumes", self._disk, private)

    def update(self, pod: Mapping[str, Any] | None) -> None:
        """The object as it is now; None when it is gone from the API (deleted by force)."""
        if pod is None:
            self._gone = True
        else:
            if _shown_labels(pod) != _shown_labels(self.pod):
                self._stale.set()
            self.pod = pod
        self._wake.set()

    def poke(self) -> None:
        """Something the pod may wait for has changed: a ConfigMap, a Secret, the image map."""
        self._stale.set()
        for slot in self.slots:
            if slot.waiting is not None and slot.waiting[0] != "CrashLoopBackOff":
                slot.due = 0.0
        self._wake.set()

    async def run(self) -> None:
        if self._finished() and not self._directory.exists():
            await self._until_deleted()
        else:
            try:
                await self._live()
            except _Deleted:
                log.debug("pod deleted before it started", extra={"pod": self.id})
            await self._clean()
            if not self._ending():
                await self._until_deleted()
        await self._remove()

    def _ending(self) -> bool:
        return self._gone or "deletionTimestamp" in self.pod["metadata"]

    def _finished(self) -> bool:
        return (self.pod.get("status") or {}).get("phase") in TERMINAL

    async def _until_deleted(self) -> None:
        while not self._ending():
            await self._sleep(None)
        shutil.rmtree(self._disk, ignore_errors=True)

    async def _sleep(self, seconds: float | None) -> None:
        """Until poked, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _retried(self, reason: str, action: Callable[[], Awaitable[None]]) -> None:
        """Repeat `action` until it works. Raises _Deleted when the pod ends first.

        A pod that already runs is taken over even when it is ending, so that its grace goes on.
        """
        pause = _RETRY_FIRST
        while not self._ending() or self._runs():
            try:
                await action()
            except (AmbitError, OSError) as problem:
                text = problem.message if isinstance(problem, AmbitError) else str(problem)
                self._host.events.record(self.pod, "Warning", reason, text)
            else:
                return
            if self._ending():
                break
            await self._write_status()
            await self._sleep(pause)
            pause = min(pause * 2, _RETRY_LONGEST)
        raise _Deleted

    def _runs(self) -> bool:
        owner = sandbox.read_owner(self._directory)
        return owner is not None and owner.uid == self.pod["metadata"]["uid"] and sandbox.is_alive(owner)

    async def _live(self) -> None:
        await self._retried("FailedCreatePodSandBox", self._attach)
        await self._retried("FailedMount", self._mount)
        await self._retried("FailedCreatePodSandBox", self._start_sandbox)
        assert self.shim is not None
        assert self.containers is not None
        self._sandbox_ready = True
        async with asyncio.TaskGroup() as group:
            self._spawn(group, self._follow(self.shim))
            self._spawn(group, self._refresh())
            await self._adopt(group)
            while not self._ending() and not self._reason[0]:
                pause = await self._step(group)
                await self._write_status()
                if phase_of(self.slots, self._policy()) in TERMINAL:
                    break
                await self._sleep(pause)
            await self._terminate()
            self._take(await self._last_states())
            for task in self._tasks:
                task.cancel()
            for slot in self.slots:
                self.containers.forget_probes(slot.name)
        await self._write_status()

    def _spawn(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _policy(self) -> str:
        return str(self.pod["spec"].get("restartPolicy") or "Always")

    async def _attach(self) -> None:
        node = self._host.nodes[self.pod["spec"]["nodeName"]]
        if self.pod["spec"].get("hostNetwork"):
            addresses = (node.v4, node.v6)
            self.network = PodNetwork(self.id, node.name, node.netns, addresses)
        else:
            self.network = await self._host.fabric.attach(self.id, node.name)

    async def _mount(self) -> None:
        self.pod = {**self.pod, "status": {**(self.pod.get("status") or {}), **self._address_fields()}}
        await self._volumes.refresh(self.pod)
        await asyncio.to_thread(self._write_names)

    def _address_fields(self) -> dict[str, Any]:
        """The downward API shows addresses before the status that carries them was written."""
        status = status_of(self.pod, self.slots, self._facts())
        return {key: status[key] for key in ("hostIP", "hostIPs", "podIP", "podIPs")}

    def _write_names(self) -> None:
        directory = self._directory / "names"
        directory.mkdir(parents=True, exist_ok=True)
        resolver = Path("/etc/resolv.conf")
        host_file = resolver.read_text() if resolver.exists() else ""
        addresses = [str(address) for address in self.network.addresses] if self.network else []
        (directory / "hosts").write_text(names.hosts_file(self.pod, addresses))
        (directory / "resolv.conf").write_text(names.resolver_file(self.pod, host_file))
        (directory / "hostname").write_text(names.hostname_of(self.pod) + "\n")

    def _name_mounts(self) -> list[Mount]:
        directory = self._directory / "names"
        return [
            {"source": str(directory / name), "target": f"/etc/{name}", "read_only": True}
            for name in ("hosts", "resolv.conf", "hostname")
        ]

    async def _start_sandbox(self) -> None:
        """Adopt the shim that runs, or enrol the pod and start one."""
        assert self.network is not None
        metadata = self.pod["metadata"]
        self._enrolled = is_enrolled(
            self._host.namespace_labels(metadata["namespace"]),
            metadata.get("labels") or {},
            host_network=bool(self.pod["spec"].get("hostNetwork")),
        )
        if self._runs():
            self.shim = ShimClient(str(self._directory / "shim.sock"))
        else:
            if self._enrolled:
                await self._call_agent("add")
            settings = plan.sandbox_of(
                self.pod, self._directory, self.network.netns, self._host.hidden, self._host.readable
            )
            new = Owner(metadata["namespace"], metadata["name"], metadata["uid"], self.network.node, 0, 0)
            self.shim = await sandbox.launch(self._directory, settings, new)
        node = self._host.nodes[self.network.node]
        host_network = bool(self.pod["spec"].get("hostNetwork"))
        target = Target(str(self.network.addresses[0]), node.netns, host_network)
        self.containers = Containers(self._host, self.shim, self._volumes, target, self._wake.set)

    async def _call_agent(self, command: str) -> None:
        assert self.network is not None
        metadata = self.pod["metadata"]
        await cni.call(
            self._host.nodes[self.network.node].run,
            "add" if command == "add" else "del",
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
            self.network,
        )

    async def _adopt(self, group: asyncio.TaskGroup) -> None:
        assert self.shim is not None
        assert self.containers is not None
        for state in await self.shim.state():
            slot = self._slot(state["name"])
            if slot is not None:
                self.containers.adopt(slot, state, self.pod, group)

    def _slot(self, name: str) -> Slot | None:
        return next((slot for slot in self.slots if slot.name == name), None)

    async def _follow(self, shim: ShimClient) -> None:
        """Take in what the shim reports. A shim that died took all its processes along: the pod starts anew."""
        try:
            async with aclosing(shim.watch()) as changes:
                async for states in changes:
                    self._take(states)
        except Unreachable:
            if self._ending():
                return
            self._host.events.record(
                self.pod, "Warning", "SandboxChanged", "Pod sandbox changed, it will be re-created"
            )
            for slot in self.slots:
                if slot.current is not None and slot.running:
                    lost: ContainerState = {
                        **slot.current,
                        "finished": time.time(),
                        "exit_code": 137,
                        "signal": 9,
                    }
                    self._take([lost])
            self._sandbox_ready = False
            self._wake.set()

    def _take(self, states: list[ContainerState]) -> None:
        assert self.containers is not None
        for state in states:
            slot = self._slot(state["name"])
            if slot is not None:
                self.containers.update(slot, state, self.pod)
        self._wake.set()

    async def _refresh(self) -> None:
        """Keep volumes fresh: at each poke, and when a token is due."""
        while True:
            try:
                await self._volumes.refresh(self.pod)
                pause = self._volumes.renewal()
            except MissingReference as problem:
                log.debug("volume keeps its last content", extra={"pod": self.id, "reason": problem.message})
                pause = _RETRY_LONGEST
            except (AmbitError, OSError) as problem:
                log.warning("volumes of %s not refreshed: %s", self.id, problem)
                pause = _RETRY_LONGEST
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stale.wait()
            self._stale.clear()

    async def _step(self, group: asyncio.TaskGroup) -> float | None:
        """Start what is due. Returns seconds until something is due, None for nothing."""
        if not self._sandbox_ready:
            try:
                await self._retried("FailedCreatePodSandBox", self._start_sandbox)
            except _Deleted:
                return None
            assert self.shim is not None
            self._sandbox_ready = True
            self._spawn(group, self._follow(self.shim))
            for slot in self.slots:
                slot.due = 0.0
        pauses: list[float] = []
        for slot in self.slots:
            if slot.kind == "main":
                break
            if slot.kind == "sidecar":
                await self._ensure(slot, group, pauses)
                if not slot.started:
                    return self._shortest(pauses)
            elif not slot.succeeded:
                await self._ensure(slot, group, pauses)
                return self._shortest(pauses)
        for slot in self.slots:
            if slot.kind == "main":
                await self._ensure(slot, group, pauses)
        started = self.pod["spec"].get("activeDeadlineSeconds")
        if started is not None:
            pauses.append(self._check_deadline(float(started)))
        return self._shortest(pauses)

    def _check_deadline(self, seconds: float) -> float:
        first = min((slot.current["started"] for slot in self.slots if slot.current), default=time.time())
        left = first + seconds - time.time()
        if left <= 0:
            self._reason = (_DEADLINE, "Pod was active on the node longer than the specified deadline")
        return max(left, 0.0)

    @staticmethod
    def _shortest(pauses: list[float]) -> float | None:
        return min(pauses) if pauses else None

    async def _ensure(self, slot: Slot, group: asyncio.TaskGroup, pauses: list[float]) -> None:
        assert self.containers is not None
        if slot.running or slot.finished_for_good:
            return
        left = slot.due - time.monotonic()
        if left > 0:
            pauses.append(left)
            return
        try:
            runs = await self.containers.start(self.pod, slot, self._name_mounts())
        except Unreachable:
            pauses.append(_RETRY_FIRST)
            return
        if runs:
            self.containers.watch(self.pod, slot, group)
            self._spawn(group, self.containers.after_start(self.pod, slot))
        else:
            pauses.append(max(slot.due - time.monotonic(), 0.0))

    async def _terminate(self) -> None:
        """Containers get the grace of the deletion; sidecars end after the containers they serve."""
        assert self.containers is not None
        self.containers.stopping = True
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        grace = metadata.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
        seconds = 0.0 if self._gone else float(30 if grace is None else grace)
        deadline = time.monotonic() + seconds
        least = _LEAST_GRACE if seconds > 0 else 0.0
        for kinds_now in (("main", "init"), ("sidecar",)):
            async with asyncio.TaskGroup() as group:
                for slot in self.slots:
                    if slot.kind in kinds_now:
                        group.create_task(self._kill(slot, max(deadline - time.monotonic(), least)))

    async def _kill(self, slot: Slot, grace: float) -> None:
        assert self.containers is not None
        with suppress(Unreachable):
            await self.containers.kill(self.pod, slot, grace, f"Stopping container {slot.name}")

    async def _clean(self) -> None:
        """Everything dead, then the agent lets go, then the network goes (rule 2)."""
        states = await self._last_states()
        await sandbox.remove(self._directory)
        for state in states:
            slot = self._slot(state["name"])
            if slot is not None and slot.current is not None and slot.current["attempt"] == state["attempt"]:
                slot.current = state
        self.shim = None
        self._sandbox_ready = False
        annotations = self.pod["metadata"].get("annotations") or {}
        if self.network is None:
            found = (item for item in await self._host.fabric.attached() if item.sandbox == self.id)
            self.network = next(found, None)
        if self.network is not None and not self.pod["spec"].get("hostNetwork"):
            if self._enrolled or annotations.get(REDIRECTION_ANNOTATION) == REDIRECTION_ENABLED:
                await self._let_go()
            await self._host.fabric.detach(self.id)
        await asyncio.to_thread(shutil.rmtree, self._disk, ignore_errors=True)

    async def _last_states(self) -> list[ContainerState]:
        if self.shim is None:
            return []
        try:
            return await self.shim.state()
        except Unreachable:
            return []

    async def _let_go(self) -> None:
        """An agent that stays away cannot hold the pod for ever: the namespace goes, which closes its listeners."""
        for attempt in range(_CNI_DEL_TRIES):
            try:
                await self._call_agent("del")
            except AmbitError as problem:
                self._host.events.record(self.pod, "Warning", "FailedKillPod", problem.message)
                await asyncio.sleep(_RETRY_FIRST * 2**attempt)
            else:
                return

    async def _remove(self) -> None:
        """The last word to the API: a pod with a grace of 0 is gone at once."""
        shutil.rmtree(self._disk, ignore_errors=True)
        metadata = self.pod["metadata"]
        logs = self._host.state.pod_logs(metadata["namespace"], metadata["name"], metadata["uid"])
        await asyncio.to_thread(shutil.rmtree, logs, ignore_errors=True)
        pause = _RETRY_FIRST
        while not self._gone:
            try:
                await self._host.client.delete(
                    kinds.PODS, metadata["name"], metadata["namespace"], grace_period=0, uid=metadata["uid"]
                )
            except (NotFound, Conflict):
                return
            except AmbitError as problem:
                log.warning("pod %s not removed yet: %s", self.id, problem.message)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RETRY_LONGEST)
            else:
                return

    def _facts(self) -> Facts:
        node = self._host.nodes[self.pod["spec"]["nodeName"]]
        addresses = () if self.network is None else tuple(str(item) for item in self.network.addresses)
        return Facts(
            addresses,
            (str(node.v4), str(node.v6)),
            self._start_time,
            self._sandbox_ready,
            now(),
            *self._reason,
        )

    async def _write_status(self) -> None:
        """Only when it differs from what was written last. A failed write is tried again a second later."""
        if self._gone:
            return
        status = status_of(self.pod, self.slots, self._facts())
        if status == self._written:
            return
        metadata = self.pod["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
        try:
            answer = await self._host.client.patch(
                kinds.PODS, metadata["name"], patch, metadata["namespace"], subresource="status"
            )
        except NotFound:
            self._gone = True
        except ApiError as problem:
            log.warning("status of %s not written: %s", self.id, problem.message)
            asyncio.get_running_loop().call_later(1.0, self._wake.set)
        except Unreachable:
            asyncio.get_running_loop().call_later(1.0, self._wake.set)
        else:
            self._written = status
            self.pod = {**self.pod, "status": answer.get("status") or status}


def _shown_labels(pod: Mapping[str, Any]) -> tuple[Any, Any]:
    """What a downward API volume may show."""
    return pod["metadata"].get("labels"), pod["metadata"].get("annotations")
