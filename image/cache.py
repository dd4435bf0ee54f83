"""Trees and packed layers that need not be made again, in `.cache/image`."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from image.oci import Layer, pack


class Cache:
    """A layer and the tree it was packed from, by name and by what they were made from; the newest of each name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def held(self) -> Iterator[None]:
        """One build at a time; another waits for it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def forget(self) -> None:
        """Make everything anew the next time."""
        for folder in ("trees", "layers"):
            shutil.rmtree(self._directory / folder, ignore_errors=True)

    def layer(self, name: str, inputs: Iterable[str], fill: Callable[[Path], None]) -> tuple[Layer, Path]:
        """The layer and its tree. `fill` puts the files into an empty folder, only when `inputs` are new."""
        key = fingerprint(inputs)
        root, packed = (
            self._directory / "trees" / f"{name}-{key}",
            self._directory / "layers" / f"{name}-{key}.tar.gz",
        )
        known = packed.with_suffix(".json")
        if root.exists() and packed.exists() and known.exists():
            return msgspec.json.decode(known.read_bytes(), type=Layer), root
        for folder in (root.parent, packed.parent):
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"{name}-*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        part = root.with_name(f"{root.name}.part")
        part.mkdir()
        fill(part)
        layer = pack(part, packed)
        part.rename(root)
        known.write_bytes(msgspec.json.encode(layer))
        return layer, root


def fingerprint(inputs: Iterable[str]) -> str:
    """A short name for a list of texts."""
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]


def content(*paths: Path) -> str:
    """A hash of files and folders: names, modes and bytes, without byte code."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(path.parent)}\0{os.access(file, os.X_OK)}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
