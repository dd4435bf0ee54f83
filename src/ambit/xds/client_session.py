"""The client side of delta xDS, without I/O: one object for many streams, one after the other.

Rules: the first request of each type carries what is kept (`initial_resource_versions`), so a reconnect costs
only what changed. A response is acknowledged after it was applied, never on receipt; answers to responses of
an earlier stream are dropped. Waiting between streams is the shell's business.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from ambit.xds.frames import Node, Request, Resource, Response
from ambit.xds.session import WILDCARD


class Update(msgspec.Struct, frozen=True):
    """One response to apply, then to `accept` or `reject`. `first` is the first of its type on its stream."""

    type_url: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]
    nonce: str
    stream: int
    first: bool


class ClientSession:
    """`types` in the order in which they are asked for; all are wildcards unless listed in `named`.

    `versions` tells the versions kept of a type; it is called once per type and stream.
    """

    def __init__(
        self,
        types: Sequence[str],
        node: Node,
        versions: Callable[[str], Mapping[str, str]] = lambda _: {},
        *,
        named: Iterable[str] = (),
    ) -> None:
        self._types = tuple(types)
        self._node = node
        self._versions = versions
        self._named = frozenset(named)
        self._names: dict[str, set[str]] = {type_url: set() for type_url in self._types}
        self._stream = 0
        self._connected = False
        self._received: set[str] = set()
        self._synced: set[str] = set()

    def connect(self) -> list[Request]:
        """A stream opened: its first requests."""
        self._stream += 1
        self._connected = True
        self._received.clear()
        requests: list[Request] = []
        for type_url in self._types:
            names = sorted(self._names[type_url])
            nothing = type_url in self._named and not names
            if type_url not in self._named and names:
                names.insert(0, WILDCARD)
            requests.append(
                Request(
                    type_url=type_url,
                    # An empty first subscription means everything: "nothing yet" must be said in two words.
                    subscribe=(WILDCARD,) if nothing else tuple(names),
                    unsubscribe=(WILDCARD,) if nothing else (),
                    initial_versions=dict(self._versions(type_url)),
                    node=None if requests else self._node,
                )
            )
        return requests

    def disconnect(self) -> None:
        """The stream ended. What was accepted stays; what was not answered is forgotten."""
        self._connected = False

    def subscribe(self, type_url: str, names: Iterable[str]) -> list[Request]:
        """Ask for names; they are asked for again on each new stream. Nothing to send when not connected."""
        known = self._names[type_url]
        new = sorted(set(names) - known)
        known.update(new)
        return [Request(type_url=type_url, subscribe=tuple(new))] if new and self._connected else []

    def unsubscribe(self, type_url: str, names: Iterable[str]) -> list[Request]:
        known = self._names[type_url]
        gone = sorted(known & set(names))
        known.difference_update(gone)
        return [Request(type_url=type_url, unsubscribe=tuple(gone))] if gone and self._connected else []

    def receive(self, response: Response) -> Update:
        """Take one response. Raises ValueError when it breaks the protocol (the stream should be ended)."""
        if response.type_url not in self._names:
            raise ValueError(f"a response of type {response.type_url!r}, which was not asked for")
        first = response.type_url not in self._received
        self._received.add(response.type_url)
        return Update(
            response.type_url, response.resources, response.removed, response.nonce, self._stream, first
        )

    def is_current(self, update: Update) -> bool:
        """Whether it may still be applied. Once a new stream began it may not: that stream's first requests told
        the server what is kept, and this was not."""
        return update.stream == self._stream

    def accept(self, update: Update) -> list[Request]:
        """The update was applied. Nothing to send when its stream is gone."""
        self._synced.add(update.type_url)
        return self._answer(update, None)

    def reject(self, update: Update, error: str) -> list[Request]:
        """The update, or a part of it, could not be applied; `error` goes to the server as it is."""
        return self._answer(update, error)

    @property
    def synced(self) -> bool:
        """Whether each wildcard type had an accepted answer, on whichever stream."""
        return self._synced >= set(self._types) - self._named

    @property
    def connected(self) -> bool:
        return self._connected

    def _answer(self, update: Update, error: str | None) -> list[Request]:
        if not self._connected or not self.is_current(update):
            return []
        return [Request(type_url=update.type_url, nonce=update.nonce, error=error)]
