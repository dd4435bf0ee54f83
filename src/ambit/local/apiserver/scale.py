"""The scale subresource: autoscaling/v1 Scale over a kind's replica fields."""

from typing import Any

from ambit.local.apiserver.failures import ApiFailure, bad_request, invalid, method_not_allowed, modified
from ambit.local.apiserver.metadata import invalid_value
from ambit.local.apiserver.patching.patch_json import json_patch, merge_patch
from ambit.local.apiserver.requests import Target
from ambit.local.apiserver.resources import Resource, dig
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.storage.versions import served
from ambit.local.apiserver.writes import WriteOptions, Writer
from ambit.objects.strategic import PatchError


def selector_text(selector: Json) -> str:
    """A LabelSelector as the query parameter writes it."""
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for one in selector.get("matchExpressions") or ():
        values = ",".join(one.get("values") or ())
        match one["operator"]:
            case "In":
                parts.append(f"{one['key']} in ({values})")
            case "NotIn":
                parts.append(f"{one['key']} notin ({values})")
            case "Exists":
                parts.append(one["key"])
            case _:
                parts.append(f"!{one['key']}")
    return ",".join(parts)


class Scales:
    """Reads and writes Scale objects."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def answer(
        self,
        resource: Resource,
        target: Target,
        method: str,
        media: str,
        body: Any,
        options: WriteOptions,
    ) -> Json:
        """Raises ApiFailure."""
        entry = self._writer.existing(resource, target.namespace, target.name)
        current = served(resource, entry.decode())
        scale = render(resource, current)
        if method == "GET":
            return scale
        if method not in {"PUT", "PATCH"}:
            raise method_not_allowed(method)
        wanted = body
        if method == "PATCH":
            try:
                wanted = json_patch(scale, body) if "json-patch" in media else merge_patch(scale, body)
            except PatchError as error:
                raise ApiFailure(422, "Invalid", str(error)) from error
        version = (wanted.get("metadata") or {}).get("resourceVersion")
        if version and version != str(entry.revision):
            raise modified(resource.plural, resource.group, entry.name)
        replicas = (wanted.get("spec") or {}).get("replicas") or 0
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise bad_request("spec.replicas: expected an integer")
        if replicas < 0:
            cause = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
            raise invalid("Scale", "autoscaling", entry.name, [cause])
        _put(resource, current, replicas)
        written = self._writer.update(resource, entry, current, options)
        return render(resource, written.body)


def _put(resource: Resource, body: Json, replicas: int) -> None:
    assert resource.scale is not None
    target = body
    for step in resource.scale.spec_replicas[:-1]:
        target = target.setdefault(step, {})
    target[resource.scale.spec_replicas[-1]] = replicas


def render(resource: Resource, body: Json) -> Json:
    """The Scale of an object."""
    paths = resource.scale
    assert paths is not None
    metadata = body["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Json = {"replicas": dig(body, paths.status_replicas) or 0}
    selector = dig(body, paths.selector) if resource.custom else (body.get("spec") or {}).get("selector")
    if isinstance(selector, dict):
        plain = "matchLabels" not in selector and "matchExpressions" not in selector
        selector = selector_text({"matchLabels": selector} if plain else selector)
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": dig(body, paths.spec_replicas) or 0},
        "status": status,
    }
