"""Cron schedules, and what a CronJob does at a firing time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.local.controllers.cron_job import job_of, plan_cron
from ambit.local.controllers.schedule import parse_schedule

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("*/15 * * * *", "2026-01-01T00:01", "2026-01-01T00:15"),
        ("0 9-17/4 * * mon-fri", "2026-01-02T14:00", "2026-01-02T17:00"),
        ("0 9-17/4 * * mon-fri", "2026-01-02T18:00", "2026-01-05T09:00"),
        ("30 6 1 jan,jul *", "2026-01-01T06:30", "2026-07-01T06:30"),
        ("0 0 13 * 5", "2026-01-01T00:00", "2026-01-02T00:00"),
        ("0 0 13 * *", "2026-01-01T00:00", "2026-01-13T00:00"),
        ("0 0 * * 7", "2026-01-01T00:00", "2026-01-04T00:00"),
        ("@monthly", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00"),
    ],
)
def test_the_next_time(text: str, after: str, expected: str) -> None:
    found = parse_schedule(text).next_after(datetime.fromisoformat(after))
    assert found == datetime.fromisoformat(expected)


def test_a_day_that_never_comes() -> None:
    assert parse_schedule("0 0 30 2 *").next_after(datetime(2026, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "*/0 * * * *", "5-1 * * * *", "x * * * *", "@often"]
)
def test_wrong_schedules(text: str) -> None:
    with pytest.raises(ValueError, match=r"fields|within|step|number"):
        parse_schedule(text)


@given(st.integers(0, 59), st.integers(0, 23), st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
def test_a_daily_time_is_at_most_a_day_away(minute: int, hour: int, moment: datetime) -> None:
    found = parse_schedule(f"{minute} {hour} * * *").next_after(moment)
    assert found is not None
    assert timedelta(0) < found - moment <= timedelta(days=1)
    assert (found.minute, found.hour) == (minute, hour)


def cron(**spec: Any) -> Object:
    metadata = {"name": "c", "namespace": "default", "uid": "c", "creationTimestamp": "2026-01-01T00:00:30Z"}
    template = {"spec": {"template": {}}}
    return {"metadata": metadata, "spec": {"schedule": "* * * * *", "jobTemplate": template, **spec}}


def job(name: str, finished: str = "") -> Object:
    status = {"conditions": [{"type": finished, "status": "True"}]} if finished else {}
    return {"metadata": {"name": name, "namespace": "default", "creationTimestamp": name}, "status": status}


NOW = datetime(2026, 1, 1, 0, 5, 10, tzinfo=UTC).timestamp()
SCHEDULE = parse_schedule("* * * * *")


def test_of_missed_times_only_the_last_is_made_up_for() -> None:
    plan = plan_cron(cron(), [], SCHEDULE, UTC, NOW)
    assert plan.start == NOW - 10
    assert plan.check_after == pytest.approx(50.05)
    value = cron()
    value["status"] = {"lastScheduleTime": "2026-01-01T00:05:00Z"}
    assert plan_cron(value, [], SCHEDULE, UTC, NOW).start is None


def test_concurrency_and_suspension() -> None:
    running = [job("1")]
    assert plan_cron(cron(), running, SCHEDULE, UTC, NOW).start is not None
    assert plan_cron(cron(concurrencyPolicy="Forbid"), running, SCHEDULE, UTC, NOW).start is None
    plan = plan_cron(cron(concurrencyPolicy="Replace"), running, SCHEDULE, UTC, NOW)
    assert plan.start is not None
    assert list(plan.delete) == running
    assert plan_cron(cron(suspend=True), [], SCHEDULE, UTC, NOW).start is None
    assert plan_cron(cron(startingDeadlineSeconds=5), [], SCHEDULE, UTC, NOW).start is None


def test_history_is_limited() -> None:
    jobs = [job(str(n), "Complete") for n in range(5)] + [job(f"f{n}", "Failed") for n in range(2)]
    plan = plan_cron(cron(suspend=True), jobs, SCHEDULE, UTC, NOW)
    assert [item["metadata"]["name"] for item in plan.delete] == ["0", "1", "f0"]


def test_one_time_gives_one_name() -> None:
    assert job_of(cron(), NOW)["metadata"]["name"] == job_of(cron(), NOW + 5)["metadata"]["name"]
