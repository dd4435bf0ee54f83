"""Job: runs pods until enough of them have succeeded, or too many failed.

Honoured: parallelism, completions (also Indexed), backoffLimit with growing delay, activeDeadlineSeconds, suspend,
ttlSecondsAfterFinished. Pods are recognised by their owner reference, so a generated selector is not needed.
"""

import time
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from ambit.kube.conditions import has_condition
from ambit.kube.reflector import Key
from ambit.kube.resource import JOBS, Resource
from ambit.local.controllers.objects import (
    Object,
    annotations_of,
    at,
    condition_of,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
    timestamp,
    uid_of,
    with_condition,
)
from ambit.local.controllers.pod_owner import PodOwner
from ambit.local.controllers.pods import is_active, is_ready, pod_from_template

INDEX = "batch.kubernetes.io/job-completion-index"
BACKOFF_FIRST = 10.0
BACKOFF_MAX = 360.0
"""Seconds before a failed pod's successor, doubled with each failure (as Kubernetes does)."""


class Plan(msgspec.Struct, frozen=True):
    """What to do now: pods to make (by index for Indexed, else None), pods to delete, the status to write."""

    create: tuple[int | None, ...]
    delete: tuple[Object, ...]
    status: Object
    finished: bool
    check_after: float | None


def plan_job(job: Object, pods: Sequence[Object], now: float) -> Plan:
    """The next step for a job that owns these pods. `now`: Unix seconds."""
    spec, status = job["spec"], dict(job.get("status") or {})
    active = [pod for pod in pods if is_active(pod)]
    phases = [(pod.get("status") or {}).get("phase") for pod in pods]
    failed_pods = [pod for pod, phase in zip(pods, phases, strict=True) if phase == "Failed"]
    indexed = spec.get("completionMode") == "Indexed"
    done = {index_of(pod) for pod, phase in zip(pods, phases, strict=True) if phase == "Succeeded"}
    succeeded = len(done) if indexed else phases.count("Succeeded")
    if is_finished(job):
        return Plan((), tuple(active), status, finished=True, check_after=None)
    conditions = list(status.get("conditions") or ())
    if spec.get("suspend"):
        suspended = _condition("Suspended", "True", "JobSuspended", "Job suspended")
        conditions = with_condition(conditions, suspended, now)
        status = _counts([], len(failed_pods), succeeded) | {"conditions": conditions}
        return Plan((), tuple(active), status, finished=False, check_after=None)
    if condition_of(job, "Suspended"):
        resumed = _condition("Suspended", "False", "JobResumed", "Job resumed")
        conditions = with_condition(conditions, resumed, now)
    started = status.get("startTime") or timestamp(now)
    verdict = _verdict(job, active, len(failed_pods), succeeded, at(started), now)
    if verdict is not None:
        for condition in verdict:
            conditions = with_condition(conditions, condition, now)
        complete = verdict[-1]["type"] == "Complete"
        status = _counts([], len(failed_pods) + (0 if complete else len(active)), succeeded)
        status |= {"startTime": started, "conditions": conditions}
        if complete:
            status["completionTime"] = timestamp(now)
        return Plan((), tuple(active), status, finished=True, check_after=None)
    create, wait = _missing(job, active, failed_pods, done, succeeded, now)
    status = _counts(active, len(failed_pods), succeeded) | {"startTime": started}
    if indexed and done:
        status["completedIndexes"] = ",".join(
            str(index) for index in sorted(i for i in done if i is not None)
        )
    if conditions:
        status["conditions"] = conditions
    deadline = spec.get("activeDeadlineSeconds")
    times = [wait] if wait is not None else []
    if deadline is not None:
        times.append(max(0.1, at(started) + float(deadline) - now))
    surplus = active[int(spec.get("parallelism", 1)) :]
    return Plan(create, tuple(surplus), status, finished=False, check_after=min(times, default=None))


def is_finished(job: Object) -> bool:
    return any(has_condition(job, kind) for kind in ("Complete", "Failed"))


def index_of(pod: Object) -> int | None:
    text = annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdigit() else None


def _condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _counts(active: Sequence[Object], failed: int, succeeded: int) -> Object:
    status: Object = {"ready": sum(map(is_ready, active)), "terminating": 0, "uncountedTerminatedPods": {}}
    status |= {
        k: v for k, v in {"active": len(active), "failed": failed, "succeeded": succeeded}.items() if v
    }
    return status


def _verdict(
    job: Object, active: Sequence[Object], failed: int, succeeded: int, started: float, now: float
) -> list[Object] | None:
    spec = job["spec"]
    limit = spec.get("activeDeadlineSeconds")
    if failed > int(spec.get("backoffLimit", 6)):
        text = "Job has reached the specified backoff limit"
        return [
            _condition("FailureTarget", "True", "BackoffLimitExceeded", text),
            _condition("Failed", "True", "BackoffLimitExceeded", text),
        ]
    if limit is not None and started + float(limit) <= now:
        text = "Job was active longer than specified deadline"
        return [
            _condition("FailureTarget", "True", "DeadlineExceeded", text),
            _condition("Failed", "True", "DeadlineExceeded", text),
        ]
    completions = spec.get("completions")
    enough = succeeded >= int(completions) if completions is not None else succeeded > 0 and not active
    if enough:
        text = "Reached expected number of succeeded pods"
        return [
            _condition("SuccessCriteriaMet", "True", "CompletionsReached", text),
            _condition("Complete", "True", "CompletionsReached", text),
        ]
    return None


def _missing(
    job: Object,
    active: Sequence[Object],
    failed: Sequence[Object],
    done: set[int | None],
    succeeded: int,
    now: float,
) -> tuple[tuple[int | None, ...], float | None]:
    """Pods to start now, and seconds to wait if a failure holds them back."""
    spec = job["spec"]
    completions = spec.get("completions")
    wanted = int(spec.get("parallelism", 1))
    if completions is not None:
        wanted = min(wanted, int(completions) - succeeded)
    elif succeeded:
        # A work queue whose first worker succeeded starts no others.
        wanted = len(active)
    missing = wanted - len(active)
    if missing <= 0:
        return (), None
    if failed:
        last = max(_ended_at(pod) for pod in failed)
        wait = last + min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (len(failed) - 1)) - now
        if wait > 0:
            return (), wait + 0.05
    if spec.get("completionMode") != "Indexed":
        return (None,) * missing, None
    taken = done | {index_of(pod) for pod in active}
    free = [index for index in range(int(completions or 0)) if index not in taken]
    return tuple(free[:missing]), None


def _ended_at(pod: Object) -> float:
    times = [
        at(ended.get("finishedAt"))
        for item in (pod.get("status") or {}).get("containerStatuses") or ()
        if (ended := (item.get("state") or {}).get("terminated"))
    ]
    return max(times, default=at(pod["metadata"].get("creationTimestamp")))


def job_pod(job: Object, index: int | None) -> Object:
    """A pod of the job; `index` is its completion index, if the job counts them."""
    namespace, name = key_of(job)
    prefix = f"{name}-" if index is None else f"{name}-{index}-"
    pod = pod_from_template(job["spec"]["template"], namespace, owner_reference(JOBS, job), prefix=prefix)
    uid = uid_of(job)
    labels = {
        "batch.kubernetes.io/job-name": name,
        "job-name": name,
        "batch.kubernetes.io/controller-uid": uid,
        "controller-uid": uid,
    }
    pod["metadata"]["labels"] = {**labels_of(pod), **labels}
    if index is not None:
        pod["metadata"]["annotations"] = {**annotations_of(pod), INDEX: str(index)}
        pod["metadata"]["labels"][INDEX] = str(index)
        pod["spec"]["hostname"] = f"{name}-{index}"
        variable = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
        for container in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())):
            container["env"] = [*(container.get("env") or ()), variable]
    return pod


class JobController(PodOwner):
    """Jobs -> pods."""

    name: ClassVar[str] = "job-controller"
    resource: ClassVar[Resource] = JOBS

    async def look(self, key: Key, value: Object) -> None:
        job = value
        if is_deleting(job):
            return
        now = time.time()
        if is_finished(job):
            await self._expire(key, job, now)
        plan = plan_job(job, self.pods.owned_by(uid_of(job)), now)
        for pod in plan.delete:
            await self.delete_pod(key, job, pod)
        for index in plan.create:
            await self.create_pod(key, job, job_pod(job, index))
        await self.write_status(JOBS, job, plan.status)
        if plan.finished and not is_finished(job):
            condition = plan.status["conditions"][-1]
            if condition["type"] == "Complete":
                await self.record(JOBS, job, "Completed", "Job completed")
            else:
                await self.record(JOBS, job, condition["reason"], condition["message"], kind="Warning")
        if plan.check_after is not None:
            self.queue.add_after(key, plan.check_after)

    async def _expire(self, key: Key, job: Object, now: float) -> None:
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is None:
            return
        ended = max(
            at((condition_of(job, kind) or {}).get("lastTransitionTime")) for kind in ("Complete", "Failed")
        )
        left = ended + float(seconds) - now
        if left > 0:
            self.queue.add_after(key, left + 0.05)
        else:
            await self.remove(JOBS, job)
