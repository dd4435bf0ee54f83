"""Who may connect to a gateway where nobody reads requests: decided before a byte flows."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ambit.envoy import matchers


class Admission(msgspec.Struct, frozen=True):
    """Rows (predicate, allow?, rule's name), tried in order, and whether the others may, with the name of what says
    so. `dry_run` are rows of what would be decided beside."""

    rows: tuple[tuple[matchers.Predicate, bool, str], ...] = ()
    otherwise: bool = True
    otherwise_by: str = ""
    dry_run: tuple[tuple[matchers.Predicate, bool, str], ...] = ()

    @property
    def is_open(self) -> bool:
        """Anybody may."""
        return not self.rows and self.otherwise

    @property
    def denying(self) -> Iterator[str]:
        """The names of what denies, in order."""
        yield from (name for _, allow, name in self.rows if not allow)
        if not self.otherwise:
            yield self.otherwise_by

    def matcher(self, taken: Any, denied: Callable[[str], Any]) -> Any:
        """A matcher that takes the one, or what is for those whom this rule denies."""
        rows = ((predicate, taken if allow else denied(name)) for predicate, allow, name in self.rows)
        return matchers.first_match(rows, taken if self.otherwise else denied(self.otherwise_by))


ANYBODY = Admission()
