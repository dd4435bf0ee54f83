"""Who is told first when something gets another waypoint: every order of changes, answers and silence."""

import ipaddress

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.control import enforcement_change
from ambit.control.handover import DRAIN, ENDED, HOLD, LINGER, MARGIN, Handovers, Mark, Place, way
from ambit.control.view import LiveView
from ambit.core.identity import Identity
from ambit.graph.collection import Delta
from ambit.ingest.mesh import MeshDelta
from ambit.model.inline_rules import READ_AT_POD, InlineRules
from ambit.model.jwt import Target
from ambit.model.request_policy import RequestAction, RequestPolicy
from ambit.model.service import Service
from ambit.model.workload import GatewayAddress, Port, Workload

PLACES = ("a", "b")
INLINE, OPEN, GUARD = "inline", "", "shop/only_by_waypoint_x"


def host(name: str) -> str:
    return f"{name}.shop.svc.cluster.local"


def place(name: str) -> Place:
    return "shop", host(name)


def service(waypoint: str, *, ports: int = 80) -> Service:
    """`web`, with this waypoint; without one when that is OPEN."""
    address = GatewayAddress(15008, namespace="shop", hostname=host(waypoint)) if waypoint else None
    return Service("web", "shop", host("web"), ports=(Port(ports, 8080),), waypoint=address)


WEB = service(OPEN).key


def pod(name: str, of: str, *policies: str) -> Workload:
    return Workload(
        uid=f"uid-{name}",
        name=name,
        namespace="shop",
        identity=Identity("cluster.local", "shop", name),
        addresses=(ipaddress.ip_address("10.244.1.2"),),
        services={of: (Port(80, 8080),)},
        policies=policies,
    )


def policy() -> RequestPolicy:
    target = Target("Service", "shop", "web")
    return RequestPolicy("deny", "shop", RequestAction.DENY, (target,))


def batch(*values: Service | Workload | RequestPolicy, gone: tuple[str, ...] = ()) -> MeshDelta:
    def of(kind: type) -> Delta:  # type: ignore[type-arg]
        return Delta({each.key: each for each in values if isinstance(each, kind)}, gone)

    return MeshDelta(services=of(Service), workloads=of(Workload), request_policies=of(RequestPolicy))


class World:
    """Nodes and waypoints as `Handovers` has told them. Waypoints `a` and `b` have a pod each, `c` has none."""

    def __init__(self) -> None:
        self.view = LiveView()
        self.handovers = Handovers(self.view)
        self.now = 0.0
        self.nodes: dict[str, Service | Workload] = {}
        self.prepared: set[Place] = set()
        """Who has taken everything so far."""
        self.acknowledged = False
        self.began = 0.0
        """When something was changed last."""
        gateways = [Service(name, "shop", host(name), ports=(Port(15008, 15008),)) for name in (*PLACES, "c")]
        self.take(
            batch(*gateways, *(pod(name, each.key) for name, each in zip(PLACES, gateways, strict=False)))
        )

    def bind(self, waypoint: str, *, guarded: bool = False, more: tuple[RequestPolicy, ...] = ()) -> None:
        guards = (GUARD,) if guarded else ()
        self.take(batch(service(waypoint), pod("server", WEB, *guards), *more))

    def take(self, delta: MeshDelta) -> None:
        self.prepared.clear()
        self.acknowledged = False
        self._publish(self.handovers.take(delta, self.now))
        self.view.take(delta)
        self.handovers.told(lambda _: {"type": 1}, 1, self.now)
        self.began = self.now

    def look(self, seconds: float = 0.0) -> None:
        self.now += seconds
        step = self.handovers.proceed(self.now, self._is_prepared, lambda _: self.acknowledged)
        if step.delta:
            self.acknowledged = False
        self._publish(step.delta)
        self.handovers.told(lambda _: {"type": 1}, 1, self.now)

    def _publish(self, delta: MeshDelta) -> None:
        for changes in (delta.services, delta.workloads):
            self.nodes.update(changes.upserts)  # type: ignore[arg-type]
            for key in changes.removals:
                self.nodes.pop(key, None)

    def _is_prepared(self, where: Place, mark: Mark) -> bool:
        assert mark == {"type": 1}, "nobody is asked about what it was not told"
        return where in self.prepared

    @property
    def callers(self) -> str:
        """By which waypoint callers go to `web`."""
        waypoint = way(self.nodes[WEB]).waypoint
        return waypoint.hostname.partition(".")[0] if waypoint is not None else OPEN

    @property
    def wanted(self) -> str:
        waypoint = self.view.services[WEB].waypoint
        return waypoint.hostname.partition(".")[0] if waypoint is not None else OPEN

    @property
    def is_guarded(self) -> bool:
        server = self.nodes["uid-server"]
        assert isinstance(server, Workload)
        return GUARD in server.policies

    @property
    def enforcement(self) -> tuple[str, InlineRules | None, frozenset[str]]:
        """Where callers go, what pods' nodes enforce, and policies about connections to the pod."""
        given, server = self.nodes[WEB], self.nodes["uid-server"]
        assert isinstance(given, Service) and isinstance(server, Workload)
        return (INLINE if given.inline is not None else self.callers), given.rules, frozenset(server.policies)

    def step(self) -> tuple[str, InlineRules | None, frozenset[str]]:
        """All nodes acknowledge what they have; what is enforced after that."""
        self.acknowledged = True
        self.look()
        self.look(MARGIN)
        return self.enforcement

    def serves(self, name: str) -> bool:
        """Whether this waypoint knows `web`."""
        return self.wanted == name or WEB in self.handovers.kept(place(name))


def test_a_waypoint_learns_of_a_service_before_callers_go_there() -> None:
    world = World()
    world.bind(OPEN)
    world.bind("a")
    world.look(MARGIN)
    assert (world.callers, world.serves("a")) == (OPEN, True)
    world.prepared.add(place("a"))
    world.look()
    assert world.callers == OPEN
    world.look(MARGIN)
    assert world.callers == "a"
    assert not world.handovers.is_waiting


def test_nobody_waits_for_a_waypoint_that_does_not_answer() -> None:
    world = World()
    world.bind(OPEN)
    world.bind("a")
    world.look(HOLD)
    assert world.callers == "a"


def test_what_else_changes_of_a_service_that_waits_is_told_at_once() -> None:
    world = World()
    world.bind(OPEN)
    world.bind("a")
    world.look(HOLD / 2)
    world.take(batch(service("a", ports=81)))
    told = world.nodes[WEB]
    assert isinstance(told, Service)
    assert (told.ports, told.waypoint) == ((Port(81, 8080),), None)
    world.look(HOLD / 2)
    assert world.callers == "a", "it waits no longer for that"


def test_a_waypoint_that_is_left_serves_on_for_a_moment() -> None:
    world = World()
    world.bind("a")
    world.bind(OPEN)
    assert (world.callers, world.serves("a")) == (OPEN, True)
    world.look(DRAIN / 2)
    assert world.serves("a")
    assert world.handovers.lingers_until == DRAIN
    step = world.handovers.proceed(DRAIN, world._is_prepared, lambda _: True)
    assert step.released == {place("a")}
    assert not world.serves("a")


def test_a_waypoint_is_left_when_callers_have_gone_to_another() -> None:
    world = World()
    world.bind("a")
    world.bind("b")
    assert (world.callers, world.serves("a"), world.serves("b")) == ("a", True, True)
    world.prepared.add(place("b"))
    world.look()
    world.look(MARGIN)
    assert (world.callers, world.serves("a")) == ("b", True)


def test_a_pod_opens_before_callers_come_and_shuts_after_they_have_gone() -> None:
    world = World()
    world.bind(OPEN)
    world.bind("a", guarded=True)
    world.prepared.add(place("a"))
    world.look()
    world.look(MARGIN)
    assert (world.callers, world.is_guarded) == ("a", False)
    world.acknowledged = True
    world.look()
    world.look(MARGIN)
    assert world.is_guarded
    world.bind(OPEN)
    assert (world.callers, world.is_guarded) == ("a", False)
    world.acknowledged = True
    world.look()
    world.look(MARGIN)
    assert (world.callers, world.serves("a")) == (OPEN, True)


def test_what_a_policy_is_for_waits_for_nothing() -> None:
    world = World()
    world.bind(OPEN)
    world.bind("a", guarded=True, more=(policy(),))
    assert (world.callers, world.is_guarded) == ("a", True)


CLOSED = f"shop/{READ_AT_POD}_web_8080"
RULED = msgspec.structs.replace(service(OPEN), inline=(), rules=InlineRules((policy(),)))
"""`web` with rules that its pods' nodes enforce."""


def test_what_pods_themselves_enforce_rules_for_waits_for_nothing() -> None:
    """Without a waypoint before or after that enforces them: in between nobody would."""
    world = World()
    world.bind("a")
    closed = pod("server", WEB, CLOSED)
    world.take(batch(RULED, closed))
    assert (world.nodes[WEB], world.nodes[closed.uid]) == (RULED, closed)
    world.bind(OPEN)
    assert (world.nodes[WEB], world.nodes[closed.uid]) == (service(OPEN), pod("server", WEB))


def test_pods_enforce_rules_before_they_take_connections_past_the_waypoint() -> None:
    """Callers come when all nodes hold them to the rules, and the waypoint is excepted until it has ended."""
    world = World()
    world.bind("a", guarded=True)
    world.take(batch(RULED, pod("server", WEB, CLOSED)))
    excepting = enforcement_change.excepting(InlineRules((policy(),)), ["cluster.local/ns/shop/sa/a"])
    assert [world.enforcement, world.step(), world.step(), world.step()] == [
        ("a", excepting, {GUARD}),
        ("a", excepting, {CLOSED}),
        (INLINE, excepting, {CLOSED}),
        (INLINE, excepting, {CLOSED}),
    ]
    assert world.serves("a")
    world.look(LINGER)
    assert not world.serves("a")
    world.look(ENDED)
    assert world.enforcement == (INLINE, RULED.rules, {CLOSED})
    assert not world.handovers.is_waiting


def test_pods_enforce_rules_until_they_take_connections_from_the_waypoint_only() -> None:
    world = World()
    world.bind(OPEN)
    world.take(batch(RULED, pod("server", WEB, CLOSED)))
    world.bind("a", guarded=True)
    excepting = enforcement_change.excepting(InlineRules((policy(),)), ["cluster.local/ns/shop/sa/a"])
    assert world.step() == (INLINE, excepting, {CLOSED}), "the waypoint has not answered"
    world.prepared.add(place("a"))
    assert [world.step(), world.step(), world.step()] == [
        ("a", excepting, {CLOSED}),
        ("a", excepting, {CLOSED, GUARD}),
        ("a", None, {GUARD}),
    ]


def test_a_change_of_who_enforces_waits_for_nobody_without_end_and_is_ended_by_another_one() -> None:
    world = World()
    world.bind("a", guarded=True)
    world.take(batch(RULED, pod("server", WEB, CLOSED)))
    for _ in range(2):
        world.look(HOLD)
    assert world.enforcement[0] == INLINE
    world.take(batch(RULED, pod("server", WEB, CLOSED), policy()))
    assert world.enforcement == (INLINE, RULED.rules, {CLOSED}), "a policy waits for nothing"
    world.bind("a", guarded=True)
    world.bind(OPEN)
    assert (world.nodes[WEB], world.nodes["uid-server"]) == (service(OPEN), pod("server", WEB))


def test_policies_that_pods_still_name_stay_until_then() -> None:
    world = World()
    world.bind("a", guarded=True)
    step = msgspec.structs.replace(
        batch(RULED, pod("server", WEB, CLOSED)), authorizations=Delta({}, (GUARD,))
    )
    assert world.handovers.take(step, world.now).authorizations.removals == ()
    world.view.take(step)
    world.handovers.told(lambda _: {}, 0, world.now)
    gone = world.handovers.proceed(HOLD, lambda *_: True, lambda _: True).delta.authorizations.removals
    assert gone == (GUARD,)


def test_a_policy_ends_all_waiting_for_what_it_may_concern() -> None:
    world = World()
    world.bind(OPEN)
    world.bind("a", guarded=True)
    world.take(batch(policy()))
    assert (world.callers, world.is_guarded) == ("a", True)
    world = World()
    world.bind(OPEN)
    world.bind("a")
    other = msgspec.structs.replace(policy(), targets=(Target("Service", "elsewhere", "web"),))
    world.take(batch(other))
    assert world.callers == OPEN


def test_a_waypoint_without_pods_closes_at_once() -> None:
    world = World()
    world.bind(OPEN)
    world.bind("c")
    assert world.callers == "c"
    world.bind("a")
    world.look(HOLD)
    world.bind(OPEN)
    assert world.serves("a")
    world.bind("c")
    assert not world.serves("a")
    assert world.handovers.is_waiting, "it has to be told"


def test_what_is_gone_is_forgotten() -> None:
    world = World()
    world.bind("a")
    world.bind("b")
    world.take(batch(gone=(WEB,)))
    assert not world.handovers.kept(place("a"))
    world.look(HOLD)
    assert WEB not in world.nodes


EVENTS = st.one_of(
    st.tuples(st.just("bind"), st.sampled_from((OPEN, "a", "b", "c")), st.booleans(), st.booleans()),
    st.tuples(st.just("prepared"), st.sampled_from(PLACES)),
    st.tuples(st.just("acknowledged")),
    st.tuples(st.just("look"), st.sampled_from((0.0, MARGIN / 2, MARGIN, HOLD / 2, HOLD, DRAIN))),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=14))
def test_in_whatever_order(events: list[tuple]) -> None:  # type: ignore[type-arg]
    """Callers are never sent to a waypoint that was not told; what a policy closes is closed in the same step; and in
    the end all is as it was wanted, and nobody keeps anything."""
    world = World()
    world.bind(OPEN)
    for event in events:
        match event:
            case ("bind", waypoint, guarded, with_policy):
                guarded = guarded and waypoint not in (OPEN, "c")
                world.bind(waypoint, guarded=guarded, more=(policy(),) if with_policy else ())
                if with_policy or waypoint == "c":
                    assert world.callers == waypoint
                if with_policy:
                    assert world.is_guarded is guarded
            case ("prepared", name):
                world.prepared.add(place(name))
            case ("acknowledged",):
                world.acknowledged = True
            case ("look", seconds):
                world.look(seconds)
        assert world.callers in (OPEN, "c") or world.serves(world.callers)
        assert world.callers or not world.is_guarded, "sent past the waypoint to a pod that is closed"
        assert world.callers == world.wanted or world.now <= world.began + HOLD
    for _ in range(3):
        world.look(HOLD)
    assert world.callers == world.wanted
    assert world.nodes["uid-server"] == world.view.workloads["uid-server"]
    world.look(DRAIN)
    assert not any(world.handovers.kept(place(name)) for name in PLACES)
    assert not world.handovers.is_waiting
    assert world.handovers.lingers_until is None


ENFORCED = st.one_of(
    st.tuples(st.just("bind"), st.sampled_from(("a", INLINE, OPEN)), st.booleans()),
    st.tuples(st.just("prepared"), st.sampled_from(PLACES)),
    st.tuples(st.just("acknowledged")),
    st.tuples(st.just("look"), st.sampled_from((0.0, MARGIN, HOLD, LINGER, ENDED))),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ENFORCED, max_size=14))
def test_in_whatever_order_somebody_enforces_the_rules(events: list[tuple]) -> None:  # type: ignore[type-arg]
    """As long as any are wanted: pods take connections from the waypoint only, or their nodes enforce the rules for all
    but it. And in the end all is as it was wanted."""
    world = World()
    world.bind(OPEN)
    wanted = OPEN
    for event in events:
        match event:
            case ("bind", where, with_policy):
                more = (policy(),) if with_policy else ()
                if where == INLINE:
                    world.take(batch(RULED, pod("server", WEB, CLOSED), *more))
                else:
                    world.bind(where, guarded=where == "a", more=more)
                wanted = where
                if where == INLINE and with_policy:
                    assert world.enforcement == (INLINE, RULED.rules, {CLOSED})
            case ("prepared", name):
                world.prepared.add(place(name))
            case ("acknowledged",):
                world.acknowledged = True
            case ("look", seconds):
                world.look(seconds)
        callers, rules, policies = world.enforcement
        if wanted == INLINE:
            assert rules is not None and policies & {CLOSED, GUARD}
        assert callers != INLINE or GUARD not in policies, "pods are closed to where callers go"
        assert callers != "a" or world.serves("a")
    for _ in range(4):
        world.look(HOLD)
    world.look(LINGER + ENDED)
    final = world.view.services[WEB], world.view.workloads["uid-server"]
    assert (world.nodes[WEB], world.nodes["uid-server"]) == final
    assert not world.handovers.is_waiting
