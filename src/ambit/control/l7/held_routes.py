"""Which routes of a table it is that Envoy refuses: they are held back, the others of the table go on. No I/O.

Envoy refuses a table as a whole and does not say for whose sake. So variants of it are sent, one after the other, and
Envoys' answers say whether the guess was right:

1. One route is held back at a time, those first that are not as they were in the last table that was taken. A wrong
   guess is refused like the table itself, and Envoys keep what they have, so that nobody notices.
2. If it is not one alone, all are held back, and let go one by one as long as the table is taken.
3. If it is not for the routes' sake, nothing is held back: the table as a whole is refused (`quarantine`).

What is held back does for each of its matches what it did in the last table that was taken; requests of a match that
was not there are answered with 500. Should that be refused, too (a match that Envoy cannot read), those matches are
left out. A route is tried again as soon as it is another one.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from enum import Enum

import msgspec

from ambit.core.finding import ObjectRef
from ambit.model.http import Action, Entry, Host, RequestMatch

MOST = 200
"""Routes of one table that are looked at one by one."""
Hosts = tuple[Host, ...]


class Hold(Enum):
    """What becomes of matches that the last good table had not."""

    CLOSED = "answered with 500"
    DROPPED = "left out"


Held = Mapping[ObjectRef, Hold]
_Search = Generator[Held, bool | None, Held]
_Actions = Mapping[tuple[ObjectRef | None, RequestMatch], Action]


def search(suspects: tuple[ObjectRef, ...]) -> _Search:
    """Yields what is to be held back, is sent whether that was taken, and returns what has to be."""
    for hold in Hold:
        for each in suspects:
            if (yield {each: hold}):
                return {each: hold}
    for hold in Hold:
        held = dict.fromkeys(suspects, hold)
        if (yield held):
            break
    else:
        return {}
    for each in suspects:
        fewer = {key: hold for key, hold in held.items() if key != each}
        if (yield fewer):
            held = fewer
    return held


class HeldRoutes:
    """Of one proxy's tables, by their names. `find` has the hosts of a table as they are written."""

    def __init__(self, find: Callable[[str], Hosts]) -> None:
        self._find = find
        self._good: dict[str, Hosts] = {}
        """What was taken last."""
        self._tables: dict[str, _Table] = {}

    @property
    def errors(self) -> dict[ObjectRef, str]:
        """Why routes are held back, in Envoy's words. What is still looked for is not among them."""
        return {
            origin: table.error
            for table in self._tables.values()
            if table.running is None
            for origin in table.held
        }

    def is_searched(self, name: str) -> bool:
        """Whether it is not known yet for whose sake this table is refused."""
        table = self._tables.get(name)
        return table is not None and table.running is not None

    def renew(self) -> None:
        """Called before tables are planned: what is another one than was refused is tried again."""
        for name, table in list(self._tables.items()):
            hosts = self._find(name)
            if hosts == table.hosts:
                continue
            before, now = _by_origin(table.hosts), _by_origin(hosts)
            kept = {each: hold for each, hold in table.held.items() if before.get(each) == now.get(each)}
            if table.running is not None or not kept:
                del self._tables[name]
            else:
                table.hosts, table.held = hosts, kept
        self._good = {name: hosts for name, hosts in self._good.items() if self._find(name)}

    def of(self, name: str, hosts: Hosts) -> Hosts:
        """What is to be planned of these hosts, which are the table's, or some of them."""
        table = self._tables.get(name)
        return hosts if table is None else self._without(name, hosts, table.held)

    def taken(self, name: str) -> bool:
        """An Envoy took the table as it was planned last. True when it may be planned otherwise now."""
        if self.is_searched(name):
            self._go_on(name, is_taken=True)
            return True
        self._good[name] = self.of(name, self._find(name))
        return False

    def refused(self, name: str, error: str) -> None:
        """An Envoy refused the table as it was planned last: it may be planned otherwise now."""
        if self.is_searched(name):
            self._go_on(name, is_taken=False)
            return
        hosts, table = self._find(name), self._tables.get(name)
        if table is not None and not table.held and table.hosts == hosts:
            return  # it is not for its routes' sake
        suspects = self._suspects(name, hosts)
        if suspects and len(suspects) <= MOST:
            known = {self.of(name, hosts): False, hosts: False}
            if name in self._good:
                known.setdefault(self._good[name], True)
            self._tables[name] = _Table(hosts, error, search(suspects), known)
            self._go_on(name)

    def _suspects(self, name: str, hosts: Hosts) -> tuple[ObjectRef, ...]:
        """The routes of a table, those first that are not as they were."""
        good, now = _by_origin(self._good.get(name, ())), _by_origin(hosts)
        return tuple(sorted(now, key=lambda origin: now[origin] == good.get(origin)))

    def _go_on(self, name: str, *, is_taken: bool | None = None) -> None:
        """To the next guess of which it is not known what Envoy says."""
        table = self._tables[name]
        if is_taken is not None:
            table.known[self.of(name, table.hosts)] = is_taken
        while table.running is not None:
            try:
                table.held = table.running.send(is_taken)
            except StopIteration as end:
                table.held, table.running = end.value, None
                return
            is_taken = table.known.get(self.of(name, table.hosts))
            if is_taken is None:
                return

    def _without(self, name: str, hosts: Hosts, held: Held) -> Hosts:
        if not held:
            return hosts
        good = {
            (entry.origin, entry.match): entry.action
            for host in self._good.get(name, ())
            for entry in host.entries
        }
        return tuple(
            msgspec.structs.replace(host, entries=tuple(_held(host.entries, held, good))) for host in hosts
        )


class _Table:
    """One that was refused as it is written. `known` is what Envoy said to its variants, `running` the search."""

    def __init__(self, hosts: Hosts, error: str, running: "_Search", known: dict[Hosts, bool]) -> None:
        self.hosts = hosts
        self.error = error
        self.running: _Search | None = running
        self.known = known
        self.held: Held = {}


def _held(entries: Iterable[Entry], held: Held, good: "_Actions") -> Iterable[Entry]:
    for entry in entries:
        hold = held.get(entry.origin) if entry.origin is not None else None
        if hold is None:
            yield entry
            continue
        former = good.get((entry.origin, entry.match))
        if former is not None:
            yield msgspec.structs.replace(entry, action=former)
        elif hold is Hold.CLOSED:
            yield msgspec.structs.replace(entry, action=Action(status=500))


def _by_origin(hosts: Hosts) -> dict[ObjectRef, list[Entry]]:
    found: dict[ObjectRef, list[Entry]] = {}
    for host in hosts:
        for entry in host.entries:
            if entry.origin is not None:
                found.setdefault(entry.origin, []).append(entry)
    return found
