"""Which destinations of each pod go straight into a tunnel, and what share of their connections.

A destination gets here when Envoy asked for it or the pod resolved its name. Until then, and when a pod has too
many, its tunnels take a hop inside Envoy, which is right as well but slower.
"""

from collections.abc import Mapping

from ambit.core.address import Address
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.node.configuration.tracking import Answer, Dependencies, TrackedPods, TrackedView
from ambit.plan.node import node_proxy
from ambit.plan.values import NodeSettings

MAX_SHARES = 256
"""Destinations of one pod: each change of one sends the pod's outbound listener anew, 300 bytes for each."""

Share = tuple[int, int]
"""Parts of a whole."""


class Shares:
    """Kept up to date by `note`, which is to be called again when what it read changes (`Answer.kind` share)."""

    def __init__(self, settings: NodeSettings, dependencies: Dependencies) -> None:
        self._settings = settings
        self._dependencies = dependencies
        self._found: dict[str, dict[tuple[Address, int], Share]] = {}
        self._noted: dict[str, set[str]] = {}

    def of(self, key: str) -> Mapping[tuple[Address, int], Share]:
        """Those of one pod."""
        return self._found.get(key, {})

    def __contains__(self, asked: names.Destination) -> bool:
        return (asked.address, asked.port) in self.of(asked.source)

    def __len__(self) -> int:
        return sum(len(found) for found in self._found.values())

    def has(self, name: str, key: str) -> bool:
        """Whether the pod's destination with this name was noted before."""
        return name in self._noted.get(key, ())

    def note(self, asked: names.Destination, view: MeshView, pods: TrackedPods) -> bool:
        """Looks at a destination, for the first time or again; whether its pod's listener changes."""
        noted = self._noted.setdefault(asked.source, set())
        name = names.tunnelled(asked.source, asked.address, asked.port, asked.generation)
        if name not in noted and len(noted) >= MAX_SHARES:
            return False
        noted.add(name)
        tracked = TrackedView(view)
        pods.read = set()
        share = node_proxy.tunnelled_share(asked, tracked, pods, self._settings)
        self._dependencies.record(Answer("share", name), tracked.read | pods.read)
        found = self._found.setdefault(asked.source, {})
        place = asked.address, asked.port
        if found.get(place) == share:
            return False
        if share is None:
            del found[place]
        else:
            found[place] = share
        return True

    def drop(self, key: str) -> None:
        """The pod left."""
        self._found.pop(key, None)
        for name in self._noted.pop(key, ()):
            self._dependencies.forget(Answer("share", name))
