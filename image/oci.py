"""Layers and archives of the OCI image format; the same files always become the same bytes.

Source: OCI image-spec 1.1 (layers, configuration, manifest, image layout). containerd, docker and podman load the
archive; the annotation `io.containerd.image.name` gives each image its full name there.
"""

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WRITABLE = frozenset({"tmp", "var/tmp"})
_LEVEL = 6


class Layer(msgspec.Struct, frozen=True):
    """One packed folder. `digest` is of the packed bytes, `diff_id` of the tar archive; sizes in bytes."""

    path: str
    digest: str
    size: int
    diff_id: str
    unpacked: int


class Image(msgspec.Struct, frozen=True):
    """What a container of this image is; the first of `names` is the main one."""

    names: tuple[str, ...]
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    user: int | None = None
    """Who runs where the pod does not say; None for root."""


class _Hashing(io.RawIOBase):
    """Passes bytes on and knows their hash and number."""

    def __init__(self, target: BinaryIO | gzip.GzipFile) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._target.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def pack(root: Path, target: Path) -> Layer:
    """The tree below `root` as a layer in the file `target`: sorted, owned by root, without times."""
    with target.open("wb") as file:
        packed = _Hashing(file)
        with gzip.GzipFile(
            filename="", fileobj=packed, mode="wb", compresslevel=_LEVEL, mtime=0
        ) as compressed:
            plain = _Hashing(compressed)
            with tarfile.open(fileobj=plain, mode="w|", bufsize=1 << 20, format=tarfile.PAX_FORMAT) as tar:
                for name in sorted(_names(root)):
                    _add(tar, root / name, name)
    return Layer(os.fspath(target), packed.digest, packed.size, plain.digest, plain.size)


def write_archive(images: Iterable[Image], target: Path, architecture: str) -> dict[str, str]:
    """Write an image layout as one tar archive. Returns the manifest's digest by the image's first name."""
    texts: dict[str, bytes] = {}
    layers: dict[str, Path] = {}
    index: list[dict[str, Any]] = []
    digests: dict[str, str] = {}
    for image in images:
        layers |= {layer.digest: Path(layer.path) for layer in image.layers}
        configuration = _blob(texts, _configuration(image, architecture), "config.v1+json")
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": configuration,
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": layer.digest,
                    "size": layer.size,
                }
                for layer in image.layers
            ],
        }
        described = _blob(texts, manifest, "manifest.v1+json")
        described["platform"] = {"architecture": architecture, "os": "linux"}
        digests[image.names[0]] = described["digest"]
        index += [
            {
                **described,
                "annotations": {
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": name.rpartition(":")[2],
                },
            }
            for name in image.names
        ]
    part = target.with_name(f"{target.name}.part")
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
        _text(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _text(tar, "index.json", msgspec.json.encode({"schemaVersion": 2, "manifests": index}))
        for digest in sorted(texts.keys() | layers.keys()):
            name = f"blobs/{digest.replace(':', '/')}"
            if digest in texts:
                _text(tar, name, texts[digest])
            else:
                _add(tar, layers[digest], name)
    part.replace(target)
    return digests


def _configuration(image: Image, architecture: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "Env": [_PATH, *(f"{key}={value}" for key, value in sorted(image.environment.items()))],
        "WorkingDir": "/",
        "Labels": dict(sorted(image.labels.items())),
    }
    if image.user is not None:
        config["User"] = f"{image.user}:{image.user}"
    if image.entrypoint:
        config["Entrypoint"] = list(image.entrypoint)
    if image.command:
        config["Cmd"] = list(image.command)
    return {
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in image.layers]},
    }


def _blob(texts: dict[str, bytes], content: Mapping[str, Any], kind: str) -> dict[str, Any]:
    data = msgspec.json.encode(content)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    texts[digest] = data
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(data)}


def _names(root: Path) -> Iterable[str]:
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield os.path.relpath(os.path.join(folder, name), root)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    if path.is_symlink():
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        info.mode = 0o777
        tar.addfile(info)
    elif path.is_dir():
        info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name in _WRITABLE else 0o755
        tar.addfile(info)
    else:
        status = path.stat()
        info.size, info.mode = status.st_size, 0o755 if status.st_mode & 0o111 else 0o644
        with path.open("rb") as file:
            tar.addfile(info, file)


def _text(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
