"""PATCH requests of all four kinds, on objects and their status."""

from typing import Any

import msgspec

from ambit.local.apiserver import negotiation
from ambit.local.apiserver.failures import ApiFailure, Cause, bad_request, not_found, unsupported_media_type
from ambit.local.apiserver.patching.apply import Owner, apply
from ambit.local.apiserver.patching.fieldset import Paths, paths_of, text
from ambit.local.apiserver.patching.managed import bare, read_owners
from ambit.local.apiserver.patching.patch_json import json_patch, merge_patch
from ambit.local.apiserver.requests import Target
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.storage import versions
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.writes import WriteOptions, Writer, Written
from ambit.objects.strategic import PatchError, strategic_patch

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class Patches:
    """Applies patches to what is stored now; no retry is needed because nothing runs in between."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def patch(
        self,
        resource: Resource,
        target: Target,
        media: str,
        data: bytes,
        options: WriteOptions,
        subresource: str,
    ) -> Written:
        """Raises ApiFailure 400, 404, 409, 415, 422."""
        strategic = self._writer.shape(resource).strategic()
        supported = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH, *([STRATEGIC_PATCH] if strategic else [])]
        if media not in supported:
            raise unsupported_media_type(media, supported)
        if media == APPLY_PATCH:
            return self._apply(resource, target, data, options, subresource)
        entry = self._writer.existing(resource, target.namespace, target.name)
        sent = negotiation.read_yaml(data)
        told = sent.judge(options.field_validation)
        current = versions.served(resource, entry.decode())
        body = self.change(resource, media, current, sent.value)
        if not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
            raise bad_request("the patch does not leave an object with metadata")
        meta = body["metadata"]
        if meta.get("name") != entry.name or meta.get("namespace", "") != entry.namespace:
            raise bad_request("the name and namespace of an object cannot be changed by a patch")
        written = self._writer.update(resource, entry, body, options, subresource)
        return msgspec.structs.replace(written, warnings=(*told, *written.warnings))

    def _apply(
        self, resource: Resource, target: Target, data: bytes, options: WriteOptions, subresource: str
    ) -> Written:
        """Server-side apply; creates the object when it is absent (not for subresources)."""
        writer = self._writer
        sent = negotiation.read_yaml(data)
        config = sent.value
        if not options.named_manager:
            raise bad_request(
                "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required"
            )
        warnings = sent.judge(options.field_validation) + writer.receive(resource, config, options)
        meta = config["metadata"]
        if meta.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if meta.setdefault("name", target.name) != target.name:
            raise bad_request("the name of the object does not match the name on the URL")
        namespace = target.namespace if resource.namespaced else ""
        entry = writer.store.get(resource.storage, namespace, target.name)
        me = Owner(options.field_manager, "Apply", subresource, resource.api_version)
        if entry is None and subresource:
            raise not_found(resource.plural, resource.group, target.name)
        shape = writer.shape(resource)
        wanted = _owned_part(resource, config, subresource)
        if entry is None:
            owned = paths_of(shape.schema, wanted, shape.resolve)
            written = writer.create(resource, namespace, config, options, applied={me: owned})
            return msgspec.structs.replace(written, warnings=(*warnings, *written.warnings))
        current = versions.served(resource, entry.decode())
        owners = read_owners(current["metadata"])
        result = apply(shape.schema, shape.resolve, bare(current), wanted, me, owners, force=options.force)
        if result.conflicts:
            raise _conflict(result.conflicts)
        metadata = {**current["metadata"], **_without(result.value.get("metadata"), current["metadata"])}
        if meta.get("resourceVersion"):
            metadata["resourceVersion"] = meta["resourceVersion"]
        head = {"apiVersion": current["apiVersion"], "kind": current["kind"]}
        body = {**head, **result.value, "metadata": metadata}
        written = writer.update(
            resource, entry, body, options, subresource, received=True, applied=result.owners
        )
        return Written(written.body, warnings=tuple(warnings))

    def change(self, resource: Resource, media: str, current: Json, patch: Any) -> Any:
        """The object after the patch. Raises ApiFailure."""
        try:
            if media == JSON_PATCH:
                return json_patch(current, patch)
            if media == MERGE_PATCH:
                return merge_patch(current, patch)
            shape = self._writer.shape(resource)
            return strategic_patch(current, patch, shape.schema, shape.resolve)
        except PatchError as error:
            if media == JSON_PATCH:
                message = f"the server rejected our request due to an error in our request: {error}"
                raise ApiFailure(422, "Invalid", message) from error
            raise bad_request(f"error applying patch: {error}") from error


_CLIENT_META = ("labels", "annotations", "finalizers", "ownerReferences")


def _without(merged: Any, current: Json) -> Json:
    """What the apply left of the metadata that clients own; absent members are removed by null."""
    found = merged or {}
    return {name: found.get(name) for name in _CLIENT_META if name in found or name in current}


def _owned_part(resource: Resource, config: Json, subresource: str) -> Json:
    """What this path can own: status belongs to its subresource alone."""
    part = bare(config)
    if subresource == "status":
        return {key: value for key, value in part.items() if key == "status"}
    if resource.has_status:
        part.pop("status", None)
    return part


def _conflict(conflicts: dict[Owner, Paths]) -> ApiFailure:
    causes, parts = [], []
    total = sum(map(len, conflicts.values()))
    for owner, paths in conflicts.items():
        within = f' with subresource "{owner.subresource}"' if owner.subresource else ""
        head = f'conflict with "{owner.manager}"{within} using {owner.api_version}'
        fields = sorted(map(text, paths))
        causes += [Cause("FieldManagerConflict", head, field) for field in fields]
        parts.append(f"{head}: {fields[0]}" if len(fields) == 1 else head + ":\n- " + "\n- ".join(fields))
    plural = "conflict" if total == 1 else "conflicts"
    message = f"Apply failed with {total} {plural}: " + "\n".join(parts)
    return ApiFailure(409, "Conflict", message, causes=causes)
