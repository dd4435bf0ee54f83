"""Tables as bytes say what the messages say, and what did not change is not made again."""

from collections import Counter

import pytest
from envoy.config.route.v3 import route_pb2

from ambit.core.memo import Memo
from ambit.envoy.http import routes, serialised_table
from ambit.envoy.http.routes import TableOptions
from ambit.model.http import Action, Backend, Entry, Host, PathKind, PathMatch, RequestMatch

WEB, V2 = Backend("default/web.default.svc.cluster.local", 80), Backend("default/v2", 80)
OPTIONS = TableOptions("spiffe://cluster.local/ns/default/sa/way", 443, ("x-ambit-reason",))


def entry(name: str, namespace: str = "", *, size: int = 1, backends: tuple[Backend, ...] = (WEB,)) -> Entry:
    path = PathMatch(PathKind.EXACT, f"/{name}/{'x' * size}")
    match = RequestMatch(path, source_namespaces=(namespace,) if namespace else ())
    return Entry(f"{namespace}/{name}/0", match, Action(backends))


def message(hosts: tuple[Host, ...], memo: Memo) -> route_pb2.RouteConfiguration:
    made = serialised_table.serialised_table("web", hosts, memo, port=80, more=OPTIONS)
    return route_pb2.RouteConfiguration.FromString(made.SerializeToString())


@pytest.mark.parametrize("size", [1, 100, 127, 128, 300, 20_000, 3_000_000])
def test_bytes_are_those_of_the_message(size: int) -> None:
    shared = (entry("b", size=3),)
    hosts = (
        Host(("*",), (entry("a", "shop", size=size), entry("n", "shop"), entry("b", backends=(WEB, V2)))),
        Host(("a.example.com",), shared),
        Host(("b.example.com",), shared),
        Host(("none.example.com",)),
    )
    assert message(hosts, Memo()) == routes.table("web", hosts, port=80, more=OPTIONS)
    assert message((), Memo()) == routes.table("web", (), port=80, more=OPTIONS)


def test_entries_that_are_as_before_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Counter[str]()
    routes_of = routes.routes_of

    def counted(given: Entry, scheme: str, port: int) -> object:
        made[given.name] += 1
        return routes_of(given, scheme, port)

    monkeypatch.setattr(serialised_table, "routes_of", counted)
    shop, eve = [[entry(f"{number}", each) for number in range(20)] for each in ("shop", "eve")]
    own = entry("own")
    memo = Memo()
    for turn in range(4):
        shop[turn] = entry(f"new{turn}", "shop")
        hosts = (Host(("*",), (*(shop if turn else ()), *eve, own)),)
        memo.turn()
        assert message(hosts, memo) == routes.table("web", hosts, port=80, more=OPTIONS)
    assert set(made.values()) == {1}
