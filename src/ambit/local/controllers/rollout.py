"""What a Deployment must do next, as a pure function of it and its ReplicaSets.

1. The ReplicaSet whose template equals the Deployment's is the new one; every other is old.
2. RollingUpdate never plans more than replicas + maxSurge pods, and takes available pods away only down to
   replicas - maxUnavailable.
3. Recreate makes the first new pod after the last old one has ended.
4. Paused: templates are not rolled, but scaling still happens, in proportion to the sizes.
5. Old, empty ReplicaSets beyond the history limit are deleted, oldest revision first.

The arithmetic, annotations and conditions are those of Kubernetes' Deployment controller, because kubectl
rollout reads them.
"""

import copy
from collections.abc import Sequence
from typing import Any

import msgspec

from ambit.local.controllers.objects import (
    Object,
    annotations_of,
    at,
    condition_of,
    is_deleting,
    scaled,
    short_hash,
    timestamp,
    with_condition,
)

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = frozenset({"kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED, MAXIMUM})


class Create(msgspec.Struct, frozen=True):
    """Create this ReplicaSet (without owner reference)."""

    value: Object


class Adjust(msgspec.Struct, frozen=True):
    """Change a ReplicaSet's size and annotations."""

    name: str
    replicas: int
    annotations: dict[str, str]
    before: int


class Remove(msgspec.Struct, frozen=True):
    """Delete a ReplicaSet that history no longer needs."""

    name: str


class Plan(msgspec.Struct, frozen=True):
    """What to write now. `revision` belongs in the Deployment's annotations ("" leaves it alone)."""

    actions: tuple[Create | Adjust | Remove, ...]
    status: Object
    revision: str
    check_after: float | None
    """Seconds until time alone may change the status (progress deadline)."""


def plan_rollout(deployment: Object, sets: Sequence[Object], *, old_pods_running: bool, now: float) -> Plan:
    """The next step for a Deployment that controls these ReplicaSets.

    `old_pods_running`: whether a pod of an old ReplicaSet still exists that has not ended. `now`: Unix
    seconds.
    """
    new = find_new(deployment, sets)
    old = sorted((item for item in sets if item is not new), key=_age)
    revision = annotations_of(deployment).get(REVISION, "")
    actions: list[Create | Adjust | Remove] = []
    if is_deleting(deployment):
        return Plan((), _status(deployment, new, old, now), "", None)
    spec = deployment["spec"]
    total = int(spec.get("replicas", 1))
    recreate = (spec.get("strategy") or {}).get("type") == "Recreate"
    if not spec.get("paused"):
        revision = _next_revision(new, old)
    if spec.get("paused") or _is_resized(deployment, sets):
        actions += _resize(deployment, new, old, revision)
    elif new is None:
        if not recreate or not (old_pods_running or any(map(_size, old))):
            size = (
                total if recreate else min(total, max(0, total + _surge(deployment) - sum(map(_size, old))))
            )
            actions.append(Create(_new_set(deployment, size, revision)))
        if recreate:
            actions += _shrink(deployment, old, dict.fromkeys(map(_name, old), 0))
    elif recreate:
        actions += _shrink(deployment, old, dict.fromkeys(map(_name, old), 0))
        waiting = old_pods_running or any(map(_size, old))
        actions += _set_size(deployment, new, _size(new) if waiting else total, revision)
    else:
        actions += _roll(deployment, new, old, revision)
    if new is not None and _is_complete(deployment, new, old):
        actions += _forget_history(deployment, old)
    status = _status(deployment, new, old, now)
    return Plan(tuple(actions), status, revision, _deadline(deployment, status, now))


def find_new(deployment: Object, sets: Sequence[Object]) -> Object | None:
    """The ReplicaSet of the Deployment's present template: the oldest, if there are several."""
    wanted = _comparable(deployment["spec"]["template"])
    matching = [item for item in sets if _comparable(item["spec"]["template"]) == wanted]
    return min(matching, key=_age, default=None)


def _comparable(template: Object) -> Object:
    metadata = dict(template.get("metadata") or {})
    metadata.pop("creationTimestamp", None)
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    metadata["labels"] = labels
    return {"metadata": {key: value for key, value in metadata.items() if value}, "spec": template["spec"]}


def _name(value: Object) -> str:
    return str(value["metadata"]["name"])


def _age(value: Object) -> tuple[str, str]:
    return value["metadata"].get("creationTimestamp") or "", _name(value)


def _size(value: Object) -> int:
    return int(value["spec"].get("replicas", 1))


def _count(value: Object, field: str) -> int:
    return int((value.get("status") or {}).get(field, 0))


def _revision(value: Object) -> int:
    text = annotations_of(value).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def _surge(deployment: Object) -> int:
    total = int(deployment["spec"].get("replicas", 1))
    return scaled(_rolling(deployment).get("maxSurge", "25%"), total, round_up=True)


def _unavailable(deployment: Object) -> int:
    total = int(deployment["spec"].get("replicas", 1))
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        return 0
    allowed = scaled(_rolling(deployment).get("maxUnavailable", "25%"), total, round_up=False)
    if allowed == 0 and _surge(deployment) == 0:
        # Nothing could ever move; Kubernetes allows one pod in this case.
        allowed = 1
    return min(allowed, total)


def _rolling(deployment: Object) -> dict[str, Any]:
    return (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}


def _maximum(deployment: Object) -> int:
    total = int(deployment["spec"].get("replicas", 1))
    recreate = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
    return total if recreate else total + _surge(deployment)


def _next_revision(new: Object | None, old: Sequence[Object]) -> str:
    highest = max((_revision(item) for item in old), default=0)
    if new is not None and _revision(new) > highest:
        return str(_revision(new))
    return str(highest + 1)


def _bounds(deployment: Object) -> dict[str, str]:
    return {DESIRED: str(deployment["spec"].get("replicas", 1)), MAXIMUM: str(_maximum(deployment))}


def _copied(deployment: Object) -> dict[str, str]:
    return {key: value for key, value in annotations_of(deployment).items() if key not in _NOT_COPIED}


def _new_set(deployment: Object, size: int, revision: str) -> Object:
    template = copy.deepcopy(deployment["spec"]["template"])
    digest = short_hash(_comparable(template))
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest}
    template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
    template["metadata"].pop("creationTimestamp", None)
    selector = copy.deepcopy(deployment["spec"]["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}
    spec: Object = {"replicas": size, "selector": selector, "template": template}
    if deployment["spec"].get("minReadySeconds"):
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    metadata = {
        "name": f"{_name(deployment)}-{digest}",
        "namespace": deployment["metadata"]["namespace"],
        "labels": labels,
        "annotations": {**_copied(deployment), **_bounds(deployment), REVISION: revision},
    }
    return {"metadata": metadata, "spec": spec}


def _set_size(
    deployment: Object, value: Object, size: int, revision: str = ""
) -> list[Create | Adjust | Remove]:
    annotations = {**annotations_of(value), **_bounds(deployment)}
    if revision:
        annotations |= {**_copied(deployment), REVISION: revision}
    if size == _size(value) and annotations == annotations_of(value):
        return []
    return [Adjust(_name(value), size, annotations, _size(value))]


def _shrink(
    deployment: Object, sets: Sequence[Object], sizes: dict[str, int]
) -> list[Create | Adjust | Remove]:
    return [
        action
        for item in sets
        if _size(item) or sizes.get(_name(item))
        for action in _set_size(deployment, item, sizes.get(_name(item), _size(item)))
    ]


def _is_resized(deployment: Object, sets: Sequence[Object]) -> bool:
    wanted = str(deployment["spec"].get("replicas", 1))
    return any(_size(item) and annotations_of(item).get(DESIRED, wanted) != wanted for item in sets)


def _resize(
    deployment: Object, new: Object | None, old: Sequence[Object], revision: str
) -> list[Create | Adjust | Remove]:
    """The Deployment's size changed: every ReplicaSet follows in proportion, the biggest takes the rest."""
    total = int(deployment["spec"].get("replicas", 1))
    active = [item for item in (*old, *((new,) if new else ())) if _size(item)]
    if len(active) <= 1:
        only = active[0] if active else new or max(old, key=_revision, default=None)
        return _set_size(deployment, only, total) if only is not None else []
    if new is not None and _is_saturated(deployment, new):
        return [
            *_shrink(deployment, old, dict.fromkeys(map(_name, old), 0)),
            *_set_size(deployment, new, total),
        ]
    present = sum(map(_size, active))
    allowed = _maximum(deployment) if total else 0
    left = allowed - present
    ordered = sorted(active, key=lambda item: (-_size(item), _age(item)))
    sizes: dict[str, int] = {}
    for item in ordered:
        before = int(annotations_of(item).get(MAXIMUM, "0") or 0) or present
        share = round(_size(item) * allowed / before) - _size(item)
        share = max(min(share, left), 0) if left >= 0 else min(max(share, left), 0)
        sizes[_name(item)] = max(0, _size(item) + share)
        left -= share
    biggest = _name(ordered[0])
    sizes[biggest] = max(0, sizes[biggest] + left)
    return [action for item in ordered for action in _set_size(deployment, item, sizes[_name(item)])]


def _is_saturated(deployment: Object, new: Object) -> bool:
    wanted = annotations_of(new).get(DESIRED, "")
    return wanted == str(_size(new)) and _count(new, "availableReplicas") == _size(new) > 0


def _roll(
    deployment: Object, new: Object, old: Sequence[Object], revision: str
) -> list[Create | Adjust | Remove]:
    total = int(deployment["spec"].get("replicas", 1))
    present = _size(new) + sum(map(_size, old))
    if _size(new) >= total:
        size = total
    else:
        size = _size(new) + max(0, min(_maximum(deployment) - present, total - _size(new)))
    grown = _set_size(deployment, new, size, revision)
    if size != _size(new):
        return grown
    return [*grown, *_shrink(deployment, old, _old_sizes(deployment, new, old))]


def _old_sizes(deployment: Object, new: Object, old: Sequence[Object]) -> dict[str, int]:
    """How small the old ReplicaSets may become now: unready pods first, then those that can be spared."""
    sizes = {_name(item): _size(item) for item in old}
    floor = int(deployment["spec"].get("replicas", 1)) - _unavailable(deployment)
    missing_new = _size(new) - _count(new, "availableReplicas")
    budget = _size(new) + sum(sizes.values()) - floor - missing_new
    if budget <= 0:
        return sizes
    for item in old:
        unready = max(0, sizes[_name(item)] - _count(item, "availableReplicas"))
        cut = min(unready, budget)
        sizes[_name(item)] -= cut
        budget -= cut
    available = _count(new, "availableReplicas") + sum(
        min(_count(item, "availableReplicas"), sizes[_name(item)]) for item in old
    )
    spare = min(budget, available - floor)
    for item in old:
        cut = max(0, min(sizes[_name(item)], spare))
        sizes[_name(item)] -= cut
        spare -= cut
    return sizes


def _is_complete(deployment: Object, new: Object, old: Sequence[Object]) -> bool:
    total = int(deployment["spec"].get("replicas", 1))
    return (
        _size(new) == total
        and _count(new, "replicas") == total
        and _count(new, "availableReplicas") == total
        and not any(_size(item) or _count(item, "replicas") for item in old)
    )


def _forget_history(deployment: Object, old: Sequence[Object]) -> list[Create | Adjust | Remove]:
    limit = int(deployment["spec"].get("revisionHistoryLimit", 10))
    idle = [
        item for item in old if not _size(item) and not _count(item, "replicas") and not is_deleting(item)
    ]
    idle.sort(key=lambda item: (_revision(item), _age(item)))
    return [Remove(_name(item)) for item in idle[: max(0, len(idle) - limit)]]


def _status(deployment: Object, new: Object | None, old: Sequence[Object], now: float) -> Object:
    sets = [*old, *((new,) if new else ())]
    total = int(deployment["spec"].get("replicas", 1))
    available = sum(_count(item, "availableReplicas") for item in sets)
    present = sum(_count(item, "replicas") for item in sets)
    counts = {
        "replicas": present,
        "updatedReplicas": _count(new, "replicas") if new else 0,
        "readyReplicas": sum(_count(item, "readyReplicas") for item in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, max(total, sum(map(_size, sets))) - available),
    }
    status: Object = {"observedGeneration": deployment["metadata"].get("generation", 1)}
    status |= {field: count for field, count in counts.items() if count}
    conditions = list((deployment.get("status") or {}).get("conditions") or ())
    enough = available >= total - _unavailable(deployment)
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
        text = f'Created new replica set for "{_name(deployment)}"'
        return _put(conditions, _progressing("True", "NewReplicaSetCreated", text), now, touch=before is None)
    if _is_complete(deployment, new, old):
        text = f'ReplicaSet "{_name(new)}" has successfully progressed.'
        return _put(conditions, _progressing("True", "NewReplicaSetAvailable", text), now, touch=False)
    if _has_moved(deployment, status) or before is None or before["reason"] == "DeploymentPaused":
        text = f'ReplicaSet "{_name(new)}" is progressing.'
        return _put(conditions, _progressing("True", "ReplicaSetUpdated", text), now, touch=True)
    if before["reason"] == "NewReplicaSetAvailable" and not _is_rolling(deployment, new, old):
        # Complete before, and only availability was lost since: that is no rollout, so no deadline runs.
        return conditions
    limit = float(deployment["spec"].get("progressDeadlineSeconds", 600))
    if at(before.get("lastUpdateTime")) + limit <= now and before["reason"] != "NewReplicaSetAvailable":
        text = f'ReplicaSet "{_name(new)}" has timed out progressing.'
        return _put(conditions, _progressing("False", "ProgressDeadlineExceeded", text), now, touch=False)
    if before["reason"] == "NewReplicaSetAvailable":
        text = f'ReplicaSet "{_name(new)}" is progressing.'
        return _put(conditions, _progressing("True", "ReplicaSetUpdated", text), now, touch=True)
    return conditions


def _is_rolling(deployment: Object, new: Object, old: Sequence[Object]) -> bool:
    total = int(deployment["spec"].get("replicas", 1))
    return _count(new, "replicas") != total or any(_size(item) or _count(item, "replicas") for item in old)


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


def _deadline(deployment: Object, status: Object, now: float) -> float | None:
    condition = condition_of({"status": status}, "Progressing")
    if condition is None or condition["reason"] not in ("ReplicaSetUpdated", "NewReplicaSetCreated"):
        return None
    limit = float(deployment["spec"].get("progressDeadlineSeconds", 600))
    return max(1.0, at(condition.get("lastUpdateTime")) + limit - now + 1.0)
