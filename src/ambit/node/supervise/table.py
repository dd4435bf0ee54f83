"""The life of the node's Envoy as a state table. Pure; `supervisor` carries the actions out.

Rules (each has a test of the same number):
1. At most two generations exist: the current one and the one it took over from.
2. The older generation is never signalled while its successor lives: the successor would lose its parent's
   socket, retry on its main thread and abort. The successor itself ends it after the drain cap.
3. A crash of the current generation leads to a fresh start, at once the first time, then with back-off.
4. No new generation starts while the older one still carries connections, unless forced.
"""

from enum import StrEnum
from typing import Final


class State(StrEnum):
    ABSENT = "absent"
    STARTING = "starting"
    SERVING = "serving"
    HANDING_OVER = "handing over"
    DRAINING = "draining"
    FAILED = "failed"


class Event(StrEnum):
    START = "start asked for"
    ADOPTED = "running process found"
    LIVE = "newest generation is live"
    TIMED_OUT = "newest generation is not live in time"
    CURRENT_ENDED = "current generation ended"
    OLDER_ENDED = "older generation ended"
    NEXT_ENDED = "successor ended before it was live"
    RESTART = "restart asked for"
    RETRY = "back-off is over"
    STOP = "stop asked for"


class Action(StrEnum):
    SPAWN_FIRST = "start a generation of its own"
    SPAWN_NEXT = "start a successor"
    PROMOTE = "the successor becomes current, the current one older"
    FORGET_OLDER = "forget the older generation"
    DISCARD_CURRENT = "kill the current generation if it lives, and forget it"
    DISCARD_NEXT = "kill and forget the successor"
    ORPHAN_OLDER = "end the older generation ourselves after the drain cap"
    BACK_OFF = "wait before the next start"
    STOP_ALL = "end every generation"


_A, _E, _S = Action, Event, State

TABLE: Final[dict[tuple[State, Event], tuple[State, tuple[Action, ...]]]] = {
    (_S.ABSENT, _E.START): (_S.STARTING, (_A.SPAWN_FIRST,)),
    (_S.ABSENT, _E.ADOPTED): (_S.STARTING, ()),
    (_S.STARTING, _E.LIVE): (_S.SERVING, ()),
    (_S.STARTING, _E.TIMED_OUT): (_S.FAILED, (_A.DISCARD_CURRENT, _A.BACK_OFF)),
    (_S.STARTING, _E.CURRENT_ENDED): (_S.FAILED, (_A.DISCARD_CURRENT, _A.BACK_OFF)),
    (_S.STARTING, _E.OLDER_ENDED): (_S.STARTING, (_A.FORGET_OLDER,)),
    (_S.SERVING, _E.RESTART): (_S.HANDING_OVER, (_A.SPAWN_NEXT,)),
    (_S.SERVING, _E.CURRENT_ENDED): (_S.FAILED, (_A.DISCARD_CURRENT, _A.BACK_OFF)),
    (_S.SERVING, _E.OLDER_ENDED): (_S.SERVING, (_A.FORGET_OLDER,)),
    (_S.HANDING_OVER, _E.LIVE): (_S.DRAINING, (_A.PROMOTE,)),
    (_S.HANDING_OVER, _E.TIMED_OUT): (_S.SERVING, (_A.DISCARD_NEXT,)),
    (_S.HANDING_OVER, _E.NEXT_ENDED): (_S.SERVING, (_A.DISCARD_NEXT,)),
    (_S.HANDING_OVER, _E.CURRENT_ENDED): (
        _S.FAILED,
        (_A.DISCARD_NEXT, _A.DISCARD_CURRENT, _A.BACK_OFF),
    ),
    (_S.HANDING_OVER, _E.OLDER_ENDED): (_S.HANDING_OVER, (_A.FORGET_OLDER,)),
    (_S.DRAINING, _E.OLDER_ENDED): (_S.SERVING, (_A.FORGET_OLDER,)),
    (_S.DRAINING, _E.RESTART): (_S.HANDING_OVER, (_A.SPAWN_NEXT,)),
    (_S.DRAINING, _E.CURRENT_ENDED): (
        _S.FAILED,
        (_A.DISCARD_CURRENT, _A.ORPHAN_OLDER, _A.BACK_OFF),
    ),
    (_S.FAILED, _E.RETRY): (_S.STARTING, (_A.SPAWN_FIRST,)),
    (_S.FAILED, _E.OLDER_ENDED): (_S.FAILED, (_A.FORGET_OLDER,)),
}


def step(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """The next state and what to do. Raises KeyError for an event that cannot happen in the state."""
    if event is Event.STOP:
        return State.ABSENT, (Action.STOP_ALL,)
    return TABLE[state, event]


def back_off(failures: int) -> float:
    """Seconds before start number `failures` after a crash: none at first, then doubling up to 10 s."""
    return 0.0 if failures <= 1 else min(10.0, 0.1 * 2.0 ** min(failures - 2, 10))
