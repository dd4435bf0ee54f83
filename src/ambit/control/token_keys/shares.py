"""Who may have keys fetched when more is wanted than can be: no namespace takes it from the others. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice, zip_longest

from ambit.model.jwt import KeySource


def shared_out(wanted: Mapping[str, Iterable[KeySource]], most: int) -> dict[KeySource, str]:
    """At most so many of the sources that namespaces want, each with the namespace that it counts for. Of too many, the
    namespaces have one each, then a second one, and so on."""
    ranked = [[(source, whose) for source in sorted(wanted[whose])] for whose in sorted(wanted)]
    found: dict[KeySource, str] = {}
    for turn in zip_longest(*ranked):
        for source, whose in (each for each in turn if each is not None):
            found.setdefault(source, whose)
    return dict(islice(found.items(), most))


class Turns:
    """At most so many sources of one namespace are asked at a time: slow ones would keep everybody else's waiting."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._asking: Counter[str] = Counter()
        self._later: dict[str, dict[KeySource, None]] = defaultdict(dict)

    def begin(self, source: KeySource, whose: str) -> bool:
        """Whether it is asked now; if not, `end` names it later."""
        if self._asking[whose] >= self._most:
            self._later[whose][source] = None
            return False
        self._asking[whose] += 1
        return True

    def end(self, whose: str) -> KeySource | None:
        """One was asked. The next one of those that had to wait, if any."""
        self._asking -= Counter({whose: 1})
        waiting = self._later.get(whose)
        if not waiting:
            self._later.pop(whose, None)
            return None
        source = next(iter(waiting))
        del waiting[source]
        return source
