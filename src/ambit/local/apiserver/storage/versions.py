"""Between the version an object is kept in and the one a client asks for.

Versions of a custom kind differ in apiVersion alone (conversion None). Events are kept as core/v1 and
served as events.k8s.io/v1 too.
"""

import orjson

from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.storage.store import Json

_TO_EVENTS = (
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
)


def _is_new_event(resource: Resource) -> bool:
    return resource.group == "events.k8s.io"


def _rename(body: Json, pairs: tuple[tuple[str, str], ...]) -> Json:
    names = dict(pairs)
    return {names.get(key, key): value for key, value in body.items()}


def served_bytes(resource: Resource, data: bytes) -> bytes:
    """Stored bytes in the version of `resource`; unchanged bytes when it is the stored one."""
    if _is_new_event(resource):
        return orjson.dumps(served(resource, orjson.loads(data)))
    if resource.custom:
        prefix = b'{"apiVersion":"%s"' % resource.api_version.encode()
        if not data.startswith(prefix):
            return orjson.dumps(served(resource, orjson.loads(data)))
    return data


def served(resource: Resource, body: Json) -> Json:
    """A stored object as the client of this version sees it."""
    if _is_new_event(resource):
        return {"apiVersion": resource.api_version, **_rename(_without_version(body), _TO_EVENTS)}
    if body.get("apiVersion") != resource.api_version:
        return {"apiVersion": resource.api_version, **_without_version(body)}
    return body


def stored(resource: Resource, body: Json) -> Json:
    """A client's object as it is kept: apiVersion and kind first."""
    version = resource.stored_api_version
    if _is_new_event(resource):
        version = "v1"
        body = _rename(body, tuple((new, old) for old, new in _TO_EVENTS))
    rest = {key: value for key, value in body.items() if key not in {"apiVersion", "kind"}}
    return {"apiVersion": version, "kind": resource.kind, **rest}


def _without_version(body: Json) -> Json:
    return {key: value for key, value in body.items() if key != "apiVersion"}
