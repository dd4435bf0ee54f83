"""What the server serves: one `Resource` per kind and served version, and the registry of all of them.

Built-in kinds are the table in `kinds.py`; kinds of CRDs come and go at run time.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class ScalePaths(msgspec.Struct, frozen=True):
    """Where a kind keeps its scale (CRD `subresources.scale`)."""

    spec_replicas: tuple[str, ...]
    status_replicas: tuple[str, ...]
    selector: tuple[str, ...] = ()


class Resource(msgspec.Struct, frozen=True):
    """One kind in one served version."""

    group: str
    version: str
    plural: str
    kind: str
    singular: str
    list_kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    has_status: bool = False
    scale: ScalePaths | None = None
    subresources: tuple[str, ...] = ()
    generation: bool = False
    """metadata.generation counts changes outside metadata and status."""
    storage: str = ""
    storage_version: str = ""
    custom: str = ""
    """Name of the CRD; empty for built-in kinds."""
    selectable: tuple[str, ...] = ()
    deprecation: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_api_version(self) -> str:
        """The apiVersion in which objects of this kind are kept."""
        return f"{self.group}/{self.storage_version}" if self.group else self.storage_version

    def gvk(self) -> dict[str, str]:
        return {"group": self.group, "version": self.version, "kind": self.kind}


class Registry:
    """Finds resources by path, and lists them in a stable order for discovery."""

    def __init__(self, resources: tuple[Resource, ...]) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self.generation = 0
        """Changes with every change of what is served; caches compare it."""
        for resource in resources:
            self.add(resource)

    def add(self, resource: Resource) -> None:
        self._by_path[resource.group, resource.version, resource.plural] = resource
        self.generation += 1

    def remove_custom(self, definition: str) -> None:
        """Stops serving every version that the named CRD defines."""
        for key, resource in tuple(self._by_path.items()):
            if resource.custom == definition:
                del self._by_path[key]
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_path.values())

    def groups(self) -> dict[str, list[str]]:
        """Group -> served versions, the preferred one first (stable before beta before alpha, then
        newest)."""
        groups: dict[str, list[str]] = {}
        for resource in self._by_path.values():
            versions = groups.setdefault(resource.group, [])
            if resource.version not in versions:
                versions.append(resource.version)
        for versions in groups.values():
            versions.sort(key=_version_rank)
        return groups

    def of(self, group: str, version: str) -> list[Resource]:
        found = [one for one in self if one.group == group and one.version == version]
        return sorted(found, key=lambda one: one.plural)


def _version_rank(version: str) -> tuple[int, int, int]:
    for stage, word in ((1, "beta"), (2, "alpha")):
        major, found, minor = version.removeprefix("v").partition(word)
        if found:
            return (stage, -_number(major), -_number(minor))
    return (0, -_number(version.removeprefix("v")), 0)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def dig(body: Any, path: tuple[str, ...]) -> Any:
    """The value at `path`, or None when a step is missing."""
    for step in path:
        if not isinstance(body, dict):
            return None
        body = body.get(step)
    return body
