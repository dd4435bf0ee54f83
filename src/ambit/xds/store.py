"""The resources that streams serve: one store is shared by every session of a process.

What most streams get is the same for all of them, so it is put together once: everything (`Store.snapshot`), and what a
change means to who follows everything (`Publication`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from ambit.xds.frames import Resource


class Changed(msgspec.Struct, frozen=True):
    """Names of one type whose content changed, with what was there before (None: new)."""

    type_url: str
    before: Mapping[str, Resource | None]

    def __bool__(self) -> bool:
        return bool(self.before)


class Part(msgspec.Struct, frozen=True):
    """What one response says of one type."""

    type_url: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]


class Publication:
    """Several types that changed together, in the order in which additions must arrive.

    `parts` are the responses for a subscriber to everything who has all that went before: additions in that order,
    and removals after them in the opposite one, so that nothing is ever sent that refers to what is not there.
    """

    def __init__(self, store: "Store", changes: Sequence[Changed]) -> None:
        self.changes = changes
        self.parts = list(_parts(store, changes))


def _parts(store: "Store", changes: Sequence[Changed]) -> Iterator[Part]:
    names: dict[str, set[str]] = {}
    for changed in changes:
        names.setdefault(changed.type_url, set()).update(_visible(store, changed))
    added: dict[str, tuple[Resource, ...]] = {}
    removed: dict[str, tuple[str, ...]] = {}
    for type_url, touched in names.items():
        current = store.resources(type_url)
        there = {
            name: resource for name in touched if (resource := current.get(name)) and not resource.on_demand
        }
        added[type_url] = tuple(there[name] for name in sorted(there))
        removed[type_url] = tuple(sorted(touched - there.keys()))
    early = dict.fromkeys(changed.type_url for changed in changes[:-1])
    for type_url in early:
        if added[type_url]:
            yield Part(type_url, added[type_url], ())
    for type_url in dict.fromkeys(changed.type_url for changed in reversed(changes)):
        part = Part(type_url, () if type_url in early else added[type_url], removed[type_url])
        if part.resources or part.removed:
            yield part


def _visible(store: "Store", changed: Changed) -> Iterator[str]:
    """Names that a subscriber to everything sees, or saw before."""
    current = store.resources(changed.type_url)
    for name, before in changed.before.items():
        after = current.get(name)
        if (before is not None and not before.on_demand) or (after is not None and not after.on_demand):
            yield name


class Store:
    """Current resources by type and name. Holds values only; sessions decide who is told."""

    def __init__(self) -> None:
        self._types: dict[str, dict[str, Resource]] = {}
        self._revisions: dict[str, int] = {}
        self._snapshots: dict[str, tuple[Resource, ...]] = {}
        self._versions: dict[str, dict[str, str]] = {}

    def resources(self, type_url: str) -> Mapping[str, Resource]:
        """All resources of a type, by name."""
        return self._types.get(type_url, {})

    def get(self, type_url: str, name: str) -> Resource | None:
        return self.resources(type_url).get(name)

    def snapshot(self, type_url: str) -> tuple[Resource, ...]:
        """What a new subscriber to everything gets, by name; the same object until something changes."""
        snapshot = self._snapshots.get(type_url)
        if snapshot is None:
            everything = self.resources(type_url)
            ordered = (everything[name] for name in sorted(everything))
            snapshot = self._snapshots[type_url] = tuple(each for each in ordered if not each.on_demand)
        return snapshot

    def versions(self, type_url: str) -> Mapping[str, str]:
        """Names and versions of `snapshot`."""
        versions = self._versions.get(type_url)
        if versions is None:
            versions = {each.name: each.version for each in self.snapshot(type_url)}
            self._versions[type_url] = versions
        return versions

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
            if known is not resource and known != resource:
                before[name] = known
                current[name] = resource
        if before:
            self._snapshots.pop(type_url, None)
            self._versions.pop(type_url, None)
            self._revisions[type_url] = self.revision(type_url) + 1
        return Changed(type_url, before)
