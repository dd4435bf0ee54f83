"""Destinations whose connections begin or cease to go straight into tunnels, while others are under way."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from ambit.agent.publication import Publication
from ambit.core.address import Address
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.node.configuration.detours import Detours
from ambit.node.configuration.shares import Share, Shares
from ambit.node.configuration.tracking import Dependencies, TrackedPods
from ambit.plan.node import node_proxy
from ambit.plan.values import LISTENER, NodeSettings


class Moves:
    """Names here are those of clusters. `answer` gives answers that have waited (`Detours`)."""

    def __init__(
        self,
        view: MeshView,
        settings: NodeSettings,
        dependencies: Dependencies,
        answer: Callable[[frozenset[str]], object],
    ) -> None:
        self._view = view
        self._settings = settings
        self._shares = Shares(settings, dependencies)
        self.detours = Detours(answer)
        self._moved: set[str] = set()
        """Tunnelled names of destinations whose share changed since their pods' listeners were published."""

    def shares(self, key: str) -> Mapping[tuple[Address, int], Share]:
        """What goes straight into tunnels, of one pod."""
        return self._shares.of(key)

    def has(self, name: str, key: str) -> bool:
        """Whether the pod's destination with this name was looked at before."""
        return self._shares.has(name, key)

    def look(self, name: str, table: TrackedPods) -> bool:
        """Looks at the destination's way again; whether its pod's listener changes."""
        asked = names.parse_cluster(name)
        if not isinstance(asked, names.Destination) or not self._shares.note(asked, self._view, table):
            return False
        self._moved.add(names.tunnelled(asked.source, asked.address, asked.port, asked.generation))
        return True

    def begin_anew(self, key: str) -> None:
        """The pod asks for all of its destinations under other names."""
        self._shares.drop(key)

    def drop(self, key: str) -> None:
        """The pod left."""
        self._shares.drop(key)
        self._moved = {name for name in self._moved if names.pod_of(name) != key}

    def is_divided(self, name: str) -> bool:
        """Whether some of the connections to this destination go another way."""
        try:
            asked = names.parse_cluster(name)
        except ValueError:
            return False
        return isinstance(asked, names.Destination) and asked in self._shares

    def is_overtaken(self, name: str, table: TrackedPods) -> bool:
        """Whether connections that go on elsewhere may still come by this name."""
        if name not in self._moved and name not in self.detours:
            return False
        asked = names.parse_cluster(name)
        return (
            isinstance(asked, names.Destination)
            and asked not in self._shares
            and node_proxy.goes_on(asked, self._view, table, self._settings)
        )

    def carried(self, sent: AbstractSet[tuple[str, str]]) -> frozenset[str]:
        """Those that have moved for Envoy with these resources (type and name), which have their pods' listeners."""
        return frozenset(name for name in self._moved if (LISTENER, _outbound_of(name)) in sent)

    def over(self, moved: frozenset[str]) -> None:
        """Envoy is about to be told of them."""
        self._moved -= moved

    def wait(self, overtaken: frozenset[str], publication: Publication) -> None:
        """Answers to these wait until Envoy has taken what was published."""
        if overtaken:
            self.detours.wait(overtaken, publication)


def _outbound_of(name: str) -> str:
    """The listener that sends connections to this name."""
    return names.outbound_listener(names.pod_of(name) or "")
