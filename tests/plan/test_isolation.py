"""Of listeners on one port the most specific one alone answers, by the API's own words, for random host names."""

from hypothesis import given
from hypothesis import strategies as st

from ambit.core import hostnames
from ambit.envoy.http import routes as http_routes
from ambit.model.http import Host
from ambit.model.proxy import Listener, Protocol
from ambit.plan.l7 import gateway
from tests.calls import calls
from tests.ingest.build import service
from tests.ingest.gateway.build import edge, listener, to, to_edge
from tests.ingest.test_mesh import compiler

NAMES = ("", "*.a", "*.b.a", "*.c.b.a", "a", "b.a", "c.b.a", "d.c.b.a")
HOSTS = tuple(each for each in (*NAMES, "x.a", "x.b.a", "x.c.b.a", "other") if each and "*" not in each)
Routes = list[tuple[int, list[str]]]
"""For each route the listener that it is on, and its host names."""


def answered(hosts: tuple[Host, ...], host: str) -> str:
    """The route that answers, as Envoy finds it: the longest domain that matches, then its first entry."""
    matching = [each for each in hosts if hostnames.covers(each.domains[0], host)]
    if not matching:
        return ""
    best = min(matching, key=lambda each: hostnames.by_precision(each.domains[0]))
    return best.entries[0].name if best.entries else ""


def expected(own: list[str], routes: Routes, host: str) -> str:
    """Said without tables: the listener first, then the best host name of its routes, then the older route."""
    serving = [name for name in own if hostnames.covers(name or "*", host)]
    if not serving:
        return ""
    listener_of_host = min(serving, key=lambda name: hostnames.by_precision(name or "*"))
    found = []
    for index, (place, names) in enumerate(routes):
        if own[place] != listener_of_host:
            continue
        common = [hostnames.common(listener_of_host or "*", each) for each in names or ["*"]]
        matching = [each for each in common if each is not None and hostnames.covers(each, host)]
        if matching:
            found.append((min(map(hostnames.by_precision, matching)), f"default/r{index}/0"))
    return min(found)[1] if found else ""


@given(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True).flatmap(
        lambda own: st.tuples(
            st.just(own),
            st.lists(
                st.tuples(
                    st.integers(0, len(own) - 1),
                    st.lists(st.sampled_from(NAMES[1:]), max_size=3, unique=True),
                ),
                max_size=4,
            ),
        )
    )
)
def test_the_most_specific_listener_alone_answers(case: tuple[list[str], Routes]) -> None:
    own, routes = case
    listeners = [
        listener(f"l{index}", **({"hostname": name} if name else {})) for index, name in enumerate(own)
    ]
    attached = [
        to_edge(
            {"backendRefs": [to("web")]},
            name=f"r{index}",
            parents=({"sectionName": f"l{place}"},),
            **({"hostnames": names} if names else {}),
        )
        for index, (place, names) in enumerate(routes)
    ]
    made = compiler(edge(*listeners), service("web", {"app": "web"}), *attached)
    proxy = made.proxies["default/edge"]
    tables = {each.listener: each for each in made.listener_routes.values()}
    hosts = gateway.isolated(proxy.listeners, gateway.Attached(tables))
    domains = [each.domains[0] for each in hosts]
    assert len(set(domains)) == len(domains), "Envoy refuses a table with a domain twice"
    for host in HOSTS:
        assert answered(hosts, host) == expected(own, routes, host), host


def test_a_route_with_many_host_names_is_written_once() -> None:
    """Or one object would make tables of 16 times its size."""
    names = [f"a{number}.test" for number in range(16)]
    rules = [to("web")]
    made = compiler(
        service("web", {"app": "web"}),
        edge(listener("http", 80)),
        to_edge({"backendRefs": rules}, hostnames=names),
    )
    (routes,) = made.listener_routes.values()
    table = http_routes.table("port|80", routes.hosts, port=80)
    assert sorted(sorted(each.domains) for each in table.virtual_hosts) == [["*"], sorted(names)]
    assert [len(each.routes) for each in table.virtual_hosts if "*" not in each.domains] == [1]


def test_many_host_names_on_a_port_cost_as_many_times_one() -> None:
    """Whoever may add listeners decides how many there are."""

    def cost(many: int) -> int:
        names = [f"{'*.' * (each % 2)}h{each}.example" for each in range(many)]
        listeners = [Listener(name, 80, Protocol.HTTP, "" if name == names[0] else name) for name in names]
        found: list[Host] = []
        cost = calls(lambda: found.extend(gateway.isolated(listeners, gateway.Attached())))
        assert len(found) == many
        return cost

    few = cost(40)
    assert cost(400) < 15 * few
