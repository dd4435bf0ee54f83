"""Who has acknowledged what: a change sent to Envoy, and the answer that is awaited. No I/O.

A change counts as settled on a stream when a response that carried it, or a later one of its type, was answered (of
the types that are sent one by one: when nothing of the type waits for its answer); or when the stream has nothing
outstanding (it did not ask for what changed). Without a stream nothing is settled: Envoy is starting, or the node has
none.
"""

import asyncio
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from ambit.plan.values import EXTENSION
from ambit.xds.events import Acknowledged, Event, Rejected
from ambit.xds.session import ServerSession

SINGLY = frozenset({EXTENSION})
"""Types whose resources are sent one by one: what is wrong with one pod's policy is no other's business."""


class Publication:
    """One change: the revision each type reached with it, and the names it touched."""

    def __init__(
        self,
        revisions: Mapping[str, int],
        names: Mapping[str, frozenset[str]],
        refused: Mapping[tuple[str, str], str] = {},
    ) -> None:
        """`refused`: why parts of it, by type and name, which Envoy does not take, are not even sent."""
        self._revisions = revisions
        self._names = names
        self._errors: dict[str, None] = dict.fromkeys(refused.values())
        self._refused = {(0, *each) for each in refused}
        """With whose answer it was."""
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not revisions:
            self._done.set_result(None)

    async def settled(self) -> str | None:
        """Waits for every stream's answer; the text of a rejection, else None."""
        await asyncio.shield(self._done)
        return "; ".join(self._errors) or None

    @property
    def done(self) -> bool:
        return self._done.done()

    @property
    def refused(self) -> AbstractSet[tuple[str, str]]:
        """What of it Envoy did not take, by type and name, as far as it has answered."""
        return {(type_url, name) for _, type_url, name in self._refused}

    def acknowledged(self, event: Acknowledged, stream: object) -> None:
        """Takes note of what was refused with others, and is taken by itself."""
        type_url = event.response.type_url
        self._refused -= {(id(stream), type_url, each.name) for each in event.response.resources}

    def rejected(self, event: Rejected, stream: object) -> None:
        """Takes note when the rejection concerns this change."""
        names = self._names.get(event.response.type_url, frozenset())
        sent = {resource.name for resource in event.response.resources}
        mentioned = {name for name in sent if name in event.error}
        if names & (mentioned or sent):
            is_known = mentioned or len(sent) != 1 or event.response.type_url in SINGLY
            alone = "" if is_known else f"{next(iter(sent))}: "
            self._errors[f"{alone}{event.error}"] = None
            type_url = event.response.type_url
            self._refused |= {(id(stream), type_url, each) for each in names & (mentioned or sent)}

    def check(self, streams: Iterable["StreamProgress"]) -> bool:
        """Whether it is settled now."""
        if not self._done.done():
            current = list(streams)
            if current and all(stream.has(self._revisions) for stream in current):
                self._done.set_result(None)
        return self._done.done()


class StreamProgress:
    """What one stream has answered, per type."""

    def __init__(self, session: ServerSession) -> None:
        self._session = session
        self._answered: dict[str, int] = {}
        self.rejections: dict[str, str] = {}
        """The newest rejection by type, gone with the next acknowledgement."""

    def take(self, event: Event) -> None:
        match event:
            case Acknowledged(response):
                self._answer(response.type_url, response.revision)
                self.rejections.pop(response.type_url, None)
            case Rejected(response, error):
                self._answer(response.type_url, response.revision)
                self.rejections[response.type_url] = error
            case _:
                pass

    def has(self, revisions: Mapping[str, int]) -> bool:
        return all(
            (self._answered.get(type_url, -1) >= revision and not self._is_one_by_one(type_url))
            or not self._outstanding(type_url)
            for type_url, revision in revisions.items()
        )

    def _is_one_by_one(self, type_url: str) -> bool:
        """An answer to one resource says nothing about those that were sent before it."""
        return type_url in SINGLY or self._session.is_isolating(type_url)

    def _outstanding(self, type_url: str) -> bool:
        """Before the first request of a type Envoy has not even begun: clusters and listeners are sure to be
        asked for, so they are awaited."""
        if type_url in self._session.types:
            return self._session.is_behind(type_url)
        return type_url.endswith((".Cluster", ".Listener"))

    def _answer(self, type_url: str, revision: str) -> None:
        self._answered[type_url] = max(self._answered.get(type_url, -1), int(revision))
