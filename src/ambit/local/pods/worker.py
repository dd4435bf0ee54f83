"""One pod from its binding to a node until it is gone from the API. One task for each pod; level-based.

    sandbox (network, CNI, shim) ─> init containers in order ─> containers, restarted by policy
    ─> termination ─> removal

A restarted cluster process adopts the sandbox and its containers as they are (`place.py` has the order of a sandbox).
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any

from ambit.core.errors import AmbitError, Unreachable
from ambit.kube import resource as kinds
from ambit.kube.errors import ApiError, Conflict, NotFound
from ambit.local.pods import plan
from ambit.local.pods.containers import Containers
from ambit.local.pods.environment import MissingReference
from ambit.local.pods.events import now
from ambit.local.pods.host import Host
from ambit.local.pods.place import Place
from ambit.local.pods.sandbox import ShimClient
from ambit.local.pods.shim.protocol import ContainerState
from ambit.local.pods.status import TERMINAL, Facts, Slot, lost_state, phase_of, status_of

log = logging.getLogger(__name__)

_RETRY_FIRST = 0.2
_RETRY_LONGEST = 10.0
_LEAST_GRACE = 2.0
"""What a sidecar still gets after its containers used up the pod's grace (kubelet's minimum), in seconds."""
_LEAVE_LONGEST = 5.0
"""Seconds of a pod's grace that its leaving of services may take, and never more than half of it."""
_DEADLINE = "DeadlineExceeded"


class _Deleted(Exception):
    """The pod is to end although its sandbox was never finished."""


class PodWorker:
    """`update` brings the newest object; `run` returns when the pod is gone from the API."""

    def __init__(self, host: Host, pod: Mapping[str, Any]) -> None:
        self._host = host
        self.pod = pod
        self.place = Place(host, pod)
        self.id = self.place.id
        self.slots = plan.slots_of(pod)
        self.containers: Containers | None = None
        self._gone = False
        self._wake = asyncio.Event()
        self._stale = asyncio.Event()
        self.taken_over = asyncio.Event()
        """What ran of this pod before this worker is known to it (or nothing did)."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._reason = ("", "")
        self._start_time = now()
        self._sandbox_ready = False
        self._written: dict[str, Any] | None = None

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
        if not self._finished():
            try:
                await self._live()
            except _Deleted:
                log.debug("pod deleted before it started", extra={"pod": self.id})
        if self.place.exists() or self.place.network is not None:
            await self._clean()
        while not self._ending():
            await self._sleep(None)
        await self._remove()

    def _ending(self) -> bool:
        return self._gone or "deletionTimestamp" in self.pod["metadata"]

    def _finished(self) -> bool:
        return (self.pod.get("status") or {}).get("phase") in TERMINAL

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
        while not self._ending() or self.place.runs(self.pod):
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

    async def _live(self) -> None:
        await self._retried("FailedCreatePodSandBox", lambda: self.place.attach(self.pod))
        await self._retried("FailedMount", self._mount)
        await self._retried("FailedCreatePodSandBox", self._start_sandbox)
        assert self.containers is not None
        async with asyncio.TaskGroup() as group:
            self._spawn(group, self._follow(self.containers.shim))
            self._spawn(group, self._refresh())
            await self._adopt(group)
            self.taken_over.set()
            while not self._ending() and not self._reason[0]:
                pause = await self._step(group)
                await self._write_status()
                if phase_of(self.slots, self._policy()) in TERMINAL:
                    break
                await self._sleep(pause)
            await self._terminate()
            self._take(await self.place.states())
            for task in self._tasks:
                task.cancel()
            for slot in self.slots:
                self.containers.health.forget(slot.name)
        await self._write_status()

    def _spawn(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _policy(self) -> str:
        return str(self.pod["spec"].get("restartPolicy") or "Always")

    async def _mount(self) -> None:
        self.pod = {**self.pod, "status": {**(self.pod.get("status") or {}), **self._address_fields()}}
        await self.place.mount(self.pod)

    def _address_fields(self) -> dict[str, Any]:
        """The downward API shows addresses before the status that carries them was written."""
        status = status_of(self.pod, self.slots, self._facts())
        return {key: status[key] for key in ("hostIP", "hostIPs", "podIP", "podIPs")}

    async def _start_sandbox(self) -> None:
        shim = await self.place.start(self.pod)
        target = self.place.target(self.pod)
        self.containers = Containers(self._host, shim, self.place.volumes, target, self._wake.set)
        self._sandbox_ready = True

    async def _adopt(self, group: asyncio.TaskGroup) -> None:
        assert self.containers is not None
        for state in await self.place.states():
            slot = self._slot(state["name"])
            if slot is not None:
                self.containers.adopt(slot, state, self.pod, group)
        for slot in self.slots:
            if slot.current is None and (lost := lost_state(self.pod, slot.name, time.time())) is not None:
                self._take([lost])

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
                await self.place.volumes.refresh(self.pod)
                pause = self.place.volumes.renewal()
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
            assert self.containers is not None
            self._spawn(group, self._follow(self.containers.shim))
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
            runs = await self.containers.start(self.pod, slot, self.place.name_mounts())
        except Unreachable:
            pauses.append(_RETRY_FIRST)
            return
        if runs:
            self.containers.health.watch(self.pod, slot, group)
            self._spawn(group, self.containers.after_start(self.pod, slot))
        else:
            pauses.append(max(slot.due - time.monotonic(), 0.0))

    async def _terminate(self) -> None:
        """Containers are told once no proxy sends anybody to them, and get the grace of the deletion; sidecars end
        after the containers they serve."""
        assert self.containers is not None
        self.containers.stopping = True
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        grace = metadata.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
        seconds = 0.0 if self._gone else float(30 if grace is None else grace)
        deadline = time.monotonic() + seconds
        if self._ending() and seconds > 0 and any(slot.running for slot in self.slots):
            await self.place.leave_services(self.pod, min(_LEAVE_LONGEST, seconds / 2))
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
        """The last states are kept: a finished pod still shows how its containers ended."""
        states = await self.place.states()
        await self.place.leave(self.pod)
        self._sandbox_ready = False
        for state in states:
            slot = self._slot(state["name"])
            if slot is not None and slot.current is not None and slot.current["attempt"] == state["attempt"]:
                slot.current = state

    async def _remove(self) -> None:
        """The last word to the API: a pod with a grace of 0 is gone at once."""
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
        network = self.place.network
        addresses = () if network is None else tuple(str(item) for item in network.addresses)
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
