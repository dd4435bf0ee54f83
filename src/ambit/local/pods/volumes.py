"""A pod's volumes on disk: fetched, written atomically as kubelet does it, refreshed, bound into containers.

Content volumes live in the sandbox's directory on the instance's tmpfs (they hold secrets); emptyDir lives
below the state directory, or with `medium: Memory` on a tmpfs of its own in the sandbox's directory. A content volume
is a directory of links into `..data`, itself a link that is replaced at once.
"""

import asyncio
import base64
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ambit.core.errors import AmbitError
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.local import kernel
from ambit.local.pods import content, plan
from ambit.local.pods.content import File, Material, TokenKey
from ambit.local.pods.environment import MissingReference, Sources, expand, parse_quantity
from ambit.local.pods.shim.protocol import Mount

_RENEW_AT = 0.8
"""Part of a token's life after which it is asked for again (kubelet: 80 %)."""


class PodVolumes:
    """`memory` and `disk` are this pod's own directories; the caller removes them at the end.

    `private` directories are not given to unprivileged containers, not even as a hostPath. `owner` is the host's id
    of root in the pod, to whom the files of content volumes belong.
    """

    def __init__(self, client: Client, memory: Path, disk: Path, private: Sequence[Path], owner: int) -> None:
        self._owner = owner
        self._private = [Path(os.path.realpath(path)) for path in private]
        self._client = client
        self._memory = memory
        self._disk = disk
        self._tokens: dict[TokenKey, tuple[str, float]] = {}
        self._written: dict[str, dict[str, File]] = {}

    async def refresh(self, pod: Mapping[str, Any]) -> None:
        """Bring every volume up to date. Raises MissingReference for what is required and absent."""
        volumes = content.volumes_of(pod)
        material = await self._material(pod, volumes)
        for volume in volumes:
            name = volume["name"]
            if "emptyDir" in volume:
                await asyncio.to_thread(self._make_empty, volume, pod)
            elif any(kind in volume for kind in content.CONTENT_KINDS):
                files = content.files_of(volume, pod, material)
                if self._written.get(name) != files:
                    await asyncio.to_thread(write_atomically, self._memory / name, files, self._owner)
                    self._written[name] = files
            elif "hostPath" not in volume:
                kind = ", ".join(key for key in volume if key != "name") or "unknown"
                raise MissingReference(f'volume "{name}": a volume of kind {kind} does not exist on a laptop')

    def renewal(self) -> float | None:
        """Seconds until a token must be renewed; None without tokens."""
        if not self._tokens:
            return None
        return max(1.0, min(due for _, due in self._tokens.values()) - time.time())

    def mounts(
        self, pod: Mapping[str, Any], container: Mapping[str, Any], env: Mapping[str, str]
    ) -> list[Mount]:
        """Where a container's volumes go. Raises MissingReference for a mount whose volume or sub-path is absent."""
        volumes = {volume["name"]: volume for volume in content.volumes_of(pod)}
        result: list[Mount] = []
        for mount in content.mounts_of(pod, container):
            volume = volumes.get(mount["name"])
            if volume is None:
                raise MissingReference(
                    f'volume "{mount["name"]}" of mount {mount["mountPath"]} is not defined'
                )
            source = self._source(volume, container)
            below = mount.get("subPath") or expand(mount.get("subPathExpr") or "", env)
            if below:
                source = _sub_path(source, below, "emptyDir" in volume)
            read_only = bool(mount.get("readOnly")) or any(kind in volume for kind in content.CONTENT_KINDS)
            result.append({"source": str(source), "target": mount["mountPath"], "read_only": read_only})
        return result

    async def sources(self, pod: Mapping[str, Any], container: Mapping[str, Any]) -> Sources:
        """What a container's environment needs of ConfigMaps and Secrets."""
        wanted = set()
        for source in container.get("envFrom") or ():
            wanted |= {
                (kind[:-3], source[kind]["name"]) for kind in ("configMapRef", "secretRef") if kind in source
            }
        for entry in container.get("env") or ():
            origin = entry.get("valueFrom") or {}
            wanted |= {
                (kind[:-6], origin[kind]["name"])
                for kind in ("configMapKeyRef", "secretKeyRef")
                if kind in origin
            }
        fetched = await self._fetch(pod["metadata"]["namespace"], wanted)
        text = {
            kind: {
                name: {key: value.decode(errors="replace") for key, value in data.items()}
                for name, data in fetched[kind].items()
            }
            for kind in fetched
        }
        return Sources(text["configMap"], text["secret"])

    def _source(self, volume: Mapping[str, Any], container: Mapping[str, Any]) -> Path:
        if "emptyDir" in volume:
            return (self._memory if _is_in_memory(volume) else self._disk) / str(volume["name"])
        if "hostPath" in volume:
            path = Path(volume["hostPath"]["path"])
            if not path.exists() and (volume["hostPath"].get("type") or "").endswith("OrCreate"):
                path.mkdir(parents=True)
                os.chown(path, self._owner, self._owner)
            if not path.exists():
                raise MissingReference(f"hostPath {path} does not exist")
            real = Path(os.path.realpath(path))
            if not plan.is_privileged(container) and any(
                _overlap(real, private) for private in self._private
            ):
                raise MissingReference(
                    f"hostPath {path} holds private files; only a privileged container may have it"
                )
            return path
        return self._memory / str(volume["name"])

    def _make_empty(self, volume: Mapping[str, Any], pod: Mapping[str, Any]) -> None:
        path = (self._memory if _is_in_memory(volume) else self._disk) / str(volume["name"])
        path.mkdir(parents=True, exist_ok=True)
        if _is_in_memory(volume) and not path.is_mount():
            # Its own, so that a pod that fills it takes nothing of the instance's.
            limit = int(parse_quantity(str((volume["emptyDir"] or {}).get("sizeLimit") or 0)))
            size = f",size={limit}" if limit else ""
            kernel.mount("tmpfs", str(path), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0777" + size)
        path.chmod(0o777)
        group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        if group is not None:
            try:
                os.chown(path, -1, self._owner + group)
                path.chmod(0o2777)
            except OSError:
                path.chmod(0o777)  # that group does not exist in our user namespace

    async def _material(self, pod: Mapping[str, Any], volumes: list[dict[str, Any]]) -> Material:
        wanted = {item for volume in volumes for item in content.objects_needed(volume)}
        fetched = await self._fetch(pod["metadata"]["namespace"], wanted)
        tokens = {
            key: await self._token(pod, key) for volume in volumes for key in content.tokens_needed(volume)
        }
        return Material(fetched["configMap"], fetched["secret"], tokens)

    async def _fetch(
        self, namespace: str, wanted: set[tuple[str, str]]
    ) -> dict[str, dict[str, dict[str, bytes]]]:
        result: dict[str, dict[str, dict[str, bytes]]] = {"configMap": {}, "secret": {}}
        for kind, name in sorted(wanted):
            resource = kinds.CONFIG_MAPS if kind == "configMap" else kinds.SECRETS
            try:
                value = await self._client.get(resource, name, namespace)
            except NotFound:
                continue
            plain, encoded = ("data", "binaryData") if kind == "configMap" else ("stringData", "data")
            data = {key: str(text).encode() for key, text in (value.get(plain) or {}).items()}
            data |= {key: base64.b64decode(text) for key, text in (value.get(encoded) or {}).items()}
            result[kind][name] = data
        return result

    async def _token(self, pod: Mapping[str, Any], key: TokenKey) -> str:
        known = self._tokens.get(key)
        if known is not None and time.time() < known[1]:
            return known[0]
        metadata = pod["metadata"]
        try:
            status = await self._client.token_request(
                metadata["namespace"],
                pod["spec"].get("serviceAccountName") or "default",
                (key.audience,) if key.audience else (),
                seconds=key.seconds,
                bound_pod=(metadata["name"], metadata["uid"]),
            )
        except NotFound as problem:
            raise MissingReference(problem.message) from problem
        now = time.time()
        expiry = datetime.fromisoformat(status["expirationTimestamp"]).timestamp()
        self._tokens[key] = (status["token"], now + (expiry - now) * _RENEW_AT)
        return str(status["token"])


def write_atomically(directory: Path, files: Mapping[str, File], owner: int = -1) -> None:
    """Readers see either all old or all new files (kubelet's AtomicWriter layout). -1 leaves the owner as it is."""
    directory.mkdir(parents=True, exist_ok=True)
    version = directory / f"..{time.time_ns()}"
    version.mkdir()
    for path, file in files.items():
        target = _inside(version, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.body)
        target.chmod(file.mode)
        os.chown(target, owner, owner)
    data = directory / "..data"
    old = data.readlink() if data.is_symlink() else None
    fresh = directory / "..data_tmp"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(version.name)
    fresh.replace(data)
    wanted = {path.split("/")[0] for path in files}
    for name in wanted:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")
    for link in directory.iterdir():
        if link.is_symlink() and not link.name.startswith("..") and link.name not in wanted:
            link.unlink()
    if old is not None:
        shutil.rmtree(directory / old, ignore_errors=True)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _is_in_memory(volume: Mapping[str, Any]) -> bool:
    return (volume.get("emptyDir") or {}).get("medium") == "Memory"


def _inside(directory: Path, path: str) -> Path:
    if path.startswith("/") or ".." in path.split("/"):
        raise MissingReference(f"path {path!r} leaves its volume")
    return directory / path


def _sub_path(source: Path, below: str, make: bool) -> Path:
    """A sub-path is resolved now, and must stay inside its volume also through links."""
    target = _inside(source, below)
    if make and not target.exists():
        target.mkdir(parents=True)
        target.chmod(0o777)  # as the volume itself: whoever runs in the pod may write
    real = Path(os.path.realpath(target))
    if not real.is_relative_to(os.path.realpath(source)):
        raise AmbitError(f"subPath {below!r} leaves its volume")
    if not real.exists():
        raise MissingReference(f"subPath {below!r} does not exist")
    return real
