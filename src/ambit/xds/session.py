"""The server side of one delta xDS stream, without I/O: requests in, responses out.

Rules (the incremental variant of the xDS transport protocol, and what Envoy 1.40 and ztunnel were seen to
do):

1. A type's first request with no names subscribes to everything ("legacy wildcard"); so does the name `*` at
   any time. Named subscriptions do not end a wildcard; unsubscribing from `*` does.
2. A wildcard's first answer is sent even when empty: clients wait for it. It is one response, never split,
   because clients take the first response as complete.
3. `initial_versions` of a type's first request say what the client kept: unchanged versions are not sent
   again, vanished names are removed.
4. A subscribed name is always answered when it exists, also if it was sent before. One that does not exist is
   an *unanswered question*: nothing is sent until it is there, or refused with `refuse`.
5. On-demand resources go only to those who subscribed to their name: Envoy asks for on-demand clusters with
   the same type as for all clusters.
6. A rejection is the presence of an error, whatever its code; it counts for every name of its response. What
   was rejected is sent again only when it changes, or with `retry`.
7. At most `window` responses of a type are unacknowledged; later changes are merged until one is
   acknowledged.
8. Resources of the types `singly` are sent one by one, so that a rejection concerns one only, and none is held up by
   another that is wrong.
9. With `isolate`, what was rejected together is sent again one by one before anybody is told: Envoy stops at the first
   cluster or table that it cannot read, and takes none of the others that came with it.
10. Of `followers` what the client has is sent again after the resource of the same name that it belongs to: Envoy
    makes a changed cluster anew, does not ask for its endpoints again, and would wait for them for 15 s.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

from ambit.xds.events import (
    SHOWN,
    Acknowledged,
    Asked,
    Event,
    ProtocolViolation,
    Rejected,
    Released,
    TypeStatus,
)
from ambit.xds.frames import Node, Request, Resource, Response
from ambit.xds.store import Changed, Publication, Store

WILDCARD = "*"


class _Subscription:
    __slots__ = (
        "alone",
        "dirty",
        "held",
        "kept",
        "names",
        "opening",
        "pending",
        "rejected",
        "sent",
        "settled",
        "wildcard",
    )

    def __init__(self) -> None:
        self.wildcard = False
        self.names: set[str] = set()
        self.kept: set[str] = set()
        """Subscribed names the client was sent, so that a removal means something to it."""
        self.dirty: set[str] = set()
        self.alone: set[str] = set()
        """Names that were rejected together with others, until each is answered by itself."""
        self.opening: Mapping[str, str] | None = None
        """Versions the client kept, while its first wildcard answer is due."""
        self.held = False
        self.pending: dict[str, tuple[Response, int]] = {}
        self.sent = -1
        self.settled = -1
        """The newest revision that was answered; older ones may still be open."""
        self.rejected: dict[str, str] = {}
        """Names whose last answer was a rejection, with its text."""


class ServerSession:
    """One stream. `prerequisites` maps a type to one whose changes must be sent before its own
    (a first answer waits for the client to ask for that type, or for `release`), `followers` a type to one whose
    resources belong to its own of the same name."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        prerequisites: Mapping[str, str] | None = None,
        singly: Collection[str] = (),
        isolate: bool = False,
        followers: Mapping[str, str] | None = None,
        window: int = 16,
        max_names: int = 200_000,
        max_types: int = 64,
    ) -> None:
        self.store = store if store is not None else Store()
        self.node = Node()
        self._prerequisites = prerequisites or {}
        self._singly = frozenset(singly)
        self._isolate = isolate
        self._followers = followers or {}
        self._window = window
        self._max_names = max_names
        self._max_types = max_types
        self._subscriptions: dict[str, _Subscription] = {}
        self._events: list[Event] = []
        self._nonce = 0

    # Input

    def receive(self, request: Request) -> list[Response]:
        """Take one request. Raises ProtocolViolation."""
        if request.node is not None and self.node == Node():
            self.node = request.node
        subscription = self._subscriptions.get(request.type_url)
        first = subscription is None
        if subscription is None:
            if len(self._subscriptions) >= self._max_types:
                raise ProtocolViolation(f"more than {self._max_types} resource types on one stream")
            subscription = self._subscriptions[request.type_url] = _Subscription()
            prerequisite = self._prerequisites.get(request.type_url)
            subscription.held = prerequisite is not None and prerequisite not in self._subscriptions
        self._settle(subscription, request)
        self._subscribe(subscription, request, first=first)
        self._unsubscribe(subscription, request)
        if first and not subscription.wildcard:
            self._resume(subscription, request)
        responses = self._flush(request.type_url)
        for type_url, prerequisite in self._prerequisites.items():
            if prerequisite == request.type_url and type_url in self._subscriptions:
                self._subscriptions[type_url].held = False
                responses += self._flush(type_url)
        return responses

    def notify(self, changed: Changed) -> list[Response]:
        """Tell this stream what changed in its store. A store that several sessions share is updated once,
        then each of them is told."""
        self._mark(changed)
        return self._flush(changed.type_url)

    def notify_all(self, changes: Sequence[Changed]) -> list[Response]:
        """Several types that changed together, in the order in which additions must arrive.

        Resources are sent in that order and removals after them in the opposite one, so that nothing is ever
        sent that refers to what is not there.
        """
        for changed in changes:
            self._mark(changed)
        responses: list[Response] = []
        for changed in changes[:-1]:
            responses += self._flush(changed.type_url, removals=False)
        for changed in reversed(changes):
            responses += self._flush(changed.type_url)
        return responses

    def publish(self, publication: Publication) -> list[Response]:
        """`notify_all` with its changes; costs less where this stream follows everything and is not behind."""
        if not all(map(self._follows, self._subscriptions.values())):
            return self.notify_all(publication.changes)
        return [
            self._send(part.type_url, subscription, part.resources, part.removed)
            for part in publication.parts
            if (subscription := self._subscriptions.get(part.type_url)) is not None
        ]

    def _follows(self, subscription: _Subscription) -> bool:
        """Whether the next thing to send is just what changes next; there is room for two responses."""
        waits = subscription.dirty or subscription.held or subscription.opening is not None
        plain = subscription.wildcard and not subscription.names
        return plain and not waits and len(subscription.pending) + 2 <= self._window

    def refuse(self, type_url: str, names: Iterable[str]) -> list[Response]:
        """Answer unanswered questions with "there is no such resource". Never for Envoy's on-demand clusters:
        it would not ask again."""
        subscription = self._subscriptions.get(type_url)
        if subscription is None:
            return []
        gone = [
            name for name in names if name in subscription.names and self.store.get(type_url, name) is None
        ]
        subscription.kept.update(gone)
        subscription.dirty.update(gone)
        return self._flush(type_url)

    def retry(self, type_url: str) -> list[Response]:
        """Send again what the client rejected: something else changed, so it may take it now."""
        subscription = self._subscriptions.get(type_url)
        if subscription is None or not subscription.rejected:
            return []
        subscription.dirty.update(subscription.rejected)
        return self._flush(type_url)

    def release(self) -> list[Response]:
        """Answer what waits for a prerequisite type that the client does not ask for."""
        responses: list[Response] = []
        for type_url, subscription in self._subscriptions.items():
            subscription.held = False
            responses += self._flush(type_url)
        return responses

    # Output

    def take_events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(self._subscriptions)

    def names(self, type_url: str) -> frozenset[str]:
        """Names asked for by name."""
        subscription = self._subscriptions.get(type_url)
        return frozenset(subscription.names) if subscription is not None else frozenset()

    def wants(self, type_url: str, name: str) -> bool:
        """Whether this name was asked for by name."""
        subscription = self._subscriptions.get(type_url)
        return subscription is not None and name in subscription.names

    def unanswered(self, type_url: str) -> frozenset[str]:
        """Names asked for that do not exist."""
        subscription = self._subscriptions.get(type_url)
        if subscription is None:
            return frozenset()
        current = self.store.resources(type_url)
        return frozenset(name for name in subscription.names if name not in current)

    def rejection(self, type_url: str, name: str) -> str:
        """Why the client rejected this name when it last got it; empty when it did not."""
        subscription = self._subscriptions.get(type_url)
        return subscription.rejected.get(name, "") if subscription is not None else ""

    def rejections(self, type_url: str) -> Mapping[str, str]:
        """Names that the client rejected when it last got them, and why."""
        subscription = self._subscriptions.get(type_url)
        return dict(subscription.rejected) if subscription is not None else {}

    def is_behind(self, type_url: str) -> bool:
        """Whether something of this type waits for its answer, or to be sent; quick."""
        subscription = self._subscriptions.get(type_url)
        return subscription is not None and bool(subscription.pending or subscription.dirty)

    def is_isolating(self, type_url: str) -> bool:
        """Whether what was rejected together is sent one by one now."""
        subscription = self._subscriptions.get(type_url)
        return subscription is not None and bool(subscription.alone) and self.is_behind(type_url)

    def status(self, type_url: str) -> TypeStatus:
        subscription = self._subscriptions.get(type_url)
        if subscription is None:
            return TypeStatus()
        # Clients may answer out of order: a revision counts when no older one is open.
        opened = min((revision for _, revision in subscription.pending.values()), default=None)
        settled = subscription.settled if opened is None else min(subscription.settled, opened - 1)
        return TypeStatus(
            subscription.sent,
            settled,
            next(reversed(subscription.rejected.values()), ""),
            tuple(islice(reversed(subscription.rejected), SHOWN)),
            subscription.wildcard,
            len(subscription.names),
            len(self.unanswered(type_url)),
            len(subscription.pending),
        )

    # Rules

    def _settle(self, subscription: _Subscription, request: Request) -> None:
        if not request.nonce:
            return
        answered = subscription.pending.pop(request.nonce, None)
        if answered is None:
            return
        response, revision = answered
        if request.error is not None and self._isolate and len(response.resources) > 1:
            subscription.alone.update(each.name for each in response.resources)
            subscription.dirty.update(_names(response))
            return
        subscription.alone.difference_update(_names(response))
        if request.error is not None:
            error = request.error or "rejected without a reason"
            subscription.rejected.update(dict.fromkeys(_names(response), error))
            self._events.append(Rejected(response, error))
        else:
            if subscription.rejected:
                for name in _names(response):
                    subscription.rejected.pop(name, None)
            self._events.append(Acknowledged(response))
        subscription.settled = max(subscription.settled, revision)

    def _subscribe(self, subscription: _Subscription, request: Request, *, first: bool) -> None:
        names = request.subscribe
        wildcard = WILDCARD in names or (first and not names)
        if wildcard and not subscription.wildcard:
            subscription.wildcard = True
            subscription.opening = request.initial_versions if first else {}
        asked: list[str] = []
        for name in names:
            if name == WILDCARD:
                continue
            subscription.names.add(name)
            resource = self.store.get(request.type_url, name)
            if resource is None:
                asked.append(name)
            elif first and request.initial_versions.get(name) == resource.version:
                subscription.kept.add(name)
            else:
                subscription.dirty.add(name)
        if len(subscription.names) > self._max_names:
            raise ProtocolViolation(f"more than {self._max_names} names of {request.type_url} on one stream")
        if asked:
            self._events.append(Asked(request.type_url, tuple(asked)))

    def _resume(self, subscription: _Subscription, request: Request) -> None:
        """What a client without wildcard kept counts as subscribed (ztunnel's on-demand mode names it only
        here).
        """
        for name, version in request.initial_versions.items():
            if name in subscription.names:
                subscription.kept.add(name)
                continue
            subscription.names.add(name)
            subscription.kept.add(name)
            resource = self.store.get(request.type_url, name)
            if resource is None or resource.version != version:
                subscription.dirty.add(name)

    def _unsubscribe(self, subscription: _Subscription, request: Request) -> None:
        released: list[str] = []
        for name in request.unsubscribe:
            if name == WILDCARD:
                subscription.wildcard = False
                subscription.opening = None
            elif name in subscription.names:
                subscription.names.discard(name)
                subscription.kept.discard(name)
                subscription.dirty.discard(name)
                released.append(name)
                if subscription.wildcard:
                    # The client cannot tell whether the wildcard still covers it: say what is true.
                    subscription.dirty.add(name)
        if released:
            self._events.append(Released(request.type_url, tuple(released)))

    def _mark(self, changed: Changed) -> None:
        subscription = self._subscriptions.get(changed.type_url)
        if subscription is None:
            return
        resources = self.store.resources(changed.type_url)
        for name, before in changed.before.items():
            after = resources.get(name)
            if name in subscription.names or (
                subscription.wildcard
                and any(resource is not None and not resource.on_demand for resource in (before, after))
            ):
                subscription.dirty.add(name)

    def _flush(self, type_url: str, *, removals: bool = True) -> list[Response]:
        responses = self._flush_type(type_url, removals=removals)
        follower = self._followers.get(type_url, "")
        following = self._subscriptions.get(follower)
        if responses and following is not None:
            sent = (each.name for response in responses for each in response.resources)
            following.dirty.update(following.kept.intersection(sent))
            responses += self._flush_type(follower, removals=removals)
        return responses

    def _flush_type(self, type_url: str, *, removals: bool) -> list[Response]:
        subscription = self._subscriptions.get(type_url)
        if subscription is None or subscription.held or self._full(subscription):
            return []
        prerequisite = self._subscriptions.get(self._prerequisites.get(type_url, ""))
        if prerequisite is not None and prerequisite.dirty and self._full(prerequisite):
            return []
        if subscription.opening is not None and self._is_new(subscription):
            subscription.opening = None
            return [self._send(type_url, subscription, self.store.snapshot(type_url), ())]
        opening = subscription.opening is not None
        if subscription.opening is not None:
            self._open(type_url, subscription, subscription.opening)
            subscription.opening = None
        resources: list[Resource] = []
        removed: list[str] = []
        later: set[str] = set()
        for name in sorted(subscription.dirty):
            resource = self.store.get(type_url, name)
            named = name in subscription.names
            if resource is not None and (named or (subscription.wildcard and not resource.on_demand)):
                resources.append(resource)
                if named:
                    subscription.kept.add(name)
            elif named and name not in subscription.kept:
                continue
            elif not removals and not opening:
                later.add(name)
            elif subscription.wildcard or name in subscription.kept:
                removed.append(name)
                subscription.kept.discard(name)
        subscription.dirty = later
        alone = [] if opening else self._send_singly(type_url, subscription, resources)
        if not (resources or removed or opening):
            return alone
        return [*alone, self._send(type_url, subscription, tuple(resources), tuple(removed))]

    def _send_singly(
        self, type_url: str, subscription: _Subscription, resources: list[Resource]
    ) -> list[Response]:
        """Takes those that are sent one by one out of `resources`: each in a response of its own, as far as there is
        room; the others stay dirty."""
        if type_url in self._singly:
            found, resources[:] = tuple(resources), ()
        elif subscription.alone:
            found = tuple(each for each in resources if each.name in subscription.alone)
            resources[:] = [each for each in resources if each.name not in subscription.alone]
        else:
            return []
        room = self._window - len(subscription.pending)
        subscription.dirty.update(each.name for each in found[room:])
        return [self._send(type_url, subscription, (each,), ()) for each in found[:room]]

    def _is_new(self, subscription: _Subscription) -> bool:
        """Whether the client has nothing and asked for everything."""
        return not (subscription.opening or subscription.names or subscription.dirty)

    def _full(self, subscription: _Subscription) -> bool:
        return len(subscription.pending) >= self._window

    def _open(self, type_url: str, subscription: _Subscription, kept: Mapping[str, str]) -> None:
        """Marks what differs from what the client kept; of what it asked for by name, only what is there."""
        differs = {name for name, _ in self.store.versions(type_url).items() ^ kept.items()}
        if subscription.names:
            current = self.store.resources(type_url)
            differs = {
                name
                for name in differs
                if name not in subscription.names or ((there := current.get(name)) and not there.on_demand)
            }
            subscription.kept.update(kept.keys() & subscription.names)
        subscription.dirty |= differs

    def _send(
        self,
        type_url: str,
        subscription: _Subscription,
        resources: tuple[Resource, ...],
        removed: tuple[str, ...],
    ) -> Response:
        self._nonce += 1
        revision = self.store.revision(type_url)
        response = Response(
            type_url=type_url,
            nonce=str(self._nonce),
            resources=resources,
            removed=removed,
            revision=str(revision),
        )
        subscription.pending[response.nonce] = (response, revision)
        subscription.sent = revision
        return response


def _names(response: Response) -> list[str]:
    return [*(resource.name for resource in response.resources), *response.removed]
