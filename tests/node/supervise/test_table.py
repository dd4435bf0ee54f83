"""The state table of Envoy's life: rules 1 to 4 of `ambit.node.supervise.table`."""

from hypothesis import given
from hypothesis import strategies as st

from ambit.node.supervise.table import TABLE, Action, Event, State, back_off, step

_SPAWNS = {Action.SPAWN_FIRST, Action.SPAWN_NEXT}


@given(st.lists(st.sampled_from([event for event in Event if event is not Event.STOP]), max_size=40))
def test_1_at_most_one_generation_starts_at_a_time(events: list[Event]) -> None:
    state, current, successor = State.ABSENT, False, False
    for event in events:
        if (state, event) not in TABLE:
            continue
        state, actions = step(state, event)
        for action in actions:
            match action:
                case Action.SPAWN_FIRST:
                    assert not current
                    assert not successor
                    current = True
                case Action.SPAWN_NEXT:
                    assert current
                    assert not successor
                    successor = True
                case Action.PROMOTE:
                    assert successor
                    successor = False
                case Action.DISCARD_NEXT:
                    successor = False
                case Action.DISCARD_CURRENT:
                    current = False
                case _:
                    pass
        if event is Event.ADOPTED:
            current = True
        assert current == (state not in (State.ABSENT, State.FAILED))


def test_2_no_action_signals_an_older_generation_whose_successor_lives() -> None:
    for (_, event), (_, actions) in TABLE.items():
        if Action.ORPHAN_OLDER in actions:
            assert event is Event.CURRENT_ENDED


def test_3_every_crash_leads_to_a_retry() -> None:
    for state in (State.STARTING, State.SERVING, State.HANDING_OVER, State.DRAINING):
        after, actions = step(state, Event.CURRENT_ENDED)
        assert after is State.FAILED
        assert actions[-1] is Action.BACK_OFF
    assert step(State.FAILED, Event.RETRY) == (State.STARTING, (Action.SPAWN_FIRST,))


def test_3_the_first_restart_is_immediate_and_the_wait_is_bounded() -> None:
    waits = [back_off(failures) for failures in range(1, 40)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] == 10


def test_a_stop_is_possible_in_every_state() -> None:
    for state in State:
        assert step(state, Event.STOP) == (State.ABSENT, (Action.STOP_ALL,))
