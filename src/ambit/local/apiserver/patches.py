"""PATCH requests of all four kinds, on objects and their status."""

from typing import Any

import orjson

from ambit.local.apiserver import negotiation, versions
from ambit.local.apiserver.failures import ApiFailure, bad_request, unsupported_media_type
from ambit.local.apiserver.patch_json import PatchError, json_patch, merge_patch
from ambit.local.apiserver.patch_strategic import strategic_patch
from ambit.local.apiserver.requests import Target
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.store import Json
from ambit.local.apiserver.writes import WriteOptions, Writer, Written

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
        entry = self._writer.existing(resource, target.namespace, target.name)
        patch = _decode(data)
        current = versions.served(resource, entry.decode())
        body = self.change(resource, media, current, patch)
        if not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
            raise bad_request("the patch does not leave an object with metadata")
        meta = body["metadata"]
        if meta.get("name") != entry.name or meta.get("namespace", "") != entry.namespace:
            raise bad_request("the name and namespace of an object cannot be changed by a patch")
        return self._writer.update(resource, entry, body, options, subresource)

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


def _decode(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return negotiation.decode_yaml(data)
