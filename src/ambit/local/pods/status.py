"""A pod's status from what its containers do. Pure.

Source: kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle; shapes and reasons as kubelet writes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from ambit.local.pods.shim.protocol import ContainerState

Restart: TypeAlias = Literal["Always", "OnFailure", "Never"]

TERMINAL = frozenset({"Succeeded", "Failed"})


class Slot(msgspec.Struct):
    """One container of a pod over all its attempts. Changed by the pod's worker only."""

    name: str
    image: str
    kind: Literal["init", "sidecar", "main"]
    restart: Restart
    current: ContainerState | None = None
    previous: ContainerState | None = None
    waiting: tuple[str, str] | None = None
    started: bool = False
    ready: bool = False
    backoff: float = 0.0
    due: float = 0.0
    "Monotonic time before which the container is not started (again)."

    @property
    def running(self) -> bool:
        return self.current is not None and self.current["finished"] is None

    @property
    def ended(self) -> bool:
        return self.current is not None and self.current["finished"] is not None

    @property
    def succeeded(self) -> bool:
        return self.ended and self.current is not None and self.current["exit_code"] == 0

    @property
    def restarts(self) -> int:
        return self.current["attempt"] if self.current is not None else 0

    @property
    def finished_for_good(self) -> bool:
        """It ended and its restart policy lets it rest."""
        if not self.ended:
            return False
        return self.restart == "Never" or (self.restart == "OnFailure" and self.succeeded)


def lost_state(pod: Mapping[str, Any], name: str, now: float) -> ContainerState | None:
    """What became of a container that the API knows and no sandbox does: it ended as written there, or unseen.

    None for one that never ran. As the kubelet does it, so that restart counts go on and `Never` means never.
    """
    written = pod.get("status") or {}
    for kind in ("containerStatuses", "initContainerStatuses"):
        for status in written.get(kind) or ():
            if status["name"] == name:
                break
        else:
            continue
        state, last = status.get("state") or {}, status.get("lastState") or {}
        ended = state.get("terminated") or (None if "running" in state else last.get("terminated"))
        if ended is None and "running" not in state:
            return None
        shown = ended or state["running"]
        lost: ContainerState = {
            "name": name,
            "attempt": int(status.get("restartCount", 0)),
            "pid": 0,
            "started": _seconds(shown.get("startedAt"), now),
            "finished": now if ended is None else _seconds(ended.get("finishedAt"), now),
            "exit_code": 137 if ended is None else int(ended.get("exitCode", 0)),
            "signal": 9 if ended is None else ended.get("signal"),
        }
        if ended is None:
            lost["reason"] = "ContainerStatusUnknown"
            lost["message"] = "The container's sandbox was gone when the pod runner came back"
        return lost
    return None


def _seconds(text: str | None, otherwise: float) -> float:
    return datetime.fromisoformat(text).timestamp() if text else otherwise


class Facts(msgspec.Struct, frozen=True):
    """Everything about the pod that is not a container's."""

    addresses: tuple[str, ...]
    host_addresses: tuple[str, ...]
    start_time: str
    sandbox_ready: bool
    now: str
    reason: str = ""
    message: str = ""


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def phase_of(slots: Sequence[Slot], restart_policy: str) -> str:
    """As kubelet's getPhase."""
    main = [slot for slot in slots if slot.kind == "main"]
    for slot in slots:
        if slot.kind == "init" and not slot.succeeded:
            if slot.ended and restart_policy == "Never":
                return "Failed"
            return "Pending"
        if slot.kind == "sidecar" and not slot.started:
            return "Pending"
    if any(slot.current is None for slot in main):
        return "Pending"
    if all(slot.finished_for_good for slot in main):
        return "Succeeded" if all(slot.succeeded for slot in main) else "Failed"
    return "Running"


def status_of(pod: Mapping[str, Any], slots: Sequence[Slot], facts: Facts) -> dict[str, Any]:
    """The whole `status`, with the transition times of conditions that did not change kept."""
    before = pod.get("status") or {}
    spec = pod["spec"]
    phase = "Failed" if facts.reason else phase_of(slots, spec.get("restartPolicy") or "Always")
    initialized = all(
        slot.succeeded if slot.kind == "init" else slot.started for slot in slots if slot.kind != "main"
    )
    serving = [slot for slot in slots if slot.kind != "init"]
    unready = [slot.name for slot in serving if not slot.ready]
    done = phase in TERMINAL
    gates = _gates(spec, before)
    conditions = [
        ("PodReadyToStartContainers", facts.sandbox_ready and not done, "", ""),
        ("Initialized", initialized, "PodCompleted" if done else "", ""),
        ("Ready", not unready and not done and gates, *_unready("Ready", unready, phase, gates)),
        ("ContainersReady", not unready and not done, *_unready("ContainersReady", unready, phase, True)),
        ("PodScheduled", True, "", ""),
    ]
    if not initialized:
        names = [slot.name for slot in slots if slot.kind != "main" and not (slot.succeeded or slot.started)]
        text = f"containers with incomplete status: [{' '.join(names)}]"
        conditions[1] = ("Initialized", False, "ContainersNotInitialized", text)
    return {
        "phase": phase,
        "reason": facts.reason or None,
        "message": facts.message or None,
        "conditions": _merged(conditions, before.get("conditions") or (), facts.now),
        "hostIP": facts.host_addresses[0],
        "hostIPs": [{"ip": address} for address in facts.host_addresses],
        "podIP": facts.addresses[0] if facts.addresses else None,
        "podIPs": [{"ip": address} for address in facts.addresses],
        "startTime": before.get("startTime") or facts.start_time,
        "qosClass": before.get("qosClass") or _quality(spec),
        "initContainerStatuses": [_container(pod, slot) for slot in slots if slot.kind != "main"],
        "containerStatuses": [_container(pod, slot) for slot in slots if slot.kind == "main"],
        "observedGeneration": pod["metadata"].get("generation"),
    }


def _gates(spec: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    true = {item["type"] for item in before.get("conditions") or () if item.get("status") == "True"}
    return all(gate["conditionType"] in true for gate in spec.get("readinessGates") or ())


def _unready(kind: str, unready: Sequence[str], phase: str, gates: bool) -> tuple[str, str]:
    if phase == "Succeeded":
        return "PodCompleted", ""
    if phase == "Failed":
        return "PodFailed", ""
    if unready:
        return "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    if not gates and kind == "Ready":
        return "ReadinessGatesNotReady", "a readiness gate is not true"
    return "", ""


def _merged(
    wanted: Iterable[tuple[str, bool, str, str]], before: Iterable[Mapping[str, Any]], now: str
) -> list[dict[str, Any]]:
    """Ours replace what was there, others' stay."""
    old = {item["type"]: item for item in before}
    result: list[dict[str, Any]] = []
    for kind, value, reason, message in wanted:
        status = "True" if value else "False"
        known = old.pop(kind, {})
        since = known.get("lastTransitionTime") if known.get("status") == status else None
        entry = {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": since or now}
        if reason:
            entry["reason"] = reason
        if message:
            entry["message"] = message
        result.append(entry)
    return result + [dict(item) for item in old.values()]


def _container(pod: Mapping[str, Any], slot: Slot) -> dict[str, Any]:
    identity = f"ambit://{pod['metadata']['uid']}/{slot.name}/{slot.restarts}" if slot.current else ""
    return {
        "name": slot.name,
        "image": slot.image,
        "imageID": slot.image if slot.current else "",
        "containerID": identity,
        "restartCount": slot.restarts,
        "ready": slot.succeeded if slot.kind == "init" else slot.ready,
        "started": slot.started and slot.running,
        "state": _state(slot),
        "lastState": _last_state(slot),
    }


def _state(slot: Slot) -> dict[str, Any]:
    if slot.current is not None and slot.running:
        return {"running": {"startedAt": timestamp(slot.current["started"])}}
    if slot.waiting is not None:
        reason, message = slot.waiting
        return {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    if slot.current is not None:
        return {"terminated": terminated(slot.current)}
    return {"waiting": {"reason": "ContainerCreating" if slot.kind == "main" else "PodInitializing"}}


def _last_state(slot: Slot) -> dict[str, Any]:
    if slot.ended and slot.waiting is not None and slot.current is not None:
        return {"terminated": terminated(slot.current)}
    if slot.previous is not None:
        return {"terminated": terminated(slot.previous)}
    return {}


def terminated(state: ContainerState) -> dict[str, Any]:
    """A ContainerStateTerminated."""
    code = state["exit_code"]
    result = {
        "exitCode": code if code is not None else 137,
        "reason": state.get("reason") or ("Completed" if code == 0 else "Error"),
        "startedAt": timestamp(state["started"]),
        "finishedAt": timestamp(state["finished"] or state["started"]),
    }
    if state.get("message"):
        result["message"] = state["message"]
    if state["signal"]:
        result["signal"] = state["signal"]
    return result


def _quality(spec: Mapping[str, Any]) -> str:
    """Quality of service class: only what is written counts."""
    resources = [container.get("resources") or {} for container in spec["containers"]]
    if not any(item.get("requests") or item.get("limits") for item in resources):
        return "BestEffort"
    for item in resources:
        limits = item.get("limits") or {}
        if not {"cpu", "memory"} <= set(limits) or (item.get("requests") or limits) != limits:
            return "Burstable"
    return "Guaranteed"
