"""Packs programs as an OCI image archive, without a daemon, a registry or a base image.

Specification: github.com/opencontainers/image-spec (layout, index, manifest, config). The archive depends on
nothing but its inputs: equal inputs give equal bytes.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kubernetes.cluster.settings import DNS_IMAGE, PAUSE_IMAGE

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MEDIA = "application/vnd.oci.image"


def pack_system_images(programs: Path, folder: Path) -> list[Path]:
    """Writes the images every node starts with (the pods' first process and the DNS server) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        pack(folder / "pause.tar", PAUSE_IMAGE, programs / "pause"),
        pack(folder / "coredns.tar", DNS_IMAGE, programs / "coredns"),
    ]


def pack(archive: Path, image: str, program: Path) -> Path:
    """Writes an archive with one image whose only file is `program`, unless it is newer than the program."""
    return pack_files(archive, image, {f"/{program.name}": program}, f"/{program.name}")


def pack_files(
    archive: Path, image: str | Sequence[str], files: Mapping[str, Path], program: str, user: str = ""
) -> Path:
    """Writes an archive with one image of executable files (by their paths in it), unless it is newer than they are.

    `image`: its name, or all its names.
    """
    newest = max(path.stat().st_mtime_ns for path in files.values())
    if archive.exists() and archive.stat().st_mtime_ns > newest:
        return archive
    layer = _tar({name.lstrip("/"): path.read_bytes() for name, path in files.items()}, mode=0o755)
    packed = gzip.compress(layer, 1, mtime=0)
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": [program], **({"User": user} if user else {})},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA}.manifest.v1+json",
            "config": _descriptor(config, "config.v1+json"),
            "layers": [_descriptor(packed, "layer.v1.tar+gzip")],
        }
    ).encode()
    entry = _descriptor(manifest, "manifest.v1+json")
    names = [image] if isinstance(image, str) else image
    entries = [{**entry, "annotations": {"io.containerd.image.name": name}} for name in names]
    blobs = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": entries}).encode(),
    }
    for blob in (packed, config, manifest):
        blobs[f"blobs/{_digest(blob).replace(':', '/')}"] = blob
    fresh = archive.with_suffix(f".{os.getpid()}")  # another cluster's start may be packing the same
    fresh.write_bytes(_tar(blobs, mode=0o644))
    return fresh.replace(archive)


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _descriptor(data: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": f"{MEDIA}.{kind}", "digest": _digest(data), "size": len(data)}
