"""Reading API objects as dictionaries: keys, owners, labels, times. Pure."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

from ambit.core.selector import Selector
from ambit.kube.reflector import Key
from ambit.kube.resource import Resource

Object: TypeAlias = dict[str, Any]

_SAFE_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Letters Kubernetes uses in generated names: no vowels, nothing that looks like another."""


def key_of(value: Object) -> Key:
    metadata = value["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def uid_of(value: Object) -> str:
    return str(value["metadata"].get("uid", ""))


def labels_of(value: Object) -> Mapping[str, str]:
    return value["metadata"].get("labels") or {}


def annotations_of(value: Object) -> Mapping[str, str]:
    return value["metadata"].get("annotations") or {}


def is_deleting(value: Object) -> bool:
    return bool(value["metadata"].get("deletionTimestamp"))


def controller_of(value: Object) -> Object | None:
    """The one owner reference that is marked as controller."""
    for owner in value["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return dict(owner)
    return None


def owner_reference(resource: Resource, owner: Object) -> Object:
    """The reference by which `owner` controls an object."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def selector_of(value: Object) -> Selector:
    """`spec.selector` as a LabelSelector."""
    return msgspec.convert(value["spec"].get("selector") or {}, Selector)


def short_hash(value: Any, length: int = 10) -> str:
    """A name-safe hash of a JSON value; equal values give equal hashes whatever their key order."""
    digest = int.from_bytes(hashlib.sha256(msgspec.json.encode(value, order="deterministic")).digest())
    letters = []
    for _ in range(length):
        digest, index = divmod(digest, len(_SAFE_LETTERS))
        letters.append(_SAFE_LETTERS[index])
    return "".join(letters)


def at(timestamp: str | None) -> float:
    """Unix seconds of an API timestamp; 0 for none."""
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0


def timestamp(seconds: float) -> str:
    """An API timestamp of Unix seconds, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition_of(value: Object, kind: str) -> Object | None:
    """The status condition of that type."""
    for condition in (value.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind:
            return dict(condition)
    return None


def with_condition(conditions: list[Object], new: Object, now: float) -> list[Object]:
    """The conditions with `new` in place of its type; the transition time moves with the status only."""
    old = next((item for item in conditions if item["type"] == new["type"]), None)
    stamp = timestamp(now)
    moved = (
        stamp if old is None or old.get("status") != new["status"] else old.get("lastTransitionTime", stamp)
    )
    merged = {**(old or {}), **new, "lastTransitionTime": moved}
    if old is None:
        return [*conditions, merged]
    return [merged if item is old else item for item in conditions]


def scaled(value: Any, total: int, *, round_up: bool) -> int:
    """An int-or-percent field as a number of replicas."""
    if isinstance(value, str) and value.endswith("%"):
        product = int(value[:-1]) * total
        return -(-product // 100) if round_up else product // 100
    return int(value)
