"""A container's health: startup, liveness and readiness probes over one attempt.

Source: kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes. Without a probe the answer is yes;
readiness and liveness wait for startup; a failed startup or liveness probe ends the container, policy starts it again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from ambit.core.errors import AmbitError, Unreachable
from ambit.local.pods import plan, probes
from ambit.local.pods.host import Host
from ambit.local.pods.probes import Outcome, Probe, Target
from ambit.local.pods.status import Slot

Run = Callable[[Mapping[str, Any], str, list[str]], Awaitable[tuple[int, str]]]
Kill = Callable[[Mapping[str, Any], Slot, float, str], Awaitable[None]]


class Health:
    """Of one pod's containers. `run` runs a command in one, `kill` ends one, `changed` wakes the worker."""

    def __init__(self, host: Host, target: Target, run: Run, kill: Kill, changed: Callable[[], None]) -> None:
        self._host = host
        self._target = target
        self._run = run
        self._kill = kill
        self._changed = changed
        self._probes: dict[str, list[asyncio.Task[None]]] = {}

    def watch(self, pod: Mapping[str, Any], slot: Slot, group: asyncio.TaskGroup) -> None:
        """Start the probes of a running container. Without a probe the answer is yes."""
        self.forget(slot.name)
        container = plan.container_of(pod, slot.name)
        startup = container.get("startupProbe")
        tasks = []
        if startup is None or slot.started:
            slot.started = True
        else:
            tasks.append(group.create_task(self._startup(pod, container, slot, startup, group)))
        self._probes[slot.name] = tasks
        if slot.started:
            self._serve(pod, container, slot, group)

    def forget(self, name: str) -> None:
        for task in self._probes.pop(name, ()):
            task.cancel()

    async def _startup(
        self,
        pod: Mapping[str, Any],
        container: Mapping[str, Any],
        slot: Slot,
        spec: Mapping[str, Any],
        group: asyncio.TaskGroup,
    ) -> None:
        failed = ""

        def tell(outcome: bool, text: str) -> bool:
            nonlocal failed
            slot.started = outcome
            failed = "" if outcome else text
            return True

        await probes.repeat(
            msgspec.convert(spec, Probe), self._check(pod, container, slot, spec, "Startup"), tell
        )
        if failed:
            await self._unhealthy(pod, slot, "startup")
        else:
            self._serve(pod, container, slot, group)
            self._changed()

    def _serve(
        self, pod: Mapping[str, Any], container: Mapping[str, Any], slot: Slot, group: asyncio.TaskGroup
    ) -> None:
        readiness, liveness = container.get("readinessProbe"), container.get("livenessProbe")
        tasks = self._probes.setdefault(slot.name, [])
        if readiness is None:
            slot.ready = slot.kind != "init"
        else:
            tasks.append(group.create_task(self._readiness(pod, container, slot, readiness)))
        if liveness is not None:
            tasks.append(group.create_task(self._liveness(pod, container, slot, liveness)))

    async def _readiness(
        self, pod: Mapping[str, Any], container: Mapping[str, Any], slot: Slot, spec: Mapping[str, Any]
    ) -> None:
        def tell(outcome: bool, _text: str) -> bool:
            if slot.ready != outcome:
                slot.ready = outcome
                self._changed()
            return False

        check = self._check(pod, container, slot, spec, "Readiness")
        await probes.repeat(msgspec.convert(spec, Probe), check, tell, eager=True)

    async def _liveness(
        self, pod: Mapping[str, Any], container: Mapping[str, Any], slot: Slot, spec: Mapping[str, Any]
    ) -> None:
        await probes.repeat(
            msgspec.convert(spec, Probe),
            self._check(pod, container, slot, spec, "Liveness"),
            lambda outcome, _: not outcome,
        )
        await self._unhealthy(pod, slot, "liveness")

    async def _unhealthy(self, pod: Mapping[str, Any], slot: Slot, word: str) -> None:
        text = f"Container {slot.name} failed {word} probe, will be restarted"
        try:
            await self._kill(pod, slot, plan.grace_of(pod), text)
        except Unreachable:
            return  # the worker finds out by itself that the sandbox is gone

    def _check(
        self,
        pod: Mapping[str, Any],
        container: Mapping[str, Any],
        slot: Slot,
        spec: Mapping[str, Any],
        word: str,
    ) -> probes.Check:
        async def check() -> Outcome:
            try:
                outcome, text = await self._probe(pod, container, slot, spec)
            except (AmbitError, ValueError) as problem:
                outcome, text = False, str(problem)
            if not outcome:
                message = f"{word} probe failed: {text}"
                self._host.events.record(pod, "Warning", "Unhealthy", message, plan.field_path(slot))
            return outcome, text

        return check

    async def _probe(
        self, pod: Mapping[str, Any], container: Mapping[str, Any], slot: Slot, spec: Mapping[str, Any]
    ) -> Outcome:
        if "httpGet" in spec:
            action = spec["httpGet"]
            return await probes.http(self._target, action, plan.port_of(container, action["port"]))
        if "tcpSocket" in spec:
            action = spec["tcpSocket"]
            host = action.get("host") or self._target.address
            return await probes.tcp(self._target, host, plan.port_of(container, action["port"]))
        if "exec" in spec:
            code, output = await self._run(pod, slot.name, spec["exec"].get("command") or [])
            return code == 0, output
        return False, "gRPC probes are not supported on the laptop; use httpGet, tcpSocket or exec"
