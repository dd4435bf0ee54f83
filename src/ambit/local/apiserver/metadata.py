"""Rules for `metadata` that hold for every kind: names, labels, what clients may not set or change.

Spec: apimachinery `ValidateObjectMeta` and `rest.BeforeCreate` / `BeforeUpdate`.
"""

import re
import secrets
import uuid
from typing import Any

from ambit.local.apiserver import clock
from ambit.local.apiserver.failures import ApiFailure, Cause, conflict
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.storage.store import Json

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"

SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
    "must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
    "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
    "must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
    "validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def is_subdomain(text: str) -> bool:
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None


def is_label(text: str) -> bool:
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


def invalid_value(field: str, value: Any, rule: str) -> Cause:
    """FieldValueInvalid, quoting the value as Go's `%#v`-like JSON."""
    return Cause("FieldValueInvalid", f"Invalid value: {quote(value)}: {rule}", field)


def required(field: str, rule: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value: {rule}" if rule else "Required value", field)


def unsupported(field: str, value: Any, supported: tuple[str, ...]) -> Cause:
    listed = ", ".join(quote(one) for one in supported)
    message = f"Unsupported value: {quote(value)}: supported values: {listed}"
    return Cause("FieldValueNotSupported", message, field)


def quote(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return str(value)


def check(resource: Resource, metadata: Json) -> list[Cause]:
    """What is wrong with the metadata of an object about to be stored."""
    causes = _check_name(resource, metadata.get("name", ""))
    for field in ("labels", "annotations"):
        causes += _check_keys(f"metadata.{field}", metadata.get(field) or {}, values=field == "labels")
    for finalizer in metadata.get("finalizers") or ():
        if not _qualified(finalizer):
            causes.append(invalid_value("metadata.finalizers", finalizer, _KEY_RULE))
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                causes.append(required(f"metadata.ownerReferences[{index}].{field}", "must not be empty"))
    return causes


def _check_name(resource: Resource, name: str) -> list[Cause]:
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    if resource.group == "rbac.authorization.k8s.io":
        bad = name in {".", ".."} or "/" in name or "%" in name
        return [invalid_value("metadata.name", name, "may not contain '/' or '%'")] if bad else []
    if resource.storage == "services":
        valid, rule = len(name) <= 63 and _LABEL_1035.fullmatch(name) is not None, _LABEL_1035_RULE
    elif resource.storage == "namespaces":
        valid, rule = is_label(name), _LABEL_RULE
    else:
        valid, rule = is_subdomain(name), SUBDOMAIN_RULE
    return [] if valid else [invalid_value("metadata.name", name, rule)]


def _qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not is_subdomain(prefix.lower()):
        return False
    return len(name) <= 63 and _QUALIFIED.fullmatch(name) is not None


def _check_keys(field: str, pairs: dict[str, Any], *, values: bool) -> list[Cause]:
    causes = []
    for key, value in pairs.items():
        if not _qualified(key):
            causes.append(invalid_value(field, key, _KEY_RULE))
        if not isinstance(value, str):
            causes.append(invalid_value(f"{field}.{key}", value, "must be a string"))
        elif values and value and (len(value) > 63 or not _QUALIFIED.fullmatch(value)):
            causes.append(invalid_value(field, value, _VALUE_RULE))
    return causes


def generate_name(prefix: str) -> str:
    """The prefix (cut to leave room) and five characters that form no words."""
    return prefix[:58] + "".join(secrets.choice(_SUFFIX) for _ in range(5))


def prepare_create(resource: Resource, namespace: str, metadata: Json) -> None:
    """Sets what the server owns. Raises ApiFailure 400 when the body names another namespace."""
    given = metadata.get("namespace")
    if not resource.namespaced:
        metadata.pop("namespace", None)
    else:
        if given and given != namespace:
            raise ApiFailure(
                400,
                "BadRequest",
                "the namespace of the provided object does not match the namespace sent on the request",
            )
        metadata["namespace"] = namespace
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generate_name(metadata["generateName"])
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(field, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = clock.now()
    metadata.pop("generation", None)
    if resource.generation:
        metadata["generation"] = 1
    _drop_empty(metadata)


def _drop_empty(metadata: Json) -> None:
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in metadata and not metadata[field]:
            del metadata[field]


def prepare_update(resource: Resource, metadata: Json, old: Json) -> None:
    """Carries over what clients cannot change. Raises ApiFailure 409 when the uid differs."""
    if metadata.get("uid") and metadata["uid"] != old["uid"]:
        why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {old['uid']}"
        raise conflict(resource.plural, resource.group, old["name"], why)
    server_owned = (
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "resourceVersion",
    )
    for field in server_owned:
        if field in old:
            metadata[field] = old[field]
        else:
            metadata.pop(field, None)
    metadata.pop("selfLink", None)
    _drop_empty(metadata)
