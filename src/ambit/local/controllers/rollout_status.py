"""The status of a Deployment: counts, and the conditions that `kubectl rollout status` and `wait` follow. Pure."""

from collections.abc import Sequence

from ambit.local.controllers.objects import Object, at, condition_of, timestamp, with_condition
from ambit.local.controllers.rollout_sizes import (
    count_of,
    is_complete,
    name_of,
    size_of,
    unavailable_of,
)


def rollout_status(deployment: Object, new: Object | None, old: Sequence[Object], now: float) -> Object:
    """The Deployment's status as its ReplicaSets show it. `now`: Unix seconds."""
    sets = [*old, *((new,) if new else ())]
    total = int(deployment["spec"].get("replicas", 1))
    available = sum(count_of(item, "availableReplicas") for item in sets)
    present = sum(count_of(item, "replicas") for item in sets)
    counts = {
        "replicas": present,
        "updatedReplicas": count_of(new, "replicas") if new else 0,
        "readyReplicas": sum(count_of(item, "readyReplicas") for item in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, max(total, sum(map(size_of, sets))) - available),
    }
    status: Object = {"observedGeneration": deployment["metadata"].get("generation", 1)}
    status |= {field: count for field, count in counts.items() if count}
    conditions = list((deployment.get("status") or {}).get("conditions") or ())
    enough = available >= total - unavailable_of(deployment)
    condition = {
        "type": "Available",
        "status": "True" if enough else "False",
        "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "message": f"Deployment {'has' if enough else 'does not have'} minimum availability.",
    }
    conditions = _put(conditions, condition, now, touch=False)
    conditions = _progress(deployment, new, old, status, conditions, now)
    failure = next((found for item in sets if (found := condition_of(item, "ReplicaFailure"))), None)
    conditions = [item for item in conditions if item["type"] != "ReplicaFailure"]
    if failure is not None:
        conditions.append({**failure, "lastUpdateTime": failure.get("lastTransitionTime")})
    status["conditions"] = conditions
    return status


def _put(conditions: list[Object], new: Object, now: float, *, touch: bool) -> list[Object]:
    """Deployment conditions also carry lastUpdateTime, from which the progress deadline counts."""
    old = next((item for item in conditions if item["type"] == new["type"]), None)
    same = old is not None and all(old.get(field) == new[field] for field in ("status", "reason"))
    if same and not touch and old is not None and old.get("message") == new["message"]:
        return conditions
    merged = with_condition(conditions, new, now)
    for item in merged:
        if item["type"] == new["type"] and (touch or not same or "lastUpdateTime" not in item):
            item["lastUpdateTime"] = timestamp(now)
    return merged


def _progress(
    deployment: Object,
    new: Object | None,
    old: Sequence[Object],
    status: Object,
    conditions: list[Object],
    now: float,
) -> list[Object]:
    """The Progressing condition, which `kubectl rollout status` and `wait` follow."""
    before = condition_of(deployment, "Progressing")
    if deployment["spec"].get("paused"):
        paused = ("Unknown", "DeploymentPaused", "Deployment is paused")
        return _put(conditions, _progressing(*paused), now, touch=False)
    if new is None:
        text = f'Created new replica set for "{name_of(deployment)}"'
        return _put(conditions, _progressing("True", "NewReplicaSetCreated", text), now, touch=before is None)
    if is_complete(deployment, new, old):
        text = f'ReplicaSet "{name_of(new)}" has successfully progressed.'
        return _put(conditions, _progressing("True", "NewReplicaSetAvailable", text), now, touch=False)
    if _has_moved(deployment, status) or before is None or before["reason"] == "DeploymentPaused":
        text = f'ReplicaSet "{name_of(new)}" is progressing.'
        return _put(conditions, _progressing("True", "ReplicaSetUpdated", text), now, touch=True)
    if before["reason"] == "NewReplicaSetAvailable" and not _is_rolling(deployment, new, old):
        # Complete before, and only availability was lost since: that is no rollout, so no deadline runs.
        return conditions
    limit = float(deployment["spec"].get("progressDeadlineSeconds", 600))
    if at(before.get("lastUpdateTime")) + limit <= now and before["reason"] != "NewReplicaSetAvailable":
        text = f'ReplicaSet "{name_of(new)}" has timed out progressing.'
        return _put(conditions, _progressing("False", "ProgressDeadlineExceeded", text), now, touch=False)
    if before["reason"] == "NewReplicaSetAvailable":
        text = f'ReplicaSet "{name_of(new)}" is progressing.'
        return _put(conditions, _progressing("True", "ReplicaSetUpdated", text), now, touch=True)
    return conditions


def _is_rolling(deployment: Object, new: Object, old: Sequence[Object]) -> bool:
    total = int(deployment["spec"].get("replicas", 1))
    return count_of(new, "replicas") != total or any(
        size_of(item) or count_of(item, "replicas") for item in old
    )


def _has_moved(deployment: Object, status: Object) -> bool:
    """More new, ready or available pods than last written, or fewer old ones."""
    before = deployment.get("status") or {}

    def old_pods(value: Object) -> int:
        return int(value.get("replicas", 0)) - int(value.get("updatedReplicas", 0))

    return old_pods(status) < old_pods(before) or any(
        int(status.get(field, 0)) > int(before.get(field, 0))
        for field in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )


def _progressing(status: str, reason: str, message: str) -> Object:
    return {"type": "Progressing", "status": status, "reason": reason, "message": message}


def seconds_to_deadline(deployment: Object, status: Object, now: float) -> float | None:
    """Seconds until the progress deadline is due; None when none runs."""
    condition = condition_of({"status": status}, "Progressing")
    if condition is None or condition["reason"] not in ("ReplicaSetUpdated", "NewReplicaSetCreated"):
        return None
    limit = float(deployment["spec"].get("progressDeadlineSeconds", 600))
    return max(1.0, at(condition.get("lastUpdateTime")) + limit - now + 1.0)
