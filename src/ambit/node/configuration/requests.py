"""Destinations whose requests are routed on this node: what reads them comes before the answer that leads there.

A listener takes connections when Envoy has its table, for which Envoy asks when it has the listener. So the first
answer for a destination waits until then; Envoy takes in order what is sent in order. A change of routes is another
table, and drains nothing.

Envoy keeps listeners while the agent is away, and takes one that the next agent does not know for gone. So their
destinations are written down.
"""

import logging
from collections.abc import Callable, Iterable

import msgspec

from ambit.core.errors import AmbitError
from ambit.envoy import names
from ambit.plan.values import CLUSTER, ROUTES, PlannedResource

_Resources = dict[tuple[str, str], PlannedResource]
_log = logging.getLogger("ambit.configuration")
_NOTE = "requests"
"""Of the state file's values of our own."""


class Requests:
    """By the names of destinations' clusters. `is_asked_for` tells whether Envoy has asked for a table; `keep` writes a
    value of the agent's own down and may raise AmbitError; `kept` reads it."""

    def __init__(
        self,
        is_asked_for: Callable[[str], bool],
        keep: Callable[[str, bytes], None],
        kept: Callable[[str], bytes | None],
    ) -> None:
        self._is_asked_for = is_asked_for
        self._keep = keep
        self._made: dict[str, _Resources] = {}
        self._tables: dict[str, str] = {}
        """Destinations by the names of their tables."""
        self._resumed: set[str] = set()
        """Tables that Envoy has of a former agent."""
        self._changed: list[PlannedResource] = []
        self._removed: set[tuple[str, str]] = set()
        noted = kept(_NOTE)
        self._former = frozenset(msgspec.json.decode(noted, type=list[str])) if noted else frozenset()

    def former(self, key: str) -> list[str]:
        """Those of a pod in a former life of the agent."""
        return sorted(name for name in self._former if names.pod_of(name) == key)

    def look(self, name: str, resources: Iterable[PlannedResource]) -> None:
        """What a destination needs now; nothing when its requests are not routed here."""
        wanted = {(each.type_url, each.name): each for each in resources}
        before = self._made.pop(name, {})
        if wanted:
            self._made[name] = wanted
        for kind, table in before.keys() | wanted.keys():
            if kind == ROUTES and wanted:
                self._tables[table] = name
            elif kind == ROUTES:
                del self._tables[table]
                self._resumed.discard(table)
        self._changed += [each for place, each in wanted.items() if self._is_due(each, before.get(place))]
        self._removed = (self._removed | (before.keys() - wanted.keys())) - wanted.keys()
        if bool(wanted) != bool(before):
            self._note()

    def waits(self, name: str) -> bool:
        """Whether what leads to this destination must wait."""
        return any(not self._is_there(each) for kind, each in self._made.get(name, ()) if kind == ROUTES)

    def asked(self, tables: Iterable[str]) -> list[str]:
        """Envoy asked for tables; the destinations that wait no longer. Their tables are among what is taken next."""
        found = [(table, self._tables[table]) for table in tables if table in self._tables]
        self._changed += [self._made[name][ROUTES, table] for table, name in found]
        return [name for _, name in found]

    def resume(self, name: str) -> None:
        """Envoy asked for this destination's table in a former life of the agent."""
        tables = [each for kind, each in self._made.get(name, ()) if kind == ROUTES]
        self._resumed.update(tables)
        self.asked(tables)

    def take(self) -> tuple[list[PlannedResource], set[tuple[str, str]]]:
        """What changed since the last time, clusters first, and what is gone."""
        changed, removed = self._changed, self._removed
        self._changed, self._removed = [], set()
        return sorted(changed, key=lambda each: each.type_url != CLUSTER), removed

    def _is_there(self, table: str) -> bool:
        return table in self._resumed or self._is_asked_for(table)

    def _is_due(self, resource: PlannedResource, before: PlannedResource | None) -> bool:
        is_new = before is None or before.version != resource.version
        return is_new and (resource.type_url != ROUTES or self._is_there(resource.name))

    def _note(self) -> None:
        try:
            self._keep(_NOTE, msgspec.json.encode(sorted(self._made)))
        except AmbitError as problem:
            _log.error("destinations of requests are not written down: %s", problem.message)
