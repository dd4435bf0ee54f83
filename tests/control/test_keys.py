"""Keys that are wanted are fetched, again and again; the last good ones are kept."""

import asyncio
from collections.abc import AsyncIterator, Collection

import pytest

from ambit.control.metrics import Counters
from ambit.control.token_keys import keys as module
from ambit.control.token_keys.fetch import Fetched, NotFetched
from ambit.control.token_keys.keys import KeyKeeper
from ambit.core.finding import Level, ObjectRef
from ambit.graph.collection import Delta
from ambit.model.inline_rules import InlineRules
from ambit.model.jwt import KeySource, Target, TokenPolicy, TokenRule
from ambit.model.service import Service
from ambit.model.status import Condition, ObjectStatus, Version
from tests.node.world import until

ONE, TWO = KeySource("https://one.example"), KeySource("https://two.example")


def policy(*sources: KeySource, name: str = "tokens", namespace: str = "shop") -> TokenPolicy:
    rules = tuple(TokenRule(each.url, source=each) for each in sources)
    return TokenPolicy(
        ObjectRef("RequestAuthentication", namespace, name), (Target("Service", namespace, "web"),), rules
    )


def status(of: TokenPolicy) -> ObjectStatus:
    return ObjectStatus(Version(of.origin, "u", 1), (Condition("WaypointAccepted", "True", "Accepted"),))


class Scene:
    """`answers` by source: a lifetime with the keys, or why there are none."""

    def __init__(self) -> None:
        self.answers: dict[KeySource, Fetched | str] = {}
        self.asked: list[KeySource] = []
        self.changes = 0
        self.noted: list[ObjectRef] = []
        self.counters = Counters()
        self.keeper = KeyKeeper(self._fetch, self.counters, lambda: 0.5, self._changed, self.noted.append)

    async def _fetch(self, source: KeySource) -> Fetched:
        self.asked.append(source)
        found = self.answers.get(source)
        if found is None:
            await asyncio.Event().wait()
        if isinstance(found, str):
            raise NotFetched(found)
        assert found is not None
        return found

    def _changed(self, sources: Collection[KeySource]) -> None:
        assert sources
        self.changes += 1

    def want(self, *policies: TokenPolicy, gone: tuple[str, ...] = ()) -> None:
        self.keeper.compiled(Delta({each.key: each for each in policies}, gone))

    def condition(self, of: TokenPolicy) -> tuple[str, str]:
        said = self.keeper.amended(status(of))
        assert isinstance(said, ObjectStatus)
        made = said.conditions[-1]
        assert made.type == "ambit.io/KeysFetched"
        return made.status, made.reason


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    for name in ("REFRESH", "REFRESH_LEAST", "RETRY_FIRST", "RETRY_LAST"):
        monkeypatch.setattr(module, name, 0.02)
    monkeypatch.setattr(module, "WAIT", 60)
    made = Scene()
    task = asyncio.create_task(made.keeper.run())
    yield made
    task.cancel()


async def test_keys_follow_their_source(scene: Scene) -> None:
    scene.answers[ONE] = Fetched("first")
    scene.want(policy(ONE))
    await scene.keeper.ready()
    assert scene.keeper.keys == {ONE: "first"}
    assert scene.condition(policy(ONE)) == ("True", "Fetched")
    scene.answers[ONE] = Fetched("second")
    await until(lambda: scene.keeper.keys == {ONE: "second"})
    assert (scene.changes, scene.keeper.findings) == (2, [])


async def test_pods_verify_by_keys_that_travel_with_their_service(scene: Scene) -> None:
    scene.answers |= {ONE: Fetched("first"), TWO: "it is away"}
    scene.want(both := policy(ONE, TWO))
    await scene.keeper.ready()
    given = Service("web", "shop", "web.shop.svc", rules=InlineRules(tokens=(both,)))
    rules = scene.keeper.keyed(given).rules
    assert rules is not None
    assert [each.keys for each in rules.tokens[0].rules] == ["first", ""]
    plain = Service("web", "shop", "web.shop.svc", rules=InlineRules(tokens=(policy(),)))
    assert scene.keeper.keyed(plain) is plain


async def test_the_last_good_ones_are_kept(scene: Scene) -> None:
    scene.answers[ONE] = Fetched("first")
    scene.want(policy(ONE))
    await scene.keeper.ready()
    scene.answers[ONE] = "it is away"
    await until(lambda: scene.keeper.findings)
    (finding,) = scene.keeper.findings
    assert (finding.code, finding.level, finding.path) == ("AMB0235", Level.WARNING, "spec.jwtRules[0]")
    assert scene.keeper.keys == {ONE: "first"}
    assert scene.condition(policy(ONE)) == ("True", "Outdated")
    scene.answers[ONE] = Fetched("first")
    await until(lambda: not scene.keeper.findings)
    assert scene.changes == 1
    assert scene.counters.value(module.FETCHES, result="failed") >= 1


async def test_without_any_that_is_said_and_tried_again(scene: Scene) -> None:
    scene.answers |= {ONE: "it is away", TWO: Fetched("second")}
    both = policy(ONE, TWO)
    scene.want(both)
    assert scene.condition(both) == ("Unknown", "Pending")
    await scene.keeper.ready()
    assert scene.keeper.keys == {TWO: "second"}
    assert scene.condition(both) == ("False", "NotFetched")
    assert [(each.level, each.text) for each in scene.keeper.findings] == [(Level.ERROR, "it is away")]
    assert set(scene.noted) == {both.origin}
    scene.answers[ONE] = Fetched("first")
    await until(lambda: scene.condition(both) == ("True", "Fetched"))


async def test_what_nobody_wants_is_forgotten(scene: Scene) -> None:
    scene.answers |= {ONE: Fetched("first"), TWO: Fetched("second")}
    first, second = policy(ONE), policy(ONE, TWO, name="second")
    scene.want(first, second)
    await scene.keeper.ready()
    scene.want(gone=(first.key,))
    assert set(scene.keeper.keys) == {ONE, TWO}
    scene.want(gone=(second.key,))
    assert scene.keeper.keys == {}
    asked = len(scene.asked)
    scene.want(policy())
    await asyncio.sleep(0.1)
    assert len(scene.asked) <= asked
    assert scene.keeper.amended(status(policy())) == status(policy())


async def test_nobody_waits_for_ever(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT", 0.2)
    scene.want(policy(ONE))
    await scene.keeper.ready()
    assert (scene.asked, scene.keeper.keys) == ([ONE], {})


async def test_more_than_can_be_are_never_asked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace that wants much leaves what others want to them."""
    monkeypatch.setattr(module, "MOST_SOURCES", 3)
    many = [KeySource(f"https://a{n}.example") for n in range(5)]
    scene.answers |= {each: Fetched(each.url) for each in (*many, ONE, TWO)}
    greedy = policy(*many, namespace="greedy")
    scene.want(greedy)
    await scene.keeper.ready()
    assert scene.condition(greedy) == ("False", "NotFetched")
    asked = len(scene.asked)
    failed = scene.counters.value(module.FETCHES, result="failed")
    await until(lambda: scene.counters.value(module.FETCHES, result="failed") >= failed + 4)
    assert set(scene.asked) == set(many[:3]) == set(scene.keeper.keys)
    scene.want(policy(ONE, TWO))
    await until(lambda: set(scene.keeper.keys) == {many[0], many[1], ONE})
    assert set(scene.asked[asked:]) <= {*many[:3], ONE}
    assert {each.text for each in scene.keeper.findings} == {"keys of more than 3 places are not fetched"}
    scene.want(gone=(greedy.key,))
    await until(lambda: set(scene.keeper.keys) == {ONE, TWO})
    assert not scene.keeper.findings


async def test_slow_ones_keep_those_of_their_own_namespace_waiting(scene: Scene) -> None:
    slow = [KeySource(f"https://a{n}.example") for n in range(100)]
    scene.want(policy(*slow, namespace="slow"))
    await until(lambda: len(scene.asked) == module.MOST_AT_ONCE_OF_A_NAMESPACE)
    scene.answers[ONE] = Fetched("first")
    scene.want(policy(ONE))
    await until(lambda: scene.keeper.keys == {ONE: "first"})
    assert len(set(scene.asked) - {ONE}) == module.MOST_AT_ONCE_OF_A_NAMESPACE


async def test_each_of_a_namespace_has_its_turn(scene: Scene) -> None:
    many = [KeySource(f"https://a{n}.example") for n in range(50)]
    scene.answers |= {each: Fetched(each.url) for each in many}
    scene.want(policy(*many))
    await scene.keeper.ready()
    assert set(scene.keeper.keys) == set(many)
