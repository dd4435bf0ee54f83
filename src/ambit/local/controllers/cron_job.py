"""CronJob: makes a Job at each firing time of its schedule.

Honoured: timeZone, concurrencyPolicy, suspend, startingDeadlineSeconds, history limits. Of several missed times only
the last one is made up for.
"""

import copy
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from ambit.kube.errors import AlreadyExists
from ambit.kube.reflector import Key
from ambit.kube.resource import CRON_JOBS, JOBS
from ambit.local.controllers.caches import Caches
from ambit.local.controllers.controller import Controller, controlled_keys
from ambit.local.controllers.job import is_finished
from ambit.local.controllers.objects import (
    Object,
    annotations_of,
    at,
    condition_of,
    is_deleting,
    key_of,
    owner_reference,
    timestamp,
    uid_of,
)
from ambit.local.controllers.schedule import Schedule, parse_schedule

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_LONGEST_WAIT = 3600.0
"""Seconds; the clock may be set meanwhile, so look again at least this often."""


class Plan(msgspec.Struct, frozen=True):
    """What to do now. `start` is the firing time to make a Job for."""

    start: float | None
    delete: tuple[Object, ...]
    check_after: float | None


def plan_cron(cron: Object, jobs: Sequence[Object], schedule: Schedule, zone: tzinfo, now: float) -> Plan:
    """The next step for a CronJob that owns these Jobs. `now`: Unix seconds."""
    spec = cron["spec"]
    delete = _history(cron, jobs)
    if spec.get("suspend") or is_deleting(cron):
        return Plan(None, tuple(delete), None)
    last = (cron.get("status") or {}).get("lastScheduleTime") or cron["metadata"].get("creationTimestamp")
    due, upcoming = _due(schedule, zone, at(last), now)
    wait = min(_LONGEST_WAIT, upcoming - now + 0.05) if upcoming is not None else None
    deadline = spec.get("startingDeadlineSeconds")
    if due is None or (deadline is not None and due + float(deadline) < now):
        return Plan(None, tuple(delete), wait)
    running = [job for job in jobs if not is_finished(job)]
    policy = spec.get("concurrencyPolicy", "Allow")
    if running and policy == "Forbid":
        return Plan(None, tuple(delete), wait)
    if policy == "Replace":
        delete += running
    return Plan(due, tuple(delete), wait)


def _due(schedule: Schedule, zone: tzinfo, last: float, now: float) -> tuple[float | None, float | None]:
    """The last firing time in (last, now], and the first one after now."""
    due: float | None = None
    # A year of missed minutes would be walked for nothing: a day is enough to find the last one of most schedules.
    for since in (max(last, now - 86400.0), last):
        moment = schedule.next_after(datetime.fromtimestamp(since, zone))
        while moment is not None and moment.timestamp() <= now:
            due = moment.timestamp()
            moment = schedule.next_after(moment)
        if due is not None or since == last:
            break
    coming = schedule.next_after(datetime.fromtimestamp(now, zone))
    return due, coming.timestamp() if coming is not None else None


def _history(cron: Object, jobs: Sequence[Object]) -> list[Object]:
    delete: list[Object] = []
    for kind, field, default in (
        ("Complete", "successfulJobsHistoryLimit", 3),
        ("Failed", "failedJobsHistoryLimit", 1),
    ):
        ended = [job for job in jobs if (condition_of(job, kind) or {}).get("status") == "True"]
        ended.sort(key=lambda job: str(job["metadata"].get("creationTimestamp")))
        limit = int(cron["spec"].get(field, default))
        delete += ended[: max(0, len(ended) - limit)]
    return delete


def job_of(cron: Object, scheduled: float) -> Object:
    """The Job of one firing time; its name follows from the time, so it is made once."""
    template = copy.deepcopy(cron["spec"]["jobTemplate"])
    namespace, name = key_of(cron)
    metadata = template.get("metadata") or {}
    return {
        "metadata": {
            "name": f"{name}-{int(scheduled // 60)}",
            "namespace": namespace,
            "labels": metadata.get("labels") or {},
            "annotations": {**(metadata.get("annotations") or {}), SCHEDULED_AT: timestamp(scheduled)},
            "ownerReferences": [owner_reference(CRON_JOBS, cron)],
        },
        "spec": template["spec"],
    }


class CronJobController(Controller):
    """CronJobs -> Jobs."""

    name: ClassVar[str] = "cronjob-controller"

    def __init__(self, caches: Caches) -> None:
        super().__init__(caches)
        self.crons = self.watch(CRON_JOBS)
        self.jobs = self.watch(JOBS, controlled_keys("CronJob"))

    async def reconcile(self, key: Key) -> None:
        cron = self.crons.get(key)
        if cron is None:
            return
        try:
            schedule = parse_schedule(cron["spec"]["schedule"])
            zone = ZoneInfo(cron["spec"]["timeZone"]) if cron["spec"].get("timeZone") else UTC
        except (ValueError, ZoneInfoNotFoundError) as error:
            await self.record(CRON_JOBS, cron, "UnparseableSchedule", str(error), kind="Warning")
            return
        jobs = self.jobs.owned_by(uid_of(cron))
        plan = plan_cron(cron, jobs, schedule, zone, time.time())
        for job in plan.delete:
            await self.remove(JOBS, job)
        status = dict(cron.get("status") or {})
        if plan.start is not None:
            value = job_of(cron, plan.start)
            with suppress(AlreadyExists):
                jobs.append(await self.client.create(JOBS, value))
                text = f"Created job {value['metadata']['name']}"
                await self.record(CRON_JOBS, cron, "SuccessfulCreate", text)
            status["lastScheduleTime"] = timestamp(plan.start)
        status.pop("active", None)
        active = [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "namespace": key[0],
                "name": key_of(job)[1],
                "uid": uid_of(job),
            }
            for job in jobs
            if not is_finished(job) and SCHEDULED_AT in annotations_of(job)
        ]
        if active:
            status["active"] = active
        succeeded = [
            done for job in jobs if (done := (job.get("status") or {}).get("completionTime")) is not None
        ]
        if succeeded:
            status["lastSuccessfulTime"] = max(succeeded)
        await self.write_status(CRON_JOBS, cron, status)
        if plan.check_after is not None:
            self.queue.add_after(key, plan.check_after)
