"""Status conditions as lists keyed by type."""

from ambit.local.apiserver import clock
from ambit.local.apiserver.storage.store import Json


def merge_conditions(old: list[Json], new: list[tuple[str, bool, str, str]]) -> list[Json]:
    """Keeps transition times of conditions whose status did not change."""
    former = {one["type"]: one for one in old}
    for kind, good, reason, message in new:
        status = "True" if good else "False"
        last = former.get(kind, {})
        since = last.get("lastTransitionTime") if last.get("status") == status else None
        former[kind] = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since or clock.now(),
        }
    return list(former.values())
