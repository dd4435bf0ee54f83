"""Starting, probing, stopping one container at a time inside a pod's sandbox; the order is the worker's
business.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from ambit.core.errors import AmbitError, Unreachable
from ambit.local.pods import images, plan, probes
from ambit.local.pods.environment import MissingReference, environment_of, expand
from ambit.local.pods.health import Health
from ambit.local.pods.host import Host
from ambit.local.pods.ids import maps_users
from ambit.local.pods.probes import Target
from ambit.local.pods.sandbox import ShimClient
from ambit.local.pods.shim.protocol import ContainerState, Mount, Process
from ambit.local.pods.status import Slot
from ambit.local.pods.volumes import PodVolumes

FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 60.0
"""Seconds, those of the kubelet's ReduceDefaultCrashLoopBackOffDecay (KEP-4603): on a laptop somebody waits."""
QUIET = 600.0
"""A container that ran this long starts over with no back-off (kubelet's MaxContainerBackOff rule)."""
_CONFIG_RETRY = 5.0
_HOOK_OUTPUT = 4096
_NO_USERS = "runAsUser is ignored: this instance runs without root, so it has one user only"


class Containers:
    """The containers of one pod in one sandbox. `changed` is called when a slot changed outside of a call."""

    def __init__(
        self, host: Host, shim: ShimClient, volumes: PodVolumes, target: Target, changed: Callable[[], None]
    ) -> None:
        self._host = host
        self.shim = shim
        self._volumes = volumes
        self._target = target
        self.health = Health(host, target, self.run_command, self.kill, changed)
        self._processes: dict[str, Process] = {}
        self._killing: set[str] = set()
        self.stopping = False
        """The pod ends: what ends now is not started again."""

    async def start(self, pod: Mapping[str, Any], slot: Slot, files: list[Mount]) -> bool:
        """One attempt; whether it runs. What hinders it becomes the slot's waiting reason and a later `due`."""
        container = plan.container_of(pod, slot.name)
        place = plan.field_path(slot)
        try:
            argv, image_environment = images.resolve(container, self._host.images())
        except images.UnknownImage as problem:
            self._pull_failed(pod, slot, problem, place)
            return False
        try:
            process, mounts = await self.prepare(pod, container, argv, image_environment)
        except Unreachable:
            raise
        except (AmbitError, OSError) as problem:
            missing = isinstance(problem, MissingReference)
            text = problem.message if isinstance(problem, AmbitError) else str(problem)
            slot.waiting = ("CreateContainerConfigError" if missing else "CreateContainerError", text)
            slot.due = time.monotonic() + _CONFIG_RETRY
            self._host.events.record(pod, "Warning", "Failed", f"Error: {text}", place)
            return False
        if plan.wants_user(pod, container) and not maps_users():
            self._host.events.record(pod, "Warning", "UserIgnored", _NO_USERS, place)
        attempt = slot.restarts + 1 if slot.current is not None else 0
        if attempt == 0:
            text = f'Container image "{slot.image}" already present on machine'
            self._host.events.record(pod, "Normal", "Pulled", text, place)
        self._host.events.record(pod, "Normal", "Created", f"Created container: {slot.name}", place)
        return await self._launch(pod, container, slot, process, [*files, *mounts], attempt, place)

    async def prepare(
        self, pod: Mapping[str, Any], container: Mapping[str, Any], argv: list[str], image: Mapping[str, str]
    ) -> tuple[Process, list[Mount]]:
        """How the container's first process is to run, and its volumes. Raises MissingReference."""
        sources = await self._volumes.sources(pod, container)
        sources = msgspec.structs.replace(sources, services=self._host.services())
        base = plan.base_environment(pod, image)
        base |= {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        base |= {"KUBERNETES_SERVICE_PORT_HTTPS": "443", "KUBERNETES_PORT": "tcp://10.96.0.1:443"}
        environment = environment_of(pod, container, sources, base)
        argv = [expand(argument, environment) for argument in argv]
        process = plan.process_of(pod, container, argv, environment, users=maps_users())
        return process, self._volumes.mounts(pod, container, environment)

    async def process_in(self, pod: Mapping[str, Any], name: str, command: list[str]) -> Process:
        """How one more program runs in a container: with the same environment and rights. Raises MissingReference."""
        if name not in self._processes:
            container = plan.container_of(pod, name)
            argv, image_environment = images.resolve(container, self._host.images())
            self._processes[name], _ = await self.prepare(pod, container, argv, image_environment)
        return {**self._processes[name], "argv": command}

    def adopt(
        self, slot: Slot, state: ContainerState, pod: Mapping[str, Any], group: asyncio.TaskGroup
    ) -> None:
        """Take over a container that already ran when we started. What the API says of it stays true until probed."""
        self._take(slot, state)
        if not slot.running:
            return
        known = {
            item["name"]: item
            for kind in ("containerStatuses", "initContainerStatuses")
            for item in (pod.get("status") or {}).get(kind) or ()
        }.get(slot.name, {})
        slot.started = bool(known.get("started"))
        slot.ready = bool(known.get("ready")) and slot.kind != "init"
        self.health.watch(pod, slot, group)

    def update(self, slot: Slot, state: ContainerState, pod: Mapping[str, Any]) -> None:
        """News of an attempt, from the shim or from starting it; the two may come in either order."""
        known = slot.current
        if known is not None:
            if state["attempt"] < known["attempt"]:
                return
            if state["attempt"] == known["attempt"] and known["finished"] is not None:
                return
        self._take(slot, state)
        if slot.ended:
            self._ended(pod, slot)

    async def kill(self, pod: Mapping[str, Any], slot: Slot, grace: float, message: str) -> None:
        """preStop hook, SIGTERM, then SIGKILL after `grace` seconds. Returns once the container has ended."""
        if not slot.running or slot.name in self._killing:
            return
        self._killing.add(slot.name)
        try:
            self._host.events.record(pod, "Normal", "Killing", message, plan.field_path(slot))
            deadline = time.monotonic() + grace
            hook = (
                ((plan.container_of(pod, slot.name).get("lifecycle") or {}).get("preStop"))
                if grace > 0
                else None
            )
            if hook:
                try:
                    async with asyncio.timeout(grace):
                        await self._hook(pod, slot, hook)
                except (AmbitError, OSError, TimeoutError) as problem:
                    text = f"PreStopHook failed: {problem}"
                    self._host.events.record(pod, "Warning", "FailedPreStopHook", text, plan.field_path(slot))
            if grace > 0 and await self.shim.signal(slot.name, signal.SIGTERM):
                await self._wait_ended(slot, max(deadline - time.monotonic(), 2.0))
            if slot.running:
                await self.shim.signal(slot.name, signal.SIGKILL)
                await self._wait_ended(slot, 10.0)
        finally:
            self._killing.discard(slot.name)

    async def _wait_ended(self, slot: Slot, seconds: float) -> None:
        """`update` is fed by the worker's watch; this asks the shim itself so that it also works without."""
        try:
            async with asyncio.timeout(seconds):
                async with aclosing(self.shim.watch()) as changes:
                    async for states in changes:
                        state = next((item for item in states if item["name"] == slot.name), None)
                        if state is None or state["finished"] is not None:
                            return
        except TimeoutError:
            return

    async def _launch(
        self,
        pod: Mapping[str, Any],
        container: Mapping[str, Any],
        slot: Slot,
        process: Process,
        mounts: list[Mount],
        attempt: int,
        place: str,
    ) -> bool:
        metadata = pod["metadata"]
        logs = self._host.state.pod_logs(metadata["namespace"], metadata["name"], metadata["uid"]) / slot.name
        self._processes[slot.name] = process
        slot.waiting = None
        if attempt >= 2:
            (logs / f"{attempt - 2}.log").unlink(missing_ok=True)
        began = time.time()
        try:
            pid = await self.shim.start(
                {
                    "name": slot.name,
                    "attempt": attempt,
                    "started": began,
                    "process": process,
                    "privileged": plan.is_privileged(container),
                    "mounts": mounts,
                    "log": str(logs / f"{attempt}.log"),
                }
            )
        except Unreachable:
            raise
        except AmbitError as problem:
            state: ContainerState = {
                "name": slot.name,
                "attempt": attempt,
                "pid": 0,
                "started": began,
                "finished": time.time(),
                "exit_code": 128,
                "signal": None,
                "reason": "StartError",
                "message": problem.message,
            }
            self._host.events.record(pod, "Warning", "Failed", f"Error: {problem.message}", place)
            self.update(slot, state, pod)
            return False
        self.update(
            slot,
            {
                "name": slot.name,
                "attempt": attempt,
                "pid": pid,
                "started": began,
                "finished": None,
                "exit_code": None,
                "signal": None,
            },
            pod,
        )
        self._host.events.record(pod, "Normal", "Started", f"Started container {slot.name}", place)
        return slot.running

    async def after_start(self, pod: Mapping[str, Any], slot: Slot) -> None:
        """The postStart hook; a container whose hook fails is killed (and restarted by policy)."""
        hook = (plan.container_of(pod, slot.name).get("lifecycle") or {}).get("postStart")
        if not hook:
            return
        try:
            await self._hook(pod, slot, hook)
        except (AmbitError, OSError) as problem:
            text = f"PostStartHook failed: {problem}"
            self._host.events.record(pod, "Warning", "FailedPostStartHook", text, plan.field_path(slot))
            await self.kill(pod, slot, plan.grace_of(pod), f"Container {slot.name} failed its postStart hook")

    def _take(self, slot: Slot, state: ContainerState) -> None:
        if slot.current is not None and slot.current["attempt"] != state["attempt"]:
            slot.previous = slot.current
        if slot.current is None or slot.current["attempt"] != state["attempt"]:
            slot.started = slot.ready = False
        slot.current = state
        if slot.ended:
            slot.started = slot.ready = False

    def _ended(self, pod: Mapping[str, Any], slot: Slot) -> None:
        """Decide when to start again: at once the first time, then after 10 s doubling to 5 min."""
        self.health.forget(slot.name)
        if (
            self.stopping
            or slot.finished_for_good
            or (slot.kind == "init" and slot.succeeded)
            or slot.current is None
        ):
            return
        ran = (slot.current["finished"] or 0) - slot.current["started"]
        if ran >= QUIET:
            slot.backoff = 0.0
        slot.due = time.monotonic() + slot.backoff
        if slot.backoff:
            word = f"back-off {slot.backoff:.0f}s restarting failed container={slot.name}"
            metadata = pod["metadata"]
            text = f"{word} pod={metadata['name']}_{metadata['namespace']}({metadata['uid']})"
            slot.waiting = ("CrashLoopBackOff", text)
            text = f"Back-off restarting failed container {slot.name} in pod {metadata['name']}"
            self._host.events.record(pod, "Warning", "BackOff", text, plan.field_path(slot))
        slot.backoff = min(max(slot.backoff * 2, FIRST_BACKOFF), LONGEST_BACKOFF)

    def _pull_failed(
        self, pod: Mapping[str, Any], slot: Slot, problem: images.UnknownImage, place: str
    ) -> None:
        text = f"{problem.message}; run: {problem.hint}"
        first = slot.waiting is None
        if first:
            self._host.events.record(pod, "Normal", "Pulling", f'Pulling image "{slot.image}"', place)
            self._host.events.record(
                pod, "Warning", "Failed", f'Failed to pull image "{slot.image}": {text}', place
            )
            self._host.events.record(pod, "Warning", "Failed", "Error: ErrImagePull", place)
        else:
            back = f'Back-off pulling image "{slot.image}"'
            self._host.events.record(pod, "Normal", "BackOff", back, place)
            text = f"{back}: {text}"
        slot.waiting = ("ErrImagePull" if first else "ImagePullBackOff", text)
        slot.backoff = min(max(slot.backoff * 2, FIRST_BACKOFF), LONGEST_BACKOFF)
        slot.due = time.monotonic() + slot.backoff

    async def _hook(self, pod: Mapping[str, Any], slot: Slot, hook: Mapping[str, Any]) -> None:
        if "exec" in hook:
            code, output = await self.run_command(pod, slot.name, hook["exec"].get("command") or [])
            if code != 0:
                raise AmbitError(f"command exited with {code}: {output}")
        elif "httpGet" in hook:
            action = hook["httpGet"]
            port = plan.port_of(plan.container_of(pod, slot.name), action["port"])
            good, text = await probes.http(self._target, action, port)
            if not good:
                raise AmbitError(text)
        elif "sleep" in hook:
            await asyncio.sleep(hook["sleep"].get("seconds") or 0)

    async def run_command(self, pod: Mapping[str, Any], name: str, command: list[str]) -> tuple[int, str]:
        """(exit code, first output). Raises AmbitError when it cannot be started."""
        process = await self.process_in(pod, name, command)
        read_end, write_end = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            async with self.shim.execute(name, process, (nothing, write_end, write_end), False) as replies:
                os.set_blocking(read_end, False)
                code = int(msgspec.json.decode(await replies.readline() or b"{}").get("exit_code", 137))
            try:
                output = os.read(read_end, _HOOK_OUTPUT)
            except BlockingIOError:
                output = b""
            return code, output.decode(errors="replace").strip()
        finally:
            for descriptor in (read_end, write_end, nothing):
                os.close(descriptor)
