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

import msgspec

from ambit.local.controllers.objects import Object, annotations_of, is_deleting, short_hash
from ambit.local.controllers.rollout_sizes import (
    age_of,
    count_of,
    is_complete,
    maximum_of,
    name_of,
    size_of,
    surge_of,
    unavailable_of,
)
from ambit.local.controllers.rollout_status import rollout_status, seconds_to_deadline

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
    old = sorted((item for item in sets if item is not new), key=age_of)
    revision = annotations_of(deployment).get(REVISION, "")
    actions: list[Create | Adjust | Remove] = []
    if is_deleting(deployment):
        return Plan((), rollout_status(deployment, new, old, now), "", None)
    spec = deployment["spec"]
    total = int(spec.get("replicas", 1))
    recreate = (spec.get("strategy") or {}).get("type") == "Recreate"
    if not spec.get("paused"):
        revision = _next_revision(new, old)
    if spec.get("paused") or _is_resized(deployment, sets):
        actions += _resize(deployment, new, old)
    elif new is None:
        if not recreate or not (old_pods_running or any(map(size_of, old))):
            size = (
                total
                if recreate
                else min(total, max(0, total + surge_of(deployment) - sum(map(size_of, old))))
            )
            actions.append(Create(_new_set(deployment, size, revision)))
        if recreate:
            actions += _shrink(deployment, old, dict.fromkeys(map(name_of, old), 0))
    elif recreate:
        actions += _shrink(deployment, old, dict.fromkeys(map(name_of, old), 0))
        waiting = old_pods_running or any(map(size_of, old))
        actions += _set_size(deployment, new, size_of(new) if waiting else total, revision)
    else:
        actions += _roll(deployment, new, old, revision)
    if new is not None and is_complete(deployment, new, old):
        actions += _forget_history(deployment, old)
    status = rollout_status(deployment, new, old, now)
    return Plan(tuple(actions), status, revision, seconds_to_deadline(deployment, status, now))


def find_new(deployment: Object, sets: Sequence[Object]) -> Object | None:
    """The ReplicaSet of the Deployment's present template: the oldest, if there are several."""
    wanted = _comparable(deployment["spec"]["template"])
    matching = [item for item in sets if _comparable(item["spec"]["template"]) == wanted]
    return min(matching, key=age_of, default=None)


def _comparable(template: Object) -> Object:
    metadata = dict(template.get("metadata") or {})
    metadata.pop("creationTimestamp", None)
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    metadata["labels"] = labels
    return {"metadata": {key: value for key, value in metadata.items() if value}, "spec": template["spec"]}


def _revision(value: Object) -> int:
    text = annotations_of(value).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def _next_revision(new: Object | None, old: Sequence[Object]) -> str:
    highest = max((_revision(item) for item in old), default=0)
    if new is not None and _revision(new) > highest:
        return str(_revision(new))
    return str(highest + 1)


def _bounds(deployment: Object) -> dict[str, str]:
    return {DESIRED: str(deployment["spec"].get("replicas", 1)), MAXIMUM: str(maximum_of(deployment))}


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
        "name": f"{name_of(deployment)}-{digest}",
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
    if size == size_of(value) and annotations == annotations_of(value):
        return []
    return [Adjust(name_of(value), size, annotations, size_of(value))]


def _shrink(
    deployment: Object, sets: Sequence[Object], sizes: dict[str, int]
) -> list[Create | Adjust | Remove]:
    return [
        action
        for item in sets
        if size_of(item) or sizes.get(name_of(item))
        for action in _set_size(deployment, item, sizes.get(name_of(item), size_of(item)))
    ]


def _is_resized(deployment: Object, sets: Sequence[Object]) -> bool:
    wanted = str(deployment["spec"].get("replicas", 1))
    return any(size_of(item) and annotations_of(item).get(DESIRED, wanted) != wanted for item in sets)


def _resize(deployment: Object, new: Object | None, old: Sequence[Object]) -> list[Create | Adjust | Remove]:
    """The Deployment's size changed: every ReplicaSet follows in proportion, the biggest takes the rest."""
    total = int(deployment["spec"].get("replicas", 1))
    active = [item for item in (*old, *((new,) if new else ())) if size_of(item)]
    if len(active) <= 1:
        only = active[0] if active else new or max(old, key=_revision, default=None)
        return _set_size(deployment, only, total) if only is not None else []
    if new is not None and _is_saturated(new):
        return [
            *_shrink(deployment, old, dict.fromkeys(map(name_of, old), 0)),
            *_set_size(deployment, new, total),
        ]
    present = sum(map(size_of, active))
    allowed = maximum_of(deployment) if total else 0
    left = allowed - present
    ordered = sorted(active, key=lambda item: (-size_of(item), age_of(item)))
    sizes: dict[str, int] = {}
    for item in ordered:
        before = int(annotations_of(item).get(MAXIMUM, "0") or 0) or present
        share = round(size_of(item) * allowed / before) - size_of(item)
        share = max(min(share, left), 0) if left >= 0 else min(max(share, left), 0)
        sizes[name_of(item)] = max(0, size_of(item) + share)
        left -= share
    biggest = name_of(ordered[0])
    sizes[biggest] = max(0, sizes[biggest] + left)
    return [action for item in ordered for action in _set_size(deployment, item, sizes[name_of(item)])]


def _is_saturated(new: Object) -> bool:
    wanted = annotations_of(new).get(DESIRED, "")
    return wanted == str(size_of(new)) and count_of(new, "availableReplicas") == size_of(new) > 0


def _roll(
    deployment: Object, new: Object, old: Sequence[Object], revision: str
) -> list[Create | Adjust | Remove]:
    total = int(deployment["spec"].get("replicas", 1))
    present = size_of(new) + sum(map(size_of, old))
    if size_of(new) >= total:
        size = total
    else:
        size = size_of(new) + max(0, min(maximum_of(deployment) - present, total - size_of(new)))
    grown = _set_size(deployment, new, size, revision)
    if size != size_of(new):
        return grown
    return [*grown, *_shrink(deployment, old, _old_sizes(deployment, new, old))]


def _old_sizes(deployment: Object, new: Object, old: Sequence[Object]) -> dict[str, int]:
    """How small the old ReplicaSets may become now: unready pods first, then those that can be spared."""
    sizes = {name_of(item): size_of(item) for item in old}
    floor = int(deployment["spec"].get("replicas", 1)) - unavailable_of(deployment)
    missing_new = size_of(new) - count_of(new, "availableReplicas")
    budget = size_of(new) + sum(sizes.values()) - floor - missing_new
    if budget <= 0:
        return sizes
    for item in old:
        unready = max(0, sizes[name_of(item)] - count_of(item, "availableReplicas"))
        cut = min(unready, budget)
        sizes[name_of(item)] -= cut
        budget -= cut
    available = count_of(new, "availableReplicas") + sum(
        min(count_of(item, "availableReplicas"), sizes[name_of(item)]) for item in old
    )
    spare = min(budget, available - floor)
    for item in old:
        cut = max(0, min(sizes[name_of(item)], spare))
        sizes[name_of(item)] -= cut
        spare -= cut
    return sizes


def _forget_history(deployment: Object, old: Sequence[Object]) -> list[Create | Adjust | Remove]:
    limit = int(deployment["spec"].get("revisionHistoryLimit", 10))
    idle = [
        item for item in old if not size_of(item) and not count_of(item, "replicas") and not is_deleting(item)
    ]
    idle.sort(key=lambda item: (_revision(item), age_of(item)))
    return [Remove(name_of(item)) for item in idle[: max(0, len(idle) - limit)]]
