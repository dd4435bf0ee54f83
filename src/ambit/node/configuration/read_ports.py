"""Ports of pods whose requests have come to be read on this node: connections from before, whose bytes go past whoever
reads, must end when Envoy reads.

What is read is written down, because policies may come while the agent is away and Envoy goes on.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from ambit.agent.publication import Publication
from ambit.core.errors import AmbitError

_log = logging.getLogger("ambit.configuration")
_NOTE = "read-ports"
"""Of the state file's values of our own."""

Newly = dict[str, frozenset[int]]
"""Ports by the keys of their pods."""


class ReadPorts:
    """`keep` writes a value of the agent's own down and may raise AmbitError; `kept` reads it."""

    def __init__(self, keep: Callable[[str, bytes], None], kept: Callable[[str], bytes | None]) -> None:
        self._keep = keep
        noted = kept(_NOTE)
        found = msgspec.json.decode(noted, type=dict[str, list[int]]) if noted else {}
        self._read = {pod: frozenset(ports) for pod, ports in found.items()}
        self._newly: Newly = {}
        self.published: asyncio.Queue[tuple[Newly, Publication]] = asyncio.Queue()
        """Ports that are read when Envoy has taken the publication."""

    def look(self, pod: str, now: frozenset[int]) -> None:
        """Of the pod these are read from now on."""
        before = self._read.get(pod, frozenset())
        if now == before:
            return
        if now:
            self._read[pod] = now
        else:
            del self._read[pod]
        if newly := now - before:
            self._newly[pod] = self._newly.get(pod, frozenset()) | newly
        self._note()

    def forget(self, pod: str) -> None:
        """The pod is gone."""
        self._newly.pop(pod, None)
        if self._read.pop(pod, None) is not None:
            self._note()

    def sent(self, publication: Publication) -> None:
        """With this Envoy gets to know of what was looked at."""
        newly, self._newly = self._newly, {}
        if newly:
            self.published.put_nowait((newly, publication))

    def _note(self) -> None:
        try:
            self._keep(_NOTE, msgspec.json.encode({key: sorted(each) for key, each in self._read.items()}))
        except AmbitError as problem:
            _log.error("ports whose requests are read are not written down: %s", problem.message)
