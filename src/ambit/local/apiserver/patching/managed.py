"""metadata.managedFields: who wrote which field, kept up to date by every write.

Events and Leases are not tracked: they are written all the time and never applied.
"""

from typing import Any

from ambit.local.apiserver import clock
from ambit.local.apiserver.patching.apply import Owner, Owners, same_owner
from ambit.local.apiserver.patching.fieldset import (
    MISSING,
    Paths,
    changes,
    from_fields,
    lookup,
    to_fields,
)
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.shapes import Shape
from ambit.local.apiserver.storage.store import Json

_UNTRACKED = {"events", "leases.coordination.k8s.io"}
_SERVER_META = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generateName",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)


def bare(body: Json) -> Json:
    """The object without what nobody owns."""
    kept = {key: value for key, value in body.items() if key not in {"apiVersion", "kind", "metadata"}}
    metadata = {key: value for key, value in (body.get("metadata") or {}).items() if key not in _SERVER_META}
    return {**kept, "metadata": metadata} if metadata else kept


def read_owners(metadata: Json) -> Owners:
    """The owners that an object's managedFields name."""
    owners: Owners = {}
    for entry in metadata.get("managedFields") or ():
        if not isinstance(entry, dict) or not entry.get("manager"):
            continue
        owner = Owner(
            entry["manager"],
            entry.get("operation") or "Update",
            entry.get("subresource") or "",
            entry.get("apiVersion") or "",
        )
        owners[owner] = owners.get(owner, frozenset()) | from_fields(entry.get("fieldsV1"))
    return owners


def write_owners(metadata: Json, owners: Owners) -> None:
    """Sets managedFields; entries that did not change keep their time."""
    former = {
        _identity(entry): entry for entry in metadata.get("managedFields") or () if isinstance(entry, dict)
    }
    entries = []
    for owner, paths in owners.items():
        if not paths:
            continue
        entry: Json = {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            "time": clock.now(),
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields(paths),
        }
        if owner.subresource:
            entry["subresource"] = owner.subresource
        last = former.get(_identity(entry))
        if last and last.get("fieldsV1") == entry["fieldsV1"]:
            entry["time"] = last.get("time") or entry["time"]
        entries.append(entry)
    metadata.pop("managedFields", None)
    if entries:
        order = sorted(entries, key=lambda one: (one["operation"] != "Apply", one["time"], one["manager"]))
        metadata["managedFields"] = order


def _identity(entry: Json) -> tuple[Any, ...]:
    fields = ("manager", "operation", "subresource", "apiVersion")
    return tuple(entry.get(field) or "" for field in fields)


def record_write(
    resource: Resource,
    shape: Shape,
    old: Json | None,
    body: Json,
    manager: str,
    subresource: str,
    *,
    applied: Owners | None = None,
) -> None:
    """Sets managedFields of `body`: the given owners after an apply, else `manager` for what it changed."""
    metadata = body["metadata"]
    given = metadata.pop("managedFields", None)
    if resource.storage in _UNTRACKED:
        return
    if old is not None and "managedFields" in old["metadata"]:
        metadata["managedFields"] = old["metadata"]["managedFields"]
    if applied is not None:
        write_owners(metadata, _existing(shape, applied, body))
        return
    if given == [{}]:
        metadata.pop("managedFields", None)
    elif given and old is not None and given != old["metadata"].get("managedFields"):
        metadata["managedFields"] = given
    me = Owner(manager[:128], "Update", subresource, resource.api_version)
    write_owners(metadata, _update(shape, old, body, me, read_owners(metadata)))


def _existing(shape: Shape, owners: Owners, body: Json) -> Owners:
    """Owners of fields that are still there."""
    content = bare(body)
    return {
        owner: frozenset(
            path for path in paths if lookup(shape.schema, content, path, shape.resolve) is not MISSING
        )
        for owner, paths in owners.items()
    }


def _update(shape: Shape, old: Json | None, body: Json, me: Owner, owners: Owners) -> Owners:
    """What changed belongs to the writer alone; what is gone belongs to nobody."""
    schema, resolve = shape.schema, shape.resolve
    before, after = bare(old) if old else {}, bare(body)
    if before == after:
        return owners
    gained, lost = changes(schema, before, after, resolve)
    lost |= gained
    mine: Paths = gained
    result: Owners = {}
    for owner, paths in owners.items():
        if same_owner(owner, me):
            mine |= paths - lost
        else:
            result[owner] = paths - lost
    result[me] = mine
    return result
