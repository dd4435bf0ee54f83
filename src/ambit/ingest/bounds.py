"""What one namespace may have every node carry: objects take their share in order, until it is used up."""

from collections.abc import Hashable, Iterable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def beyond(most: int, sizes: Iterable[tuple[K, int]]) -> frozenset[K]:
    """Those of `sizes` that are more than `most` together with what came before. What is too large takes no share, so
    that a smaller one after it may still have it."""
    found, sum_ = [], 0
    for key, size in sizes:
        if sum_ + size > most:
            found.append(key)
        else:
            sum_ += size
    return frozenset(found)
