"""Sizes and limits of a Deployment and its ReplicaSets, as its rollout counts them. Pure."""

from collections.abc import Sequence
from typing import Any

from ambit.local.controllers.objects import Object, scaled


def name_of(value: Object) -> str:
    return str(value["metadata"]["name"])


def age_of(value: Object) -> tuple[str, str]:
    """Sort key: oldest first, then by name."""
    return value["metadata"].get("creationTimestamp") or "", name_of(value)


def size_of(value: Object) -> int:
    """How many pods a ReplicaSet shall have."""
    return int(value["spec"].get("replicas", 1))


def count_of(value: Object, field: str) -> int:
    """A counter of a ReplicaSet's status; 0 when it is not there."""
    return int((value.get("status") or {}).get(field, 0))


def surge_of(deployment: Object) -> int:
    """How many pods more than wanted a rollout may have."""
    total = int(deployment["spec"].get("replicas", 1))
    return scaled(_rolling(deployment).get("maxSurge", "25%"), total, round_up=True)


def unavailable_of(deployment: Object) -> int:
    """How many of the wanted pods a rollout may leave unavailable."""
    total = int(deployment["spec"].get("replicas", 1))
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        return 0
    allowed = scaled(_rolling(deployment).get("maxUnavailable", "25%"), total, round_up=False)
    if allowed == 0 and surge_of(deployment) == 0:
        # Nothing could ever move; Kubernetes allows one pod in this case.
        allowed = 1
    return min(allowed, total)


def _rolling(deployment: Object) -> dict[str, Any]:
    return (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}


def maximum_of(deployment: Object) -> int:
    """How many pods a Deployment may have at any time."""
    total = int(deployment["spec"].get("replicas", 1))
    recreate = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
    return total if recreate else total + surge_of(deployment)


def is_complete(deployment: Object, new: Object, old: Sequence[Object]) -> bool:
    """All pods are of the new template and available, and none is left of an old one."""
    total = int(deployment["spec"].get("replicas", 1))
    return (
        size_of(new) == total
        and count_of(new, "replicas") == total
        and count_of(new, "availableReplicas") == total
        and not any(size_of(item) or count_of(item, "replicas") for item in old)
    )
