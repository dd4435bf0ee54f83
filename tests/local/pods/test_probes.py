import asyncio

import pytest

from ambit.local.pods.probes import Outcome, Probe, repeat


async def verdicts(answers: str, stop_at: bool | None = None, **thresholds: int) -> list[bool]:
    """What `repeat` tells about a row of answers: `+` good, `-` bad, `t` none in time."""
    told: list[bool] = []
    row = iter(answers)

    async def check() -> Outcome:
        answer = next(row, None)
        if answer is None:
            raise EOFError
        if answer == "t":
            await asyncio.sleep(60)
        return answer == "+", ""

    def tell(outcome: bool, _text: str) -> bool:
        told.append(outcome)
        return outcome is stop_at

    try:
        await repeat(Probe(period_seconds=0.001, timeout_seconds=0.02, **thresholds), check, tell)
    except EOFError:
        return told
    return [*told, True]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ("+", [True]),
        ("--", []),
        ("---", [False]),
        ("--+--", [True]),
        ("ttt", [False]),
        ("---+", [False, True]),
    ],
)
async def test_defaults_are_one_success_and_three_failures(answers: str, told: list[bool]) -> None:
    assert await verdicts(answers) == told


async def test_thresholds() -> None:
    assert await verdicts("++-", success_threshold=2, failure_threshold=1) == [True, False]
    assert await verdicts("+-+-", success_threshold=2, failure_threshold=2) == []


async def test_it_ends_when_told() -> None:
    assert await verdicts("++--", stop_at=False, failure_threshold=2) == [True, True, False, True]


async def test_eager_probes_find_the_first_success_early() -> None:
    told = asyncio.Event()
    row = iter("---+")

    async def check() -> Outcome:
        return next(row) == "+", ""

    def tell(outcome: bool, _text: str) -> bool:
        if outcome:
            told.set()
        return outcome

    async with asyncio.timeout(60):
        await repeat(Probe(period_seconds=30), check, tell, eager=True)
    assert told.is_set()
