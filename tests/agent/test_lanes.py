"""What is kept about lines that records share: worked out once, and never more than there is room for."""

from ambit.agent.lanes import LONGEST_LINE, Lanes


def test_a_line_is_understood_once() -> None:
    asked: list[str] = []

    def make(line: str) -> str | None:
        asked.append(line)
        return line.upper() or None

    lanes = Lanes(make)
    assert [lanes["a"], lanes["a"], lanes[""], lanes[""]] == ["A", "A", None, None]
    assert asked == ["a", ""]


def test_more_lines_than_there_is_room_for() -> None:
    lanes = Lanes(str.upper, most=3)
    assert [lanes[each] for each in "abcd"] == ["A", "B", "C", "D"]
    assert list(lanes) == ["d"]
    for each in "efghijk":
        lanes.remember(each, each)
    assert len(lanes) <= 3
    before = dict(lanes)
    lanes.remember("k", "k")
    assert lanes == before


def test_a_long_line_is_not_remembered() -> None:
    lanes = Lanes(len)
    assert lanes["x" * (LONGEST_LINE + 1)] == LONGEST_LINE + 1
    lanes.remember("y" * (LONGEST_LINE + 1), 1)
    assert not lanes
    assert lanes["x" * LONGEST_LINE] == LONGEST_LINE and len(lanes) == 1
