"""What a delete request does to an object: removes it, or marks it and waits for finalizers or a grace
period.

Spec: apiserver `BeforeDelete`, `deletionFinalizersForGarbageCollection`, pod strategy `CheckGracefulDelete`.
"""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from ambit.local.apiserver import clock
from ambit.local.apiserver.failures import bad_request, conflict, forbidden
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.storage.store import Json

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_KEPT_NAMESPACES = {"default", "kube-system", "kube-public"}


class Preconditions(msgspec.Struct, frozen=True, rename="camel"):
    uid: str | None = None
    resource_version: str | None = None


class DeleteOptions(msgspec.Struct, frozen=True, rename="camel"):
    """meta/v1 DeleteOptions, from body or query."""

    grace_period_seconds: int | None = None
    propagation_policy: Literal["Orphan", "Background", "Foreground"] | None = None
    orphan_dependents: bool | None = None
    preconditions: Preconditions | None = None
    dry_run: bool = False


def read_options(body: Any, query: dict[str, str]) -> DeleteOptions:
    """Body wins over query. Raises ApiFailure 400."""
    given = dict(body or {})
    for key in ("gracePeriodSeconds", "propagationPolicy", "orphanDependents"):
        if key in query:
            given.setdefault(key, query[key])
    given["dryRun"] = "All" in (given.get("dryRun") or []) or query.get("dryRun") == "All"
    try:
        return msgspec.convert(given, DeleteOptions, strict=False)
    except msgspec.ValidationError as error:
        raise bad_request(f"DeleteOptions: {error}") from error


def plan_deletion(resource: Resource, body: Json, options: DeleteOptions) -> Json | None:
    """The object marked as terminating, or None when it goes at once. Raises ApiFailure 403 or 409."""
    meta = body["metadata"]
    _check(resource, meta, options)
    body = copy.deepcopy(body)
    meta = body["metadata"]
    finalizers = _finalizers(meta, options)
    grace = _grace(resource, body, options)
    waits = bool(finalizers) or grace > 0
    if resource.storage == "namespaces":
        waits = waits or bool((body.get("spec") or {}).get("finalizers"))
        body["status"] = {**(body.get("status") or {}), "phase": "Terminating"}
    if not waits:
        return None
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    _mark(meta, grace, graceful=resource.storage == "pods")
    return body


def _check(resource: Resource, meta: Json, options: DeleteOptions) -> None:
    wanted = options.preconditions
    name = meta["name"]
    if wanted and wanted.uid is not None and wanted.uid != meta["uid"]:
        why = f"Precondition failed: UID in precondition: {wanted.uid}, UID in object meta: {meta['uid']}"
        raise conflict(resource.plural, resource.group, name, why)
    if wanted and wanted.resource_version not in {None, meta["resourceVersion"]}:
        why = (
            f"Precondition failed: ResourceVersion in precondition: {wanted.resource_version}, "
            f"ResourceVersion in object meta: {meta['resourceVersion']}"
        )
        raise conflict(resource.plural, resource.group, name, why)
    if resource.storage == "namespaces" and name in _KEPT_NAMESPACES:
        raise forbidden("namespaces", "", name, "this namespace may not be deleted")


def _finalizers(meta: Json, options: DeleteOptions) -> list[str]:
    found = list(meta.get("finalizers") or [])
    policy = options.propagation_policy
    if policy is None and options.orphan_dependents is not None:
        policy = "Orphan" if options.orphan_dependents else "Background"
    if policy is None:
        return found
    found = [one for one in found if one not in {ORPHAN, FOREGROUND}]
    if policy == "Orphan":
        found.append(ORPHAN)
    elif policy == "Foreground":
        found.append(FOREGROUND)
    return found


def _grace(resource: Resource, body: Json, options: DeleteOptions) -> int:
    """Seconds; only pods that run have any."""
    if resource.storage != "pods":
        return 0
    spec, phase = body.get("spec") or {}, (body.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in {"Succeeded", "Failed"}:
        return 0
    wanted = options.grace_period_seconds
    if wanted is None:
        wanted = int(spec.get("terminationGracePeriodSeconds") or 0)
    held = body["metadata"].get("deletionGracePeriodSeconds")
    return max(wanted, 0) if held is None else min(max(wanted, 0), int(held))


def _mark(meta: Json, grace: int, *, graceful: bool) -> None:
    held = meta.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" in meta and (not graceful or held == grace):
        return
    meta["deletionTimestamp"] = clock.stamp(datetime.now(UTC) + timedelta(seconds=grace))
    meta["deletionGracePeriodSeconds"] = grace
