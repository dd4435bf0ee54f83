"""What pure functions made, kept for the next time that they are asked the same."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Memo:
    """Results by name. One is made again when it is asked for with other arguments, and forgotten when a whole turn
    did not ask for it. Results are shared: nobody may change them."""

    def __init__(self) -> None:
        self._before: dict[Hashable, tuple[tuple[object, ...], Any]] = {}
        self._now: dict[Hashable, tuple[tuple[object, ...], Any]] = {}

    def turn(self) -> None:
        """Begins a turn."""
        self._before, self._now = self._now, {}

    def former(self, name: Hashable) -> Any:
        """What was made last under this name, for whichever arguments; None when there is nothing."""
        found = self._now.get(name) or self._before.get(name)
        return found[1] if found is not None else None

    def of(self, name: Hashable, given: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make` returned for these arguments, which must be all that it depends on."""
        found = self._now.get(name) or self._before.get(name)
        # Tuples compare what is not the very same object only, and most is.
        if found is None or found[0] != given:
            found = given, make()
        self._now[name] = found
        result: T = found[1]
        return result
