"""When a Job starts pods and when it ends."""

from typing import Any

from ambit.local.controllers.job import INDEX, plan_job
from ambit.local.controllers.objects import condition_of, timestamp

Object = dict[str, Any]
NOW = 1_800_000_000.0


def job(status: Object | None = None, **spec: Any) -> Object:
    return {
        "metadata": {"name": "j", "namespace": "default", "uid": "j"},
        "spec": spec,
        "status": status or {},
    }


def pod(phase: str, index: int | None = None, ended: float = NOW - 3600) -> Object:
    annotations = {} if index is None else {INDEX: str(index)}
    state = {"terminated": {"finishedAt": timestamp(ended)}}
    return {
        "metadata": {"name": f"p{index}", "namespace": "default", "annotations": annotations},
        "spec": {},
        "status": {"phase": phase, "containerStatuses": [{"state": state}]},
    }


def verdict(status: Object, kind: str) -> str | None:
    found = condition_of({"status": status}, kind)
    return found["reason"] if found else None


def test_parallelism_and_completions() -> None:
    value = job(parallelism=2, completions=3)
    assert len(plan_job(value, [], NOW).create) == 2
    pods = [pod("Succeeded"), pod("Succeeded")]
    assert len(plan_job(value, pods, NOW).create) == 1
    plan = plan_job(value, [*pods, pod("Succeeded")], NOW)
    assert plan.create == ()
    assert verdict(plan.status, "Complete") == "CompletionsReached"
    assert plan.status["succeeded"] == 3
    assert plan.status["completionTime"] == timestamp(NOW)


def test_a_failure_delays_the_next_try_and_the_limit_ends_it() -> None:
    value = job(parallelism=1, completions=1, backoffLimit=1)
    plan = plan_job(value, [pod("Failed", ended=NOW - 4)], NOW)
    assert plan.create == ()
    assert plan.check_after is not None
    assert 5.5 < plan.check_after < 6.5
    assert len(plan_job(value, [pod("Failed", ended=NOW - 11)], NOW).create) == 1
    plan = plan_job(value, [pod("Failed"), pod("Failed"), pod("Running")], NOW)
    assert verdict(plan.status, "Failed") == "BackoffLimitExceeded"
    assert len(plan.delete) == 1


def test_a_deadline_ends_it() -> None:
    started = {"startTime": timestamp(NOW - 30)}
    value = job(started, parallelism=1, completions=1, activeDeadlineSeconds=20)
    plan = plan_job(value, [pod("Running")], NOW)
    assert verdict(plan.status, "Failed") == "DeadlineExceeded"
    assert len(plan.delete) == 1


def test_indexes_are_given_once_each() -> None:
    value = job(parallelism=3, completions=4, completionMode="Indexed")
    plan = plan_job(value, [pod("Succeeded", 0), pod("Running", 2)], NOW)
    assert plan.create == (1, 3)
    assert plan.status["completedIndexes"] == "0"


def test_a_work_queue_ends_with_its_last_worker() -> None:
    value = job(parallelism=2)
    plan = plan_job(value, [pod("Succeeded"), pod("Running")], NOW)
    assert (plan.create, plan.finished) == ((), False)
    assert plan_job(value, [pod("Succeeded"), pod("Succeeded")], NOW).finished


def test_suspended_jobs_stop_their_pods_and_resume() -> None:
    plan = plan_job(job(parallelism=1, completions=1, suspend=True), [pod("Running")], NOW)
    assert len(plan.delete) == 1
    assert verdict(plan.status, "Suspended") == "JobSuspended"
    resumed = plan_job(job(plan.status, parallelism=1, completions=1, suspend=False), [], NOW)
    assert len(resumed.create) == 1
    assert verdict(resumed.status, "Suspended") == "JobResumed"


def test_a_finished_job_starts_nothing() -> None:
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert plan_job(job(done, parallelism=1, completions=1), [], NOW).create == ()
