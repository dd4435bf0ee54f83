"""Columns of pods, nodes and workloads."""

from datetime import UTC, datetime
from typing import Any

from ambit.local.apiserver import clock
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.tables.columns import (
    AGE,
    NAME,
    NONE,
    WIDE_TEMPLATE,
    Column,
    at,
    human,
    labels_text,
    number,
    since,
)


def _statuses(body: Json, field: str) -> list[Json]:
    return (body.get("status") or {}).get(field) or []


def pod_status(body: Json) -> str:
    """The STATUS column: the reason that matters most."""
    status, spec = body.get("status") or {}, body.get("spec") or {}
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    reason = _init_reason(body, spec) or _container_reason(body, reason)
    if body["metadata"].get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return reason


def _init_reason(body: Json, spec: Json) -> str:
    total = len(spec.get("initContainers") or ())
    restartable = {
        one["name"] for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"
    }
    for index, one in enumerate(_statuses(body, "initContainerStatuses")):
        state = one.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended and ended.get("exitCode") == 0:
            continue
        if one.get("name") in restartable and one.get("started"):
            continue
        if ended:
            return f"Init:{ended.get('reason') or 'ExitCode:' + str(ended.get('exitCode'))}"
        if waiting and waiting.get("reason") not in {None, "", "PodInitializing"}:
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return ""


def _container_reason(body: Json, reason: str) -> str:
    running = False
    for one in reversed(_statuses(body, "containerStatuses")):
        state = one.get("state") or {}
        waiting, ended = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason"):
            reason = waiting["reason"]
        elif ended:
            reason = ended.get("reason") or (
                f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode')}"
            )
        elif one.get("ready") and state.get("running"):
            running = True
    if reason == "Completed" and running:
        ready = any(
            one.get("type") == "Ready" and one.get("status") == "True"
            for one in _statuses(body, "conditions")
        )
        return "Running" if ready else "NotReady"
    return reason


def _ready(body: Json) -> str:
    total = len((body.get("spec") or {}).get("containers") or ())
    return f"{sum(bool(one.get('ready')) for one in _statuses(body, 'containerStatuses'))}/{total}"


def _restarts(body: Json) -> str:
    statuses = _statuses(body, "containerStatuses")
    total = sum(int(one.get("restartCount") or 0) for one in statuses)
    ends = [
        ended
        for one in statuses
        if (ended := ((one.get("lastState") or {}).get("terminated") or {}).get("finishedAt"))
    ]
    return f"{total} ({since(max(ends))} ago)" if total and ends else str(total)


def _pod_ip(body: Json) -> str:
    status = body.get("status") or {}
    return str(status.get("podIP") or NONE)


def _gates(body: Json) -> str:
    gates = (body.get("spec") or {}).get("readinessGates") or ()
    if not gates:
        return NONE
    true = {one["type"] for one in _statuses(body, "conditions") if one.get("status") == "True"}
    return f"{sum(one.get('conditionType') in true for one in gates)}/{len(gates)}"


def _node_status(body: Json) -> str:
    ready = next((one for one in _statuses(body, "conditions") if one.get("type") == "Ready"), None)
    words = ["Unknown"] if ready is None else ["Ready" if ready.get("status") == "True" else "NotReady"]
    if (body.get("spec") or {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(body: Json) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = body["metadata"].get("labels") or {}
    return ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))) or NONE


def _address(kind: str) -> Any:
    def cell(body: Json) -> str:
        found = (one.get("address") for one in _statuses(body, "addresses") if one.get("type") == kind)
        return str(next(found, NONE))

    return cell


def _fraction(body: Json) -> str:
    ready = (body.get("status") or {}).get("readyReplicas") or 0
    return f"{ready}/{(body.get('spec') or {}).get('replicas') or 0}"


def _job_status(body: Json) -> str:
    true = {one.get("type") for one in _statuses(body, "conditions") if one.get("status") == "True"}
    for kind, word in (("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended")):
        if kind in true:
            return word
    return "Terminating" if body["metadata"].get("deletionTimestamp") else "Running"


def _completions(body: Json) -> str:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    done = status.get("succeeded") or 0
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallel = spec.get("parallelism") or 1
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _duration(body: Json) -> str:
    status = body.get("status") or {}
    if not status.get("startTime"):
        return ""
    end = clock.parse(status["completionTime"]) if status.get("completionTime") else datetime.now(UTC)
    return human((end - clock.parse(status["startTime"])).total_seconds())


_INFO = ("status", "nodeInfo")

COLUMNS: dict[str, tuple[Column, ...]] = {
    "pods": (
        NAME,
        Column("Ready", _ready),
        Column("Status", pod_status),
        Column("Restarts", _restarts),
        AGE,
        Column("IP", _pod_ip, 1),
        Column("Node", at("spec", "nodeName", default=NONE), 1),
        Column("Nominated Node", at("status", "nominatedNodeName", default=NONE), 1),
        Column("Readiness Gates", _gates, 1),
    ),
    "nodes": (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        AGE,
        Column("Version", at(*_INFO, "kubeletVersion")),
        Column("Internal-IP", _address("InternalIP"), 1),
        Column("External-IP", _address("ExternalIP"), 1),
        Column("OS-Image", at(*_INFO, "osImage", default="<unknown>"), 1),
        Column("Kernel-Version", at(*_INFO, "kernelVersion", default="<unknown>"), 1),
        Column("Container-Runtime", at(*_INFO, "containerRuntimeVersion", default="<unknown>"), 1),
    ),
    "deployments.apps": (
        NAME,
        Column("Ready", _fraction),
        number("Up-to-date", "status", "updatedReplicas"),
        number("Available", "status", "availableReplicas"),
        AGE,
        *WIDE_TEMPLATE,
    ),
    "replicasets.apps": (
        NAME,
        number("Desired", "spec", "replicas"),
        number("Current", "status", "replicas"),
        number("Ready", "status", "readyReplicas"),
        AGE,
        *WIDE_TEMPLATE,
    ),
    "statefulsets.apps": (NAME, Column("Ready", _fraction), AGE, *WIDE_TEMPLATE[:2]),
    "daemonsets.apps": (
        NAME,
        number("Desired", "status", "desiredNumberScheduled"),
        number("Current", "status", "currentNumberScheduled"),
        number("Ready", "status", "numberReady"),
        number("Up-to-date", "status", "updatedNumberScheduled"),
        number("Available", "status", "numberAvailable"),
        Column(
            "Node Selector",
            lambda body: labels_text(at("spec", "template", "spec", "nodeSelector", default={})(body)),
        ),
        AGE,
        *WIDE_TEMPLATE,
    ),
    "jobs.batch": (
        NAME,
        Column("Status", _job_status),
        Column("Completions", _completions),
        Column("Duration", _duration),
        AGE,
        *WIDE_TEMPLATE,
    ),
    "cronjobs.batch": (
        NAME,
        Column("Schedule", at("spec", "schedule")),
        Column("Timezone", at("spec", "timeZone", default=NONE)),
        Column("Suspend", lambda body: str(bool((body.get("spec") or {}).get("suspend")))),
        Column("Active", lambda body: len(_statuses(body, "active")), type="integer"),
        Column(
            "Last Schedule",
            lambda body: (
                since(at("status", "lastScheduleTime", default=None)(body))
                if (body.get("status") or {}).get("lastScheduleTime")
                else NONE
            ),
        ),
        AGE,
        *WIDE_TEMPLATE[:2],
    ),
}
