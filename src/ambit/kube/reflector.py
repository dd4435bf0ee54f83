"""Keeps a copy of one collection: which request to send next, and what each answer means. No I/O.

1. The copy is complete before `synced` turns true, and stays so.
2. Every difference between the copy before and after an answer is emitted exactly once, in the server's
   order.
3. After a relist, objects that are gone are emitted as deleted.
4. A watch resumes after the last version seen (events and bookmarks); `Gone` or an expired version means
   relist.
5. An object that cannot be decoded keeps its last good value and is reported; it never stops the stream.
6. A server that refuses a streaming list, or does not know it and never marks its end, is listed in pages
   instead.

Rules follow the Kubernetes API concepts, "Efficient detection of changes" and "Streaming lists".
"""

import enum
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Generic, Literal, TypeVar

import msgspec

from ambit.kube.client import WatchEvent
from ambit.kube.errors import ApiError, Gone, Invalid, error_of_status

T = TypeVar("T")
Key = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Change(msgspec.Struct, Generic[T], frozen=True):
    """One difference. `old` is None for added, `new` is None for deleted."""

    kind: Literal["added", "modified", "deleted"]
    key: Key
    old: T | None
    new: T | None


class Undecodable(msgspec.Struct, frozen=True):
    """An object that the projection refused. Its last good value, if any, is kept."""

    key: Key
    problem: str


class Mode(enum.Enum):
    """The request to send next."""

    STREAM = "streaming list"
    LIST = "list"
    WATCH = "watch"


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Head(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()


_LIST_META = {"resource_version": "resourceVersion", "token": "continue"}


class _ListMeta(msgspec.Struct, frozen=True, rename=_LIST_META):
    resource_version: str = ""
    token: str = ""


class ListPage(msgspec.Struct, frozen=True):
    """One page of a list, its objects undecoded."""

    metadata: _ListMeta = _ListMeta()
    items: tuple[msgspec.Raw, ...] | None = None


_heads = msgspec.json.Decoder(_Head)
_statuses = msgspec.json.Decoder(dict)
_pages = msgspec.json.Decoder(ListPage)


def decode_page(body: bytes) -> ListPage:
    """A list answer. Raises `msgspec.DecodeError`."""
    return _pages.decode(body)


class Reflector(Generic[T]):
    """The state machine. Its owner sends what `mode` says and feeds the answers back."""

    def __init__(
        self,
        decode: Callable[[bytes], T],
        *,
        streaming: bool = True,
        seen: Callable[[Key, str], None] = lambda *_: None,
    ) -> None:
        """`seen` is called with the key and the resource version of each new version, also where `decode` finds no
        difference."""
        self._decode = decode
        self._seen_version = seen
        self._streaming = streaming
        self._items: dict[Key, T] = {}
        self._versions: dict[Key, str] = {}
        self._seen: set[Key] | None = None
        self.undecodable: dict[Key, Undecodable] = {}
        self.synced = False
        self.mode = Mode.STREAM if streaming else Mode.LIST
        self.resource_version = ""
        self.page_token = ""

    @property
    def items(self) -> Mapping[Key, T]:
        """The copy; a live view."""
        return self._items

    def begin(self) -> None:
        """A streaming list, or the first page of a list, is sent: what follows is the whole collection."""
        self._seen = set()

    def list_page(self, page: ListPage) -> Iterator[Change[T]]:
        """A page arrived; after the last one the mode is WATCH."""
        if self._seen is None:
            self._seen = set()
        for raw in page.items or ():
            yield from self._upsert(bytes(raw))
        self.page_token = page.metadata.token
        if not self.page_token:
            self.resource_version = page.metadata.resource_version
            yield from self._complete()

    def event(self, event: WatchEvent) -> Iterator[Change[T]]:
        """A watch event arrived. Raises the `ApiError` that an ERROR event carries, after taking it in."""
        body = bytes(event.object)
        match event.type:
            case "ADDED" | "MODIFIED":
                self.resource_version = yield from self._upsert(body)
            case "DELETED":
                meta = _heads.decode(body).metadata
                self.resource_version = meta.resource_version
                yield from self._remove((meta.namespace, meta.name))
            case "BOOKMARK":
                meta = _heads.decode(body).metadata
                self.resource_version = meta.resource_version
                if self._seen is not None and (meta.annotations or {}).get(INITIAL_EVENTS_END) == "true":
                    yield from self._complete()
                elif self._seen is not None:
                    # A server that knows streaming lists sends no bookmark before the marked one.
                    self._streaming = False
                    self._restart()
            case "ERROR":
                error = error_of_status(_statuses.decode(body))
                self.refused(error)
                raise error

    def ended(self) -> None:
        """The server ended the stream, or the connection broke: resume, or start the list again."""
        if self._seen is not None:
            self._restart()

    def refused(self, error: ApiError) -> None:
        """The server refused the request (or sent ERROR): choose what to send next."""
        if self.mode is Mode.STREAM and isinstance(error, Invalid):
            self._streaming = False
            self._restart()
        elif isinstance(error, Gone):
            self._restart()
        else:
            self.ended()

    def vanish(self) -> Iterator[Change[T]]:
        """The server does not know this resource: the collection is empty, and complete."""
        self._seen = set()
        yield from self._complete()
        self._restart()

    def _restart(self) -> None:
        self._seen = None
        self.page_token = ""
        self.mode = Mode.STREAM if self._streaming else Mode.LIST

    def _complete(self) -> Iterator[Change[T]]:
        seen = self._seen or set()
        self._seen = None
        self.mode = Mode.WATCH
        gone = [key for key in self._versions if key not in seen]
        for key in gone:
            yield from self._remove(key)
        self.synced = True

    def _upsert(self, body: bytes) -> Generator[Change[T], None, str]:
        meta = _heads.decode(body).metadata
        key = (meta.namespace, meta.name)
        if self._seen is not None:
            self._seen.add(key)
        if self._versions.get(key) == meta.resource_version and meta.resource_version:
            return meta.resource_version
        self._versions[key] = meta.resource_version
        self._seen_version(key, meta.resource_version)
        try:
            new = self._decode(body)
        except (msgspec.DecodeError, ValueError, TypeError, KeyError, RecursionError) as error:
            self.undecodable[key] = Undecodable(key, str(error))
            return meta.resource_version
        self.undecodable.pop(key, None)
        old = self._items.get(key)
        self._items[key] = new
        if old is None:
            yield Change("added", key, None, new)
        elif old != new:
            yield Change("modified", key, old, new)
        return meta.resource_version

    def _remove(self, key: Key) -> Iterator[Change[T]]:
        self._versions.pop(key, None)
        self.undecodable.pop(key, None)
        old = self._items.pop(key, None)
        if old is not None:
            yield Change("deleted", key, old, None)
