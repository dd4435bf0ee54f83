"""Whatever routes there are: the first entry that matches a request is the one that the Gateway API names."""

from typing import Any
from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.model.http import Entry, Host
from ambit.policy.route import Asked, met
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import bound, parent, route, to, waypoint
from tests.ingest.test_mesh import compiler

PATHS = st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c"])
NAMES = st.sampled_from(["x", "y"])
PAIRS = st.dictionaries(NAMES, st.sampled_from(["1", "2"]), max_size=2)
MATCHES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "path": st.fixed_dictionaries({"type": st.sampled_from(["Exact", "PathPrefix"]), "value": PATHS}),
        "headers": PAIRS.map(lambda pairs: [{"name": name, "value": value} for name, value in pairs.items()]),
        "queryParams": PAIRS.map(
            lambda pairs: [{"name": name, "value": value} for name, value in pairs.items()]
        ),
    },
    optional={"method": st.sampled_from(["GET", "PUT"])},
)
RULES = st.lists(st.lists(MATCHES, max_size=2), min_size=1, max_size=3)
ROUTES = st.lists(
    st.tuples(RULES, st.sampled_from(["default", "default", "shop"]), st.sampled_from(["2025", "2026"])),
    max_size=4,
)
REQUESTS = st.fixed_dictionaries(
    {
        "path": PATHS,
        "method": st.sampled_from(["GET", "PUT"]),
        "headers": PAIRS,
        "queries": PAIRS,
        "source": st.sampled_from(["default", "shop"]),
    }
)


def is_met(match: dict[str, Any], request: dict[str, Any]) -> bool:
    """A match as the API defines it."""
    path, value = request["path"], match["path"]["value"]
    elements = [each for each in value.split("/") if each]
    by_path = (
        path == value
        if match["path"]["type"] == "Exact"
        else [each for each in path.split("/") if each][: len(elements)] == elements
    )
    return (
        by_path
        and match.get("method", request["method"]) == request["method"]
        and all(request["headers"].get(each["name"]) == each["value"] for each in match["headers"])
        and all(request["queries"].get(each["name"]) == each["value"] for each in match["queryParams"])
    )


def expected(routes: list[Any], request: dict[str, Any]) -> str | None:
    """The rule that the API names: criteria one by one, each among those that the former left."""
    source = request["source"]
    group = [
        (name, given)
        for name, given in enumerate(routes)
        if given[1] == ("shop" if source == "shop" else "default")
    ]
    if source == "shop" and not group:
        group = [(name, given) for name, given in enumerate(routes) if given[1] == "default"]
    left = [
        {"match": match, "age": created, "name": name, "rule": number, "place": place, "in": namespace}
        for name, (rules, namespace, created) in group
        for number, matches in enumerate(rules)
        for place, match in enumerate(matches or [{"path": {"type": "PathPrefix", "value": "/"}} | EMPTY])
        if is_met(match, request)
    ]
    if not left:
        return None

    def keep(left: list[Any], score: Any) -> list[Any]:
        best = max(map(score, left))
        return [each for each in left if score(each) == best]

    left = keep(left, lambda each: each["match"]["path"]["type"] == "Exact")
    left = keep(left, lambda each: len(each["match"]["path"]["value"].rstrip("/")))
    left = keep(left, lambda each: "method" in each["match"])
    left = keep(left, lambda each: len(each["match"]["headers"]))
    left = keep(left, lambda each: len(each["match"]["queryParams"]))
    left = sorted(left, key=lambda each: (each["age"], each["name"], each["rule"], each["place"]))
    return f"{left[0]['in']}/route-{left[0]['name']}/{left[0]['rule']}"


EMPTY: dict[str, Any] = {"headers": [], "queryParams": []}


def chosen(entries: tuple[Entry, ...], request: dict[str, Any]) -> Entry | None:
    """The entry that such a request meets."""
    asked = Asked(
        request["method"],
        headers=request["headers"],
        path=f"{request['path']}?{urlencode(request['queries'])}",
        source_namespace=request["source"],
    )
    return met([Host(("*",), entries)], asked)


def objects(routes: list[Any]) -> list[Given]:
    web = bound(service("web", {"app": "web"}), "waypoint")
    made = [
        route(
            *({"matches": matches, "backendRefs": [to("web", namespace="default")]} for matches in rules),
            name=f"route-{name}",
            namespace=namespace,
            parents=(parent(namespace="default"),),
            created=f"{created}-01-01T00:00:00Z",
        )
        for name, (rules, namespace, created) in enumerate(routes)
    ]
    return [web, waypoint(), *made]


@given(ROUTES, st.lists(REQUESTS, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_the_first_that_matches_is_the_one_that_counts(
    routes: list[Any], requests: list[dict[str, Any]]
) -> None:
    tables = compiler(*objects(routes)).routes
    assert bool(tables) == bool(routes)
    for table in tables.values():
        (host,) = table.hosts
        for request in requests:
            found = chosen(host.entries, request)
            rule = expected(routes, request)
            if rule is not None:
                assert found is not None and found.name == rule
            elif any(namespace == "shop" for _, namespace, _ in routes) and request["source"] == "shop":
                assert found is not None and found.action.status == 404 and not found.action.backends
            elif all(namespace == "shop" for _, namespace, _ in routes):
                assert found is not None and found.name.endswith("/-/itself")
            else:
                assert found is None
