"""Shares of what may be carried (`ambit.ingest.bounds`)."""

import pytest

from ambit.ingest.bounds import beyond


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ((), ""),
        ((("a", 4), ("b", 6)), ""),
        ((("a", 4), ("b", 7)), "b"),
        ((("a", 11), ("b", 10)), "a"),
        ((("a", 4), ("b", 7), ("c", 6), ("d", 1), ("e", 0)), "bd"),
    ],
)
def test_what_is_too_large_takes_no_share(sizes: tuple[tuple[str, int], ...], found: str) -> None:
    assert beyond(10, sizes) == frozenset(found)
