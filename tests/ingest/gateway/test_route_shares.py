"""One namespace's routes take no more than its share of the tables of other namespaces' Services."""

from typing import Any

from ambit.ingest.gateway.route_shares import MOST_BYTES, MOST_ROUTES, TOO_MANY
from ambit.ingest.mesh import Change, MeshCompiler
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import bound, parent, route, to, waypoint
from tests.ingest.gateway.test_routes import conditions, entries
from tests.ingest.test_mesh import change, compiler

HTTP = {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}
VICTIM = {**parent("web"), "namespace": "default"}
BASE = (
    bound(service("web", {"app": "web"}, ports=[HTTP]), "waypoint"),
    bound(service("own", {"app": "own"}, namespace="mallory", ports=[HTTP]), "way"),
    waypoint(),
    waypoint("way", namespace="mallory"),
)
HEADERS = [{"name": f"h{number}", "value": "x" * 4000} for number in range(16)]
SMALL: dict[str, Any] = {"backendRefs": [to("own")]}
LARGE: dict[str, Any] = {"matches": [{"headers": HEADERS}] * 10, **SMALL}
"""640 KB."""


def consumer(name: str, *rules: dict[str, Any], created: int = 0, **more: Any) -> Given:
    when = f"2026-01-01T00:{created // 60:02}:{created % 60:02}Z"
    of = {"namespace": "mallory", "parents": (VICTIM,), **more}
    return route(*(rules or (SMALL,)), name=name, created=when, **of)


def accepted(made: MeshCompiler, name: str) -> tuple[str, str]:
    return conditions(made, name)["Accepted"]


def names(made: MeshCompiler) -> list[str]:
    return list(dict.fromkeys(each.name for each in entries(made) if each.origin is not None))


def test_large_routes_beyond_the_share_are_refused_and_say_so() -> None:
    made = compiler(*BASE, *(consumer(f"r{number}", LARGE, created=number) for number in range(8)))
    fitting = MOST_BYTES // (640 * 1024)
    assert names(made) == [f"mallory/r{number}/0" for number in range(fitting)]
    assert accepted(made, "HTTPRoute mallory/r0") == ("True", "Accepted")
    assert accepted(made, "HTTPRoute mallory/r7") == ("False", TOO_MANY)
    said = [each for each in made.findings if each.code == "AMB0417"]
    assert [each.origin.name for each in said] == [f"r{number}" for number in range(fitting, 8)]
    assert "2 MiB" in said[0].text and "mallory" in said[0].text


def test_small_routes_beyond_the_share_are_refused() -> None:
    """The other namespaces' are as they were."""
    given = [consumer(f"r{number}", created=number) for number in range(MOST_ROUTES)]
    made = compiler(*BASE, *given, consumer("late", created=3000), consumer("eve", namespace="eve"))
    assert accepted(made, "HTTPRoute mallory/late") == ("False", TOO_MANY)
    assert accepted(made, f"HTTPRoute mallory/r{MOST_ROUTES - 1}") == ("True", "Accepted")
    assert accepted(made, "HTTPRoute eve/eve") == ("True", "Accepted")
    assert "eve/eve/0" in names(made) and "mallory/late/0" not in names(made)


def test_a_route_that_goes_makes_room_for_the_next() -> None:
    count = MOST_BYTES // (640 * 1024) + 1
    made = compiler(*BASE, *(consumer(f"r{number}", LARGE, created=number) for number in range(count)))
    last = f"HTTPRoute mallory/r{count - 1}"
    assert accepted(made, last) == ("False", TOO_MANY)
    made.apply([Change("httproutes.gateway.networking.k8s.io", "mallory/r0")])
    assert accepted(made, last) == ("True", "Accepted")
    assert f"mallory/r{count - 1}/0" in names(made)


def test_routes_for_services_of_the_own_namespace_have_no_part_in_it() -> None:
    given = [consumer(f"r{number}", LARGE, parents=(parent("own"),)) for number in range(8)]
    made = compiler(*BASE, *given)
    assert all(accepted(made, f"HTTPRoute mallory/r{number}") == ("True", "Accepted") for number in range(8))


def test_a_refused_route_stays_at_services_of_its_own() -> None:
    given = [consumer(f"r{number}", LARGE, created=number) for number in range(4)]
    both = consumer("both", LARGE, created=9, parents=(VICTIM, parent("own")))
    made = compiler(*BASE, *given, both)
    of_both = made.statuses["HTTPRoute mallory/both"].parents  # type: ignore[union-attr]
    assert [each.conditions[0].reason for each in of_both] == [TOO_MANY, "Accepted"]
    assert "mallory/both/0" not in names(made)
    assert "mallory/own.mallory.svc.cluster.local:80" in made.routes


def test_each_service_counts() -> None:
    """One route for many Services is carried as often."""
    many = [bound(service(f"s{number}", {"app": "s"}, ports=[HTTP]), "waypoint") for number in range(4)]
    parents = tuple({**VICTIM, "name": f"s{number}"} for number in range(4))
    made = compiler(*BASE, *many, consumer("all", LARGE, parents=parents))
    assert accepted(made, "HTTPRoute mallory/all") == ("False", TOO_MANY)
    assert not made.routes


def test_a_change_leaves_all_other_entries_as_they_are() -> None:
    """A table is put together from what is there, so that a change costs as much in a large table as in a small one."""
    given = [consumer(f"r{number}", namespace=space) for space in ("eve", "mallory") for number in range(20)]
    made = compiler(*BASE, *given, consumer("mine"))
    before = {each.name: each for each in entries(made) if each.name != "mallory/mine/0"}
    made.apply([change(consumer("mine", {"matches": [{"method": "GET"}], **SMALL}))])
    now = {each.name: each for each in entries(made)}
    del now["mallory/mine/0"]
    same = [name for name in now if "/-/" not in name]
    assert len(now) == 43 and all(now[name] is before[name] for name in same)
