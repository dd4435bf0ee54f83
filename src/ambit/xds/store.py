"""The resources that streams serve: one store is shared by every session of a process."""

from collections.abc import Iterable, Mapping

import msgspec

from ambit.xds.frames import Resource


class Changed(msgspec.Struct, frozen=True):
    """Names of one type whose content changed, with what was there before (None: new)."""

    type_url: str
    before: Mapping[str, Resource | None]

    def __bool__(self) -> bool:
        return bool(self.before)


class Store:
    """Current resources by type and name. Holds values only; sessions decide who is told."""

    def __init__(self) -> None:
        self._types: dict[str, dict[str, Resource]] = {}
        self._revisions: dict[str, int] = {}

    def resources(self, type_url: str) -> Mapping[str, Resource]:
        """All resources of a type, by name."""
        return self._types.get(type_url, {})

    def get(self, type_url: str, name: str) -> Resource | None:
        return self.resources(type_url).get(name)

    def revision(self, type_url: str) -> int:
        """How many updates of this type changed something."""
        return self._revisions.get(type_url, 0)

    def update(self, type_url: str, changed: Mapping[str, Resource], removed: Iterable[str] = ()) -> Changed:
        """Apply one change and return what really differs. A name in both arguments is present afterwards."""
        current = self._types.setdefault(type_url, {})
        before: dict[str, Resource | None] = {}
        for name in removed:
            if name not in changed and name in current:
                before[name] = current.pop(name)
        for name, resource in changed.items():
            known = current.get(name)
            if known != resource:
                before[name] = known
                current[name] = resource
        if before:
            self._revisions[type_url] = self.revision(type_url) + 1
        return Changed(type_url, before)
