"""When what made a Gateway's pods run goes: `ambit.control.gateways.leaving`."""

from ambit.control.gateways.leaving import LEFT_AFTER, Leaving
from ambit.control.handover import LINGER
from tests.control.test_handover import OPEN, World

GATEWAY = "shop/a"
STEP = 0.25


def test_the_first_question_begins_the_time() -> None:
    leaving = Leaving()
    assert leaving.seconds(GATEWAY, 100.0) == LEFT_AFTER == 16.0
    assert leaving.seconds(GATEWAY, 101.5) == LEFT_AFTER - 1.5
    assert leaving.seconds("shop/b", 101.5) == LEFT_AFTER, "each has its own"
    assert leaving.seconds(GATEWAY, 100.0 + LEFT_AFTER) == 0
    assert leaving.seconds(GATEWAY, 200.0) == 0


def test_who_needs_pods_again_has_the_whole_time_when_it_does_not() -> None:
    leaving = Leaving()
    leaving.seconds(GATEWAY, 0.0)
    leaving.stays(GATEWAY)
    assert leaving.seconds(GATEWAY, 10.0) == LEFT_AFTER
    leaving.clear()
    assert leaving.seconds(GATEWAY, 20.0) == LEFT_AFTER


def test_nobody_goes_to_it_by_then_whoever_does_not_answer() -> None:
    """What was behind the waypoint is bound to nothing any more, and no node and no pod says that it has heard."""
    world = World()
    world.bind("a", guarded=True)
    world.bind(OPEN)
    last = 0.0
    while world.now < 2 * LEFT_AFTER:
        if world.callers == "a":
            last = world.now
        world.look(STEP)
    assert 0.0 < last < LEFT_AFTER - LINGER, "what is open has so long to end"
