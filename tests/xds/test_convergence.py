"""Server and client sessions glued together converge, whatever is lost, delayed, rejected or restarted."""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ambit.xds.client_session import ClientSession
from ambit.xds.events import Asked
from ambit.xds.frames import Node, Resource
from ambit.xds.session import ServerSession
from ambit.xds.store import Store

ALL, NAMED = "type/all", "type/named"
TYPES = (ALL, NAMED)
names = st.sampled_from("abcd")
types = st.sampled_from(TYPES)


class Streams(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.store = Store()
        self.versions = 0
        self.kept = {ALL: {}, NAMED: {}}
        self.wanted = set()
        self.client = ClientSession(TYPES, Node("n"), lambda kind: self.kept[kind], named=[NAMED])
        self.server = None
        self.to_server = deque()
        self.to_client = deque()
        self.to_answer = deque()
        self.poisoned = set()

    # The world changes

    @rule(kind=types, name=names, on_demand=st.booleans())
    def change(self, kind, name, on_demand):
        self.versions += 1
        version = str(self.versions)
        resource = Resource(name=name, version=version, body=b"", on_demand=kind == ALL and on_demand)
        self.tell(kind, {name: resource}, ())

    @rule(kind=types, name=names)
    def remove(self, kind, name):
        self.tell(kind, {}, (name,))

    def tell(self, kind, changed, removed):
        delta = self.store.update(kind, changed, removed)
        if self.server is not None:
            self.to_client.extend(self.server.notify(delta))

    @rule(name=names)
    def want(self, name):
        self.wanted.add(name)
        self.to_server.extend(self.client.subscribe(NAMED, [name]))

    @rule(name=names)
    def no_longer_want(self, name):
        self.wanted.discard(name)
        self.to_server.extend(self.client.unsubscribe(NAMED, [name]))
        self.kept[NAMED].pop(name, None)

    # The network

    @rule()
    def reconnect(self):
        self.client.disconnect()
        self.to_client.clear()
        self.server = ServerSession(self.store, window=2)
        self.to_server = deque(self.client.connect())

    @precondition(lambda self: self.server is not None)
    @rule()
    def lose_connection(self):
        self.client.disconnect()
        self.server = None
        self.to_server.clear()
        self.to_client.clear()

    @precondition(lambda self: self.to_server and self.server)
    @rule()
    def server_reads(self):
        self.to_client.extend(self.server.receive(self.to_server.popleft()))
        for event in self.server.take_events():
            if isinstance(event, Asked):
                # As the control plane does: its store is complete.
                self.to_client.extend(self.server.refuse(event.type_url, event.names))

    @precondition(lambda self: self.to_client)
    @rule()
    def client_reads(self):
        self.to_answer.append(self.client.receive(self.to_client.popleft()))

    @precondition(lambda self: self.to_answer)
    @rule(reject=st.booleans())
    def client_applies(self, reject):
        update = self.to_answer.popleft()
        if not self.client.is_current(update):
            return
        assert not {each.name for each in update.resources} & set(update.removed)
        kept = self.kept[update.type_url]
        for resource in update.resources:
            if reject and resource.name == "a":
                self.poisoned.add((update.type_url, "a", resource.version))
            elif update.type_url == ALL or resource.name in self.wanted:
                kept[resource.name] = resource.version
        for name in update.removed:
            kept.pop(name, None)
        bad = reject and any(resource.name == "a" for resource in update.resources)
        self.to_server.extend(self.client.reject(update, "a") if bad else self.client.accept(update))

    @invariant()
    def unacknowledged_responses_are_bounded(self):
        if self.server is not None:
            assert all(self.server.status(kind).unacknowledged <= 2 for kind in TYPES)

    def teardown(self):
        """When everything is delivered the client has what exists, but for what it rejected."""
        if self.server is None:
            self.reconnect()
        for _ in range(1000):
            if self.to_server:
                self.server_reads()
            elif self.to_client:
                self.client_reads()
            elif self.to_answer:
                self.client_applies(reject=False)
            else:
                break
        else:
            raise AssertionError("server and client never stop talking")
        for kind in TYPES:
            exists = {
                name: resource.version
                for name, resource in self.store.resources(kind).items()
                if not resource.on_demand and (kind == ALL or name in self.wanted)
            }
            kept = dict(self.kept[kind])
            if (kind, "a", exists.get("a")) in self.poisoned:
                exists.pop("a")
                kept.pop("a", None)
            assert kept == exists
            assert self.server.status(kind).unacknowledged == 0


Streams.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestStreams = Streams.TestCase
