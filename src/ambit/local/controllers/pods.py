"""What controllers ask about pods: does it count, is it ready or available, which goes first. Pure."""

import copy

from ambit.kube.conditions import has_condition
from ambit.local.controllers.objects import (
    Object,
    annotations_of,
    at,
    condition_of,
    is_deleting,
)

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def is_terminal(pod: Object) -> bool:
    """It has ended and will not run again."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    """It counts as a replica."""
    return not is_deleting(pod) and not is_terminal(pod)


def is_ready(pod: Object) -> bool:
    return has_condition(pod, "Ready")


def available_at(pod: Object, min_ready_seconds: int) -> float | None:
    """When a ready pod counts (or counted) as available, in Unix seconds; None if it is not ready."""
    ready = condition_of(pod, "Ready") or {}
    if ready.get("status") != "True":
        return None
    return at(ready.get("lastTransitionTime")) + min_ready_seconds


def is_available(pod: Object, min_ready_seconds: int, now: float) -> bool:
    due = available_at(pod, min_ready_seconds)
    return due is not None and (min_ready_seconds == 0 or due <= now)


def deletion_order(pod: Object) -> tuple[int, int, int, int, float, int, float]:
    """Sort key: whoever comes first is the least loss. Kubernetes' ReplicaSet controller has this order."""
    status = pod.get("status") or {}
    ready = condition_of(pod, "Ready") or {}
    restarts = max((item.get("restartCount", 0) for item in status.get("containerStatuses") or ()), default=0)
    return (
        1 if pod["spec"].get("nodeName") else 0,
        {"Pending": 0, "Unknown": 1, "Running": 2}.get(status.get("phase", "Pending"), 0),
        1 if is_ready(pod) else 0,
        int(annotations_of(pod).get(DELETION_COST, "0") or 0),
        -at(ready.get("lastTransitionTime")),
        -restarts,
        -at(pod["metadata"].get("creationTimestamp")),
    )


def pod_from_template(
    template: Object, namespace: str, owner: Object, *, name: str = "", prefix: str = ""
) -> Object:
    """A new pod of a template with this owner reference; named, or with a generated name."""
    metadata = template.get("metadata") or {}
    fresh: Object = {"namespace": namespace, "ownerReferences": [owner]}
    if name:
        fresh["name"] = name
    else:
        fresh["generateName"] = prefix
    for field in ("labels", "annotations", "finalizers"):
        if metadata.get(field):
            fresh[field] = copy.copy(metadata[field])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": fresh, "spec": copy.deepcopy(template["spec"])}
