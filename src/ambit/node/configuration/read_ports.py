"""Ports of pods whose requests have come to be read on this node: tunnels are let in when Envoy reads, not before, and
connections from before, whose bytes go past whoever reads, must end then. Ports that are read no longer are until Envoy
has what came with that: others may have to be kept out from then on.

Ports that are read only to be told of are kept track of in the same way, and keep nobody out: they are led to who reads
when Envoy has him.

What Envoy reads is written down, because policies may come while the agent is away and Envoy goes on.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

import msgspec

from ambit.agent.publication import Publication
from ambit.core.errors import AmbitError

_log = logging.getLogger("ambit.configuration")
READ, TOLD = "read-ports", "told-ports"
"""Of the state file's values of our own."""

Newly = dict[str, frozenset[int]]
"""Ports by the keys of their pods."""


class ReadPorts:
    """`keep` writes a value of the agent's own down, by the name `note`, and may raise AmbitError; `kept` reads it."""

    def __init__(
        self, keep: Callable[[str, bytes], None], kept: Callable[[str], bytes | None], note: str = READ
    ) -> None:
        self._keep = keep
        self._name = note
        noted = kept(note)
        found = msgspec.json.decode(noted, type=dict[str, list[int]]) if noted else {}
        self._confirmed = {pod: frozenset(ports) for pod, ports in found.items()}
        """What Envoy reads for sure."""
        self._unread: dict[str, frozenset[int]] = {}
        self._told: dict[str, dict[int, Publication]] = {}
        """Whose answer says that Envoy reads them."""
        self._newly: Newly = {}
        self._left: dict[str, frozenset[int]] = {}
        self._left_with: dict[str, Publication] = {}
        """Whose answer says that these need be read no longer."""
        self.published: asyncio.Queue[tuple[Newly, Publication]] = asyncio.Queue()
        """Ports that are read when Envoy has taken the publication."""

    def look(self, pod: str, now: frozenset[int]) -> None:
        """Of the pod these are to be read from now on."""
        confirmed = self._confirmed.get(pod, frozenset())
        if confirmed - now:
            self._confirm(pod, confirmed & now)
        left = (self._left.get(pod, frozenset()) | confirmed | self.unread(pod)) - now
        unread = now - confirmed
        if left != self._left.get(pod, frozenset()):
            self._left_with.pop(pod, None)
        told = {port: each for port, each in self._told.pop(pod, {}).items() if port in unread}
        for kept, value in (
            (self._unread, unread),
            (self._newly, unread - told.keys()),
            (self._left, left),
        ):
            kept.pop(pod, None)
            if value:
                kept[pod] = value
        if told:
            self._told[pod] = told

    def unread(self, pod: str) -> frozenset[int]:
        """Those that Envoy may not read yet."""
        return self._unread.get(pod, frozenset())

    @property
    def all_unread(self) -> Mapping[str, frozenset[int]]:
        """Those of all pods, as they are at any time."""
        return self._unread

    def left(self, pod: str) -> frozenset[int]:
        """Those that are read still, although they need not be."""
        return self._left.get(pod, frozenset())

    def sent(self, publication: Publication) -> None:
        """With this Envoy gets to know of what was looked at."""
        newly, self._newly = self._newly, {}
        for pod, ports in newly.items():
            self._told.setdefault(pod, {}).update(dict.fromkeys(ports, publication))
        for pod in self._left.keys() - self._left_with.keys():
            self._left_with[pod] = publication
            newly.setdefault(pod, frozenset())
        if newly:
            self.published.put_nowait((newly, publication))

    def settled(self, ports: Newly, publication: Publication, refused: Collection[str] = ()) -> list[str]:
        """Envoy has answered. The keys of pods of which it reads more now, or need read less; what it `refused`, by the
        keys of pods, is told again with the next publication of theirs."""
        changed = []
        for pod, several in ports.items():
            told = self._told.get(pod, {})
            answered = frozenset(each for each in several if told.get(each) is publication)
            for each in answered:
                del told[each]
            is_left = self._left_with.get(pod) is publication
            if is_left:
                del self._left_with[pod]
            if pod in refused:
                continue
            if answered:
                self._unread[pod] -= answered
                self._confirm(pod, self._confirmed.get(pod, frozenset()) | answered)
            if is_left:
                self._left.pop(pod, None)
            if answered or is_left:
                changed.append(pod)
        return changed

    def forget(self, pod: str) -> None:
        """The pod is gone."""
        for kept in (self._newly, self._unread, self._told, self._left, self._left_with):
            kept.pop(pod, None)
        if pod in self._confirmed:
            self._confirm(pod, frozenset())

    def _confirm(self, pod: str, ports: frozenset[int]) -> None:
        if ports:
            self._confirmed[pod] = ports
        else:
            self._confirmed.pop(pod, None)
        self._note()

    def _note(self) -> None:
        try:
            self._keep(
                self._name, msgspec.json.encode({key: sorted(each) for key, each in self._confirmed.items()})
            )
        except AmbitError as problem:
            _log.error("ports whose requests are read are not written down: %s", problem.message)
