"""Create, update, delete: the one way into the store. Synchronous, so that no other request sees a
half-made change.

Order of a write: decode, defaults, what the server owns, rules, admission, store. Spec: apiserver registry
`Store.Create`, `Update`, `Delete`.
"""

import copy
from typing import Any

import msgspec

from ambit.local.apiserver import metadata
from ambit.local.apiserver.addresses import ServiceAddresses
from ambit.local.apiserver.admission import admit
from ambit.local.apiserver.deletion import DeleteOptions, plan_deletion
from ambit.local.apiserver.failures import (
    ApiFailure,
    Cause,
    already_exists,
    bad_request,
    forbidden,
    invalid,
    modified,
    not_found,
)
from ambit.local.apiserver.kinds.custom import CustomKinds
from ambit.local.apiserver.kinds.definitions import STORAGE as DEFINITIONS
from ambit.local.apiserver.patching.apply import Owners
from ambit.local.apiserver.patching.managed import record_write
from ambit.local.apiserver.resources import Registry, Resource
from ambit.local.apiserver.shapes import FieldValidation, Shape, builtin_shape
from ambit.local.apiserver.storage.store import Entry, Json, Store
from ambit.local.apiserver.storage.versions import served, stored
from ambit.local.apiserver.strategies.base import Strategy
from ambit.local.apiserver.strategies.table import NEUTRAL, STRATEGIES

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""Finalizer of a definition while objects of its kind wait for theirs."""


class WriteOptions(msgspec.Struct, frozen=True):
    """Query parameters of writes."""

    dry_run: bool = False
    field_manager: str = "unknown"
    force: bool = False
    named_manager: bool = False
    """Whether the client gave the manager's name (apply needs it)."""
    field_validation: FieldValidation = "Warn"


class Written(msgspec.Struct, frozen=True):
    """What to answer: the object as stored, whether it is new, and warnings."""

    body: Json
    created: bool = False
    warnings: tuple[str, ...] = ()


class Writer:
    """All writes to one store."""

    def __init__(self, store: Store, registry: Registry, custom: CustomKinds) -> None:
        self.store = store
        self.registry = registry
        self.custom = custom
        self.addresses = ServiceAddresses([entry.decode() for entry in store.select("services")])
        self._shapes: dict[tuple[str, str], Shape] = {}

    def shape(self, resource: Resource) -> Shape:
        """Schema and rules of the fields of a kind."""
        if resource.custom:
            return self.custom.shape(resource)
        key = (resource.api_version, resource.kind)
        found = self._shapes.get(key)
        if found is None:
            found = self._shapes[key] = builtin_shape(resource)
        return found

    def strategy(self, resource: Resource) -> Strategy:
        return NEUTRAL if resource.custom else STRATEGIES.get(resource.storage, NEUTRAL)

    def existing(self, resource: Resource, namespace: str, name: str) -> Entry:
        """Raises ApiFailure 404."""
        entry = self.store.get(resource.storage, namespace if resource.namespaced else "", name)
        if entry is None:
            raise not_found(resource.plural, resource.group, name)
        return entry

    def receive(self, resource: Resource, body: Any, options: WriteOptions) -> list[str]:
        """Checks a client's object and drops unknown fields in place. Returns warnings; raises ApiFailure
        400."""
        if not isinstance(body, dict):
            raise bad_request("the body of the request must be an object")
        if not isinstance(body.get("metadata", {}), dict | None):
            raise bad_request(f"{resource.kind}: json: cannot unmarshal metadata into an object")
        for field, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
            if body.get(field) not in (None, "", wanted):
                what = "API version" if field == "apiVersion" else "kind"
                raise bad_request(
                    f"the {what} in the data ({body[field]}) does not match the expected {what} ({wanted})"
                )
            body[field] = wanted
        if body.get("metadata") is None:
            body["metadata"] = {}
        return self.shape(resource).receive(body, options.field_validation)

    def create(
        self,
        resource: Resource,
        namespace: str,
        body: Json,
        options: WriteOptions,
        *,
        applied: Owners | None = None,
    ) -> Written:
        """Stores a new object. Raises ApiFailure (400, 403, 404, 409, 422).

        `applied` are the field owners when it comes from an apply.
        """
        warnings = self.receive(resource, body, options)
        body = stored(resource, body)
        metadata.prepare_create(resource, namespace, body["metadata"])
        name = body["metadata"].get("name") or ""
        if resource.namespaced:
            self._admit_namespace(resource, namespace, name)
        if name and self.store.get(resource.storage, body["metadata"].get("namespace", ""), name):
            raise already_exists(resource.plural, resource.group, name)
        if resource.has_status and resource.custom:
            body.pop("status", None)
        strategy = self.strategy(resource)
        self._default(resource, body)
        strategy.create(self, body)
        try:
            self._validate(resource, body, None)
            warnings += admit(self.store, resource, body, None)
        except ApiFailure:
            strategy.rejected(self, body, None)
            raise
        record_write(resource, self.shape(resource), None, body, options.field_manager, "", applied=applied)
        warnings += strategy.warnings(body)
        if options.dry_run:
            strategy.rejected(self, body, None)
        else:
            self.store.put(resource.storage, body)
        return Written(served(resource, body), created=True, warnings=tuple(warnings))

    def _default(self, resource: Resource, body: Json) -> None:
        if resource.custom:
            body["apiVersion"] = resource.api_version
            self.shape(resource).default(body)
            body["apiVersion"] = resource.stored_api_version
        self.strategy(resource).default(body)

    def _validate(self, resource: Resource, body: Json, old: Json | None, *, content: bool = True) -> None:
        """`content` is False when a status write left everything else as it was."""
        causes = metadata.check(resource, body["metadata"])
        causes += self.shape(resource).validate(body, old)
        if content:
            causes += self.strategy(resource).validate(body, old)
        if causes:
            name = body["metadata"].get("name") or body["metadata"].get("generateName") or ""
            raise invalid(resource.kind, resource.group, name, causes)

    def _admit_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        """Namespace lifecycle: nothing new in a namespace that is missing or ends."""
        entry = self.store.get("namespaces", "", namespace)
        if entry is None:
            raise not_found("namespaces", "", namespace)
        if "deletionTimestamp" in entry.decode()["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = Cause(
                "NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace"
            )
            raise forbidden(resource.plural, resource.group, name, why, [cause])

    def update(
        self,
        resource: Resource,
        entry: Entry,
        body: Json,
        options: WriteOptions,
        subresource: str = "",
        *,
        received: bool = False,
        applied: Owners | None = None,
    ) -> Written:
        """Replaces `entry` by `body`, or only its status. Raises ApiFailure (400, 409, 422).

        `received` says that the body was checked already. `applied` is the new managedFields of an apply.
        """
        if subresource == "status" and isinstance(body, dict):
            body = {key: body[key] for key in ("apiVersion", "kind", "metadata", "status") if key in body}
        warnings = [] if received else self.receive(resource, body, options)
        body = stored(resource, body)
        old = entry.decode()
        given = body["metadata"].get("resourceVersion")
        if given and given != str(entry.revision):
            raise modified(resource.plural, resource.group, entry.name)
        body = _isolate(resource, body, entry.decode(), subresource)
        metadata.prepare_update(resource, body["metadata"], old["metadata"])
        if resource.custom or not subresource:
            self._default(resource, body)
        if not subresource:
            self.strategy(resource).update(self, body, old)
        try:
            self._validate(resource, body, old, content=not subresource)
            if not subresource:
                warnings += admit(self.store, resource, body, old)
        except ApiFailure:
            self.strategy(resource).rejected(self, body, old)
            raise
        if options.dry_run:
            self.strategy(resource).rejected(self, body, old)
        if resource.generation and _content(resource, body) != _content(resource, old):
            body["metadata"]["generation"] = int(old["metadata"].get("generation") or 1) + 1
        record_write(
            resource,
            self.shape(resource),
            old,
            body,
            options.field_manager,
            subresource,
            applied=applied,
        )
        warnings += self.strategy(resource).warnings(body)
        return self._store(resource, entry, body, old, options, warnings)

    def _store(
        self,
        resource: Resource,
        entry: Entry,
        body: Json,
        old: Json,
        options: WriteOptions,
        warnings: list[str],
    ) -> Written:
        if _same(body, old):
            return Written(served(resource, old), warnings=tuple(warnings))
        if options.dry_run:
            return Written(served(resource, body), warnings=tuple(warnings))
        if _may_go(resource, body):
            self._remove(resource, entry)
        else:
            self.store.put(resource.storage, body)
        return Written(served(resource, body), warnings=tuple(warnings))

    def finalize_namespace(self, entry: Entry, body: Json, options: WriteOptions) -> Written:
        """The `finalize` subresource: replaces spec.finalizers; the last one ends the namespace."""
        resource = self.registry.find("", "v1", "namespaces")
        assert resource is not None
        old = entry.decode()
        new = copy.deepcopy(old)
        new["spec"] = {"finalizers": (body.get("spec") or {}).get("finalizers") or []}
        return self._store(resource, entry, new, old, options, [])

    def delete(self, resource: Resource, entry: Entry, options: DeleteOptions) -> tuple[Json, bool]:
        """Removes the object or marks it as terminating. Returns its last state and whether it is gone."""
        old = entry.decode()
        if resource.storage == DEFINITIONS and not options.dry_run and self._delete_instances(entry.name):
            held = old["metadata"].get("finalizers") or []
            old["metadata"]["finalizers"] = list(dict.fromkeys([*held, CLEANUP]))
        changed = plan_deletion(resource, old, options)
        if changed is None:
            if not options.dry_run:
                return self._remove(resource, entry), True
            return old, True
        if not options.dry_run and changed != old:
            if resource.generation and "deletionTimestamp" not in old["metadata"]:
                changed["metadata"]["generation"] = int(old["metadata"].get("generation") or 1) + 1
            self.store.put(resource.storage, changed)
        return changed, False

    def _remove(self, resource: Resource, entry: Entry) -> Json:
        gone = self.store.delete(resource.storage, entry.namespace, entry.name)
        body = gone.decode()
        self.strategy(resource).deleted(self, body)
        if resource.custom:
            self._finish_definition(resource.custom)
        return body

    def _delete_instances(self, definition: str) -> bool:
        """Objects of a custom kind go with their definition; whether some wait for their finalizers."""
        resource = next((one for one in self.registry if one.custom == definition), None)
        if resource is None:
            return False
        for entry in self.store.select(resource.storage):
            self.delete(resource, entry, DeleteOptions())
        return bool(self.store.select(resource.storage))

    def _finish_definition(self, definition: str) -> None:
        """Ends a definition that waits for its last object."""
        entry = self.store.get(DEFINITIONS, "", definition)
        if entry is None:
            return
        body = entry.decode()
        finalizers = body["metadata"].get("finalizers") or []
        if CLEANUP not in finalizers or self.store.select(definition):
            return
        body["metadata"]["finalizers"] = [one for one in finalizers if one != CLEANUP]
        if body["metadata"]["finalizers"]:
            self.store.put(DEFINITIONS, body)
        else:
            self.store.delete(DEFINITIONS, "", definition)


_METADATA_WITH_STATUS = frozenset({("", "pods"), ("", "nodes")})
"""Built-in kinds whose status subresource takes labels and annotations as well (`registry/core/pod/strategy.go`)."""


def _isolate(resource: Resource, body: Json, old: Json, subresource: str) -> Json:
    """A status write changes only status; other writes leave status alone. Takes parts of `old`."""
    if subresource == "status":
        if (resource.group, resource.plural) in _METADATA_WITH_STATUS:
            owners = old["metadata"].get("ownerReferences")
            old["metadata"] = {**body["metadata"], **({"ownerReferences": owners} if owners else {})}
        kept = old
        if "status" in body:
            kept["status"] = body["status"]
        else:
            kept.pop("status", None)
        if "managedFields" in body["metadata"]:
            kept["metadata"]["managedFields"] = body["metadata"]["managedFields"]
        return kept
    if resource.has_status:
        body.pop("status", None)
        if "status" in old:
            body["status"] = old["status"]
    return body


def _content(resource: Resource, body: Json) -> Json:
    """What metadata.generation counts changes of."""
    skipped = {"metadata", "status"} if resource.has_status else {"metadata"}
    return {key: value for key, value in body.items() if key not in skipped}


def _same(body: Json, old: Json) -> bool:
    """Whether nothing changed but bookkeeping."""
    if body == old:
        return True
    if any(body.get(key) != old.get(key) for key in (body.keys() | old.keys()) - {"metadata"}):
        return False
    return _bare(body["metadata"]) == _bare(old["metadata"])


def _bare(meta: Json) -> Json:
    bare = {key: value for key, value in meta.items() if key not in {"resourceVersion", "managedFields"}}
    fields = meta.get("managedFields") or ()
    bare["managedFields"] = [{key: one[key] for key in one if key != "time"} for one in fields]
    return bare


def _may_go(resource: Resource, body: Json) -> bool:
    """A terminating object without finalizers is removed by the update that took the last one."""
    meta = body["metadata"]
    if "deletionTimestamp" not in meta or meta.get("finalizers"):
        return False
    if resource.storage == "namespaces":
        return not (body.get("spec") or {}).get("finalizers")
    if resource.storage == DEFINITIONS:
        return True
    return not meta.get("deletionGracePeriodSeconds")
