"""Which routes of a table are held back, when Envoy refuses tables for the sake of some of them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.control.l7.held_routes import HeldRoutes, Hosts
from ambit.core.finding import ObjectRef
from ambit.model.http import Action, Backend, Entry, Host, PathKind, PathMatch, RequestMatch

TABLE = "svc|shop/web|80"
GOOD, BAD = Backend("shop/good", 80), Backend("shop/bad", 80)


def origin(name: str) -> ObjectRef:
    return ObjectRef("HTTPRoute", "shop", name)


def entry(
    route: str, *, bad: bool = False, path: str = "", match_is_bad: bool = False, port: int = 80
) -> Entry:
    match = RequestMatch(PathMatch(PathKind.EXACT, f"/{path or route}{'(' if match_is_bad else ''}"))
    backend = msgspec.structs.replace(BAD if bad else GOOD, port=port)
    return Entry(f"shop/{route}/0", match, Action((backend,)), origin(route))


def table(*entries: Entry) -> Hosts:
    return (Host(("*",), entries),)


def is_taken(hosts: Hosts) -> bool:
    """What an Envoy says."""
    return not any(
        BAD.service in {backend.service for backend in each.action.backends}
        or (each.match.path is not None and "(" in each.match.path.value)
        for host in hosts
        for each in host.entries
    )


class Mesh:
    """One table, and an Envoy that answers what it is told."""

    def __init__(self) -> None:
        self.written: Hosts = ()
        self.held = HeldRoutes(lambda _: self.written)
        self.in_force: Hosts = ()
        self.asked = 0
        self.seen: list[Hosts] = []
        """All that was ever in force."""

    def write(self, *entries: Entry) -> None:
        self.written = table(*entries)
        told: Hosts | None = None
        while True:
            self.held.renew()
            planned = self.held.of(TABLE, self.written)
            if planned == told:
                return
            told = planned
            self.asked += 1
            assert self.asked < 1000
            if is_taken(planned):
                self.in_force = planned
                self.seen.append(planned)
                self.held.taken(TABLE)
            else:
                self.held.refused(TABLE, "no good")

    @property
    def routes(self) -> dict[str, int | str]:
        """Where requests go by the paths in force, or with which status they are answered."""
        return {
            each.match.path.value: each.action.backends[0].port
            if each.action.backends
            else each.action.status
            for host in self.in_force
            for each in host.entries
            if each.match.path is not None
        }


def test_a_bad_route_does_what_it_did_and_others_go_on() -> None:
    mesh = Mesh()
    mesh.write(entry("a"), entry("b"))
    mesh.write(entry("a", bad=True, port=81), entry("b"), entry("c"))
    assert mesh.routes == {"/a": 80, "/b": 80, "/c": 80}
    assert mesh.held.errors == {origin("a"): "no good"}
    mesh.write(entry("a", bad=True, port=81), entry("b", port=82), entry("c"))
    assert mesh.routes == {"/a": 80, "/b": 82, "/c": 80}
    assert mesh.held.errors == {origin("a"): "no good"}
    mesh.write(entry("a", port=81), entry("b", port=82), entry("c"))
    assert mesh.routes == {"/a": 81, "/b": 82, "/c": 80}
    assert mesh.held.errors == {}


def test_what_a_bad_route_is_new_to_is_answered_with_500() -> None:
    mesh = Mesh()
    mesh.write(entry("a"), entry("b"))
    mesh.write(entry("a", bad=True), entry("a", bad=True, path="new"), entry("b"))
    assert mesh.routes == {"/a": 80, "/new": 500, "/b": 80}


def test_a_match_that_cannot_be_read_is_left_out() -> None:
    mesh = Mesh()
    mesh.write(entry("a"), entry("b"))
    mesh.write(entry("a"), entry("a", match_is_bad=True), entry("b", port=81))
    assert mesh.routes == {"/a": 80, "/b": 81}
    assert set(mesh.held.errors) == {origin("a")}


def test_while_it_is_looked_for_nothing_good_is_closed() -> None:
    """Of one bad route; wrong guesses are refused, and so in force nowhere."""
    mesh = Mesh()
    mesh.write(*(entry(name) for name in "abcdefgh"))
    mesh.write(*(entry(name, bad=name == "e", port=81) for name in "abcdefgh"))
    former, last = mesh.seen
    assert mesh.routes == {f"/{name}": 80 if name == "e" else 81 for name in "abcdefgh"}
    assert is_taken(former) and last == mesh.in_force


def test_without_a_former_table_the_others_are_served() -> None:
    mesh = Mesh()
    mesh.write(entry("a"), entry("b", bad=True), entry("c", bad=True))
    assert mesh.routes == {"/a": 80, "/b": 500, "/c": 500}
    assert set(mesh.held.errors) == {origin("b"), origin("c")}


def test_a_table_that_is_not_refused_for_its_routes_sake_is_left_to_the_quarantine() -> None:
    mesh = Mesh()
    nobodys = msgspec.structs.replace(entry("x", bad=True), origin=None)
    mesh.write(entry("a"), nobodys)
    assert mesh.held.errors == {} and mesh.held.of(TABLE, mesh.written) == mesh.written
    asked = mesh.asked
    mesh.held.refused(TABLE, "no good")
    assert not mesh.held.is_searched(TABLE) and mesh.asked == asked


_entries = st.builds(
    entry,
    st.sampled_from("abcd"),
    bad=st.booleans(),
    match_is_bad=st.booleans(),
    path=st.sampled_from("xyz"),
    port=st.sampled_from([80, 81]),
)


@given(st.lists(st.lists(_entries, max_size=6, unique_by=lambda each: (each.origin, each.match)), max_size=4))
def test_whatever_is_written_good_routes_are_in_force(tables: list[list[Entry]]) -> None:
    mesh = Mesh()
    for written in tables:
        mesh.write(*written)
        bad = {each.origin for each in written if not is_taken(table(each))}
        in_force = [each for host in mesh.in_force for each in host.entries]
        assert set(mesh.held.errors) == bad
        assert [each for each in in_force if each.origin not in bad] == [
            each for each in written if each.origin not in bad
        ]
        assert is_taken(mesh.in_force)


@pytest.mark.parametrize("count", [3, 60])
def test_how_often_is_asked(count: int) -> None:
    """Once for a route that changed alone, whatever else is in the table."""
    mesh = Mesh()
    mesh.write(*(entry(f"r{number}") for number in range(count)))
    asked = mesh.asked
    mesh.write(*(entry(f"r{number}", bad=number == 1) for number in range(count)))
    assert mesh.asked - asked == 2
