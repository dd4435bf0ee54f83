"""Who may connect to a gateway where nobody reads requests: decided before a byte flows."""

from typing import Any

import msgspec

from ambit.envoy import matchers


class Admission(msgspec.Struct, frozen=True):
    """Rows (predicate, allow?, rule's name), tried in order, and whether the others may."""

    rows: tuple[tuple[matchers.Predicate, bool, str], ...] = ()
    otherwise: bool = True

    @property
    def is_open(self) -> bool:
        """Anybody may."""
        return not self.rows and self.otherwise

    def matcher(self, taken: Any, denied: Any) -> Any:
        """A matcher that takes one of the two."""
        rows = ((predicate, taken if allow else denied) for predicate, allow, _ in self.rows)
        return matchers.first_match(rows, taken if self.otherwise else denied)


ANYBODY = Admission()
