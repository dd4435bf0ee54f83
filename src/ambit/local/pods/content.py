"""Which files a volume holds. Pure; the data of ConfigMaps, Secrets and tokens comes in as arguments.

Source: kubernetes.io/docs/concepts/storage/volumes and /projected-volumes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ambit.local.pods.environment import MissingReference, field, resource_field

ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
ACCOUNT_VOLUME = "kube-api-access"
CONTENT_KINDS = ("configMap", "secret", "downwardAPI", "projected")
_TOKEN_SECONDS = 3607


class File(msgspec.Struct, frozen=True):
    body: bytes
    mode: int


class TokenKey(msgspec.Struct, frozen=True):
    """Which token: the same audience and life time give the same token. No audience means the API server's own."""

    audience: str
    seconds: int


class Material(msgspec.Struct, frozen=True):
    """What was fetched: data by object name; absent objects are not in the mappings."""

    config_maps: Mapping[str, Mapping[str, bytes]] = {}
    secrets: Mapping[str, Mapping[str, bytes]] = {}
    tokens: Mapping[TokenKey, str] = {}


def volumes_of(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pod's volumes, with the one of its service account when any container gets it."""
    volumes = list(pod["spec"].get("volumes") or ())
    if any(mount["name"] == ACCOUNT_VOLUME for item in containers_of(pod) for mount in mounts_of(pod, item)):
        account = {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                    }
                },
            ]
        }
        volumes.append({"name": ACCOUNT_VOLUME, "projected": account})
    return volumes


def containers_of(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Init containers first, in their order."""
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def mounts_of(pod: Mapping[str, Any], container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A container's mounts; the account's is added unless it was opted out of or is there already."""
    mounts = list(container.get("volumeMounts") or ())
    if pod["spec"].get("automountServiceAccountToken") is False:
        return mounts
    if not any(mount["mountPath"].rstrip("/") == ACCOUNT_MOUNT for mount in mounts):
        mounts.append({"name": ACCOUNT_VOLUME, "mountPath": ACCOUNT_MOUNT, "readOnly": True})
    return mounts


def tokens_needed(volume: Mapping[str, Any]) -> Iterator[TokenKey]:
    for source in (volume.get("projected") or {}).get("sources") or ():
        if "serviceAccountToken" in source:
            yield _token_key(source["serviceAccountToken"])


def objects_needed(volume: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, name) with kind `configMap` or `secret`."""
    for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
        if "configMap" in source:
            yield "configMap", source["configMap"]["name"]
        if "secret" in source:
            yield "secret", source["secret"].get("secretName") or source["secret"]["name"]


def files_of(volume: Mapping[str, Any], pod: Mapping[str, Any], material: Material) -> dict[str, File]:
    """Relative path to file. Raises MissingReference for a required object or key that is not there."""
    if "projected" in volume:
        default = volume["projected"].get("defaultMode", 0o644)
        files: dict[str, File] = {}
        for source in volume["projected"].get("sources") or ():
            files |= _source_files(source, pod, material, default)
        return files
    kind = next(item for item in CONTENT_KINDS if item in volume)
    return _source_files(volume, pod, material, volume[kind].get("defaultMode", 0o644))


def _source_files(
    source: Mapping[str, Any], pod: Mapping[str, Any], material: Material, mode: int
) -> dict[str, File]:
    if "configMap" in source:
        reference = source["configMap"]
        return _object_files("configmap", reference["name"], reference, material.config_maps, mode)
    if "secret" in source:
        reference = source["secret"]
        name = reference.get("secretName") or reference["name"]
        return _object_files("secret", name, reference, material.secrets, mode)
    if "downwardAPI" in source:
        return {
            item["path"]: File(_downward(item, pod).encode(), item.get("mode") or mode)
            for item in source["downwardAPI"].get("items") or ()
        }
    if "serviceAccountToken" in source:
        reference = source["serviceAccountToken"]
        return {
            reference["path"]: File(material.tokens[_token_key(reference)].encode(), 0o600 | (mode & 0o44))
        }
    raise MissingReference(f"volume source {', '.join(source)} is not supported")


def _object_files(
    word: str,
    name: str,
    reference: Mapping[str, Any],
    store: Mapping[str, Mapping[str, bytes]],
    mode: int,
) -> dict[str, File]:
    data = store.get(name)
    if data is None:
        if reference.get("optional"):
            return {}
        raise MissingReference(f'{word} "{name}" not found')
    items = reference.get("items")
    if not items:
        return {key: File(body, mode) for key, body in data.items()}
    files = {}
    for item in items:
        if item["key"] in data:
            files[item["path"]] = File(data[item["key"]], item.get("mode") or mode)
        elif not reference.get("optional"):
            raise MissingReference(f'{word} "{name}" has no key {item["key"]!r}')
    return files


def _downward(item: Mapping[str, Any], pod: Mapping[str, Any]) -> str:
    if "fieldRef" in item:
        return field(pod, item["fieldRef"]["fieldPath"])
    reference = item["resourceFieldRef"]
    container = next(
        (entry for entry in containers_of(pod) if entry["name"] == reference.get("containerName")), {}
    )
    return resource_field(container, reference, {})


def _token_key(reference: Mapping[str, Any]) -> TokenKey:
    return TokenKey(reference.get("audience") or "", reference.get("expirationSeconds") or 3600)
