"""What was made is made again for other arguments only, and not kept for nobody."""

from collections import Counter

from ambit.core.memo import Memo


def test_the_same_is_made_once() -> None:
    memo, made = Memo(), Counter[object]()

    def square(number: int) -> int:
        def make() -> int:
            made[number] += 1
            return number * number

        return memo.of("square", (number,), make)

    for _ in range(3):
        memo.turn()
        assert (square(3), square(3)) == (9, 9)
    assert made == {3: 1}
    memo.turn()
    assert square(4) == 16
    memo.turn()
    assert square(3) == 9 and made == {3: 2, 4: 1}


def test_what_a_turn_does_not_ask_for_is_forgotten() -> None:
    memo, made = Memo(), []

    def ask() -> None:
        memo.of("name", (), lambda: made.append(1))

    ask()
    memo.turn()
    memo.turn()
    ask()
    assert len(made) == 2
