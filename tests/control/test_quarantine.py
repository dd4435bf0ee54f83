"""What one Envoy of a proxy refused, the next one does not get; what is known of it is told."""

import pytest

from ambit.control.l7.quarantine import Quarantine
from ambit.core.finding import ObjectRef
from ambit.model.http import Action, Backend, Entry, Host, RequestMatch
from ambit.model.proxy import ServiceRoutes
from ambit.model.status import Condition, Parent, ParentStatus, RouteStatus, Version
from ambit.plan.values import EXTENSION, LISTENER, ROUTES, SECRET
from ambit.xds.frames import Resource, Response
from tests.control.test_plans import NEXT, WEB, delta
from tests.control.test_proxies import TYPES, Client, Served
from tests.control.test_proxies import served as served
from tests.node.world import until

TABLE = f"svc|{WEB.key}|80"
ROUTE, OTHER = ObjectRef("HTTPRoute", "shop", "r"), ObjectRef("HTTPRoute", "shop", "other")


def resource(name: str, version: str = "1") -> Resource:
    return Resource(name=name, version=version, body=version.encode())


def response(*resources: Resource, type_url: str = ROUTES) -> Response:
    return Response(type_url=type_url, nonce="1", resources=resources)


def test_the_last_one_that_was_taken_stands_for_it_until_it_is_another() -> None:
    quarantine = Quarantine()
    first, bad, next_one = (resource("t", version) for version in "123")
    quarantine.acknowledged(response(first))
    assert quarantine.rejected(response(bad), "t: no good") == [(ROUTES, "t")]
    assert quarantine.rejected(response(bad), "t: no good") == [], "known already"
    assert quarantine.chosen(ROUTES, bad) == first
    assert quarantine.chosen(LISTENER, bad) == bad
    assert quarantine.chosen(ROUTES, next_one) == next_one
    assert not quarantine.refused


def test_only_what_the_error_names_is_refused() -> None:
    quarantine = Quarantine()
    a, other = resource("svc|a|80"), resource("svc|a|8080")
    quarantine.rejected(response(a, other), "svc|a|8080: no good")
    assert set(quarantine.refused) == {(ROUTES, other.name)}
    quarantine.rejected(response(resource("b"), resource("c")), "no good")
    assert len(quarantine.refused) == 3, "all of them, when it names none"


def test_what_another_envoy_took_is_not_refused_by_one() -> None:
    quarantine = Quarantine()
    quarantine.acknowledged(response(resource("t")))
    assert quarantine.rejected(response(resource("t")), "t: no good") == []


def test_what_nobody_ever_took_has_nothing_to_stand_for_it() -> None:
    quarantine = Quarantine()
    quarantine.rejected(response(resource("t")), "t: no good")
    assert quarantine.chosen(ROUTES, resource("t")) == resource("t")
    quarantine.keep([])
    assert not quarantine.refused


@pytest.mark.parametrize("type_url", [SECRET, EXTENSION])
def test_trust_and_policies_are_never_older_than_they_should_be(type_url: str) -> None:
    quarantine = Quarantine()
    quarantine.acknowledged(response(resource("t"), type_url=type_url))
    assert quarantine.rejected(response(resource("t", "2"), type_url=type_url), "t: no good") == []
    assert quarantine.chosen(type_url, resource("t", "2")).version == "2"


def routes(to: str) -> ServiceRoutes:
    action = Action((Backend(NEXT.key, 80),))
    return ServiceRoutes(WEB.key, 80, (Host(("*",), (Entry(to, RequestMatch(), action, ROUTE),)),))


async def rejected(client: Client) -> Resource:
    """The next table, which the client rejects; it takes everything else."""
    while True:
        got = await client.next(f"{TABLE}: no good", of=ROUTES)
        if got.type_url == ROUTES:
            (mine,) = got.resources
            return mine


def amended(served: Served) -> Condition:
    """What is said of the route beside what the compiler says."""
    said = Condition("Accepted", "True", "Accepted")
    parent = ParentStatus(Parent("", "Service", "web"), (said,))
    status = served.proxies.amended(RouteStatus(Version(ROUTE, "u", 1), (parent,)))
    assert isinstance(status, RouteStatus)
    first, second = status.parents[0].conditions
    assert first == said
    return second


async def begun(client: Client) -> Resource:
    """Its first table."""
    await client.begin()
    found = [await client.next() for _ in TYPES]
    (mine,) = (
        each for got in found for each in got.resources if (got.type_url, each.name) == (ROUTES, TABLE)
    )
    return mine


async def test_a_proxy_that_comes_later_gets_what_was_good(served: Served) -> None:
    """When it is not for the sake of its routes that the table is refused."""
    told: list[ObjectRef] = []
    served.proxies.on_refused = told.append
    async with served.stream() as first:
        good = await begun(first)
        served.proxies.take(delta(NEXT, routes("bad")))
        versions = {(await rejected(first)).version for _ in ("as written", "closed", "left out", "again")}
        assert len(versions) == 3 and good.version not in versions
        await until(lambda: told == [ROUTE])
        (status,) = served.proxies.status()
        assert status.types[ROUTES].error == f"{TABLE}: no good"
        async with served.stream(node="proxy~shop/way~way-1") as second:
            assert await begun(second) == good
        condition = amended(served)
        assert (condition.type, condition.status, condition.reason) == (
            "ambit.io/Acknowledged",
            "False",
            "Rejected",
        )
        assert condition.message.startswith("Envoy refused the table") and "no good" in condition.message
        served.proxies.take(delta(routes("better")))
        async with served.stream(node="proxy~shop/way~way-1") as second:
            assert (await begun(second)).version not in {good.version, *versions}
        assert told == [ROUTE, ROUTE]


async def test_each_replica_keeps_back_what_its_own_proxies_refused(served: Served) -> None:
    """And a proxy that comes from another one, where it took nothing bad either, keeps what it has."""
    other = Served()
    async with other.serving(), served.stream() as here, other.stream() as there:
        good = await begun(here)
        assert await begun(there) == good
        for each, client in ((served, here), (other, there)):
            each.proxies.take(delta(NEXT, routes("bad")))
            for _ in ("as written", "closed", "left out", "again"):
                await rejected(client)
        for each in (served, other):
            async with each.stream(node="proxy~shop/way~way-1") as later:
                assert await begun(later) == good
            assert amended(each).reason == "Rejected"


async def test_what_proxies_of_another_replica_refused_is_in_the_status(served: Served) -> None:
    told = {ROUTE: "Envoy refuses this route: no good"}
    served.proxies.elsewhere = told.get
    condition = amended(served)
    assert (condition.reason, condition.message) == ("Rejected", told[ROUTE])
    status = RouteStatus(Version(OTHER, "u", 1), ())
    assert served.proxies.amended(status) is status


async def test_a_route_that_is_refused_takes_no_other_one_along(served: Served) -> None:
    async with served.stream() as first:
        await begun(first)
        good = Entry("good", RequestMatch(method="GET"), Action((Backend(NEXT.key, 80),)), OTHER)
        bad = Entry("bad", RequestMatch(), Action((Backend("none", 80),)), ROUTE)
        served.proxies.take(delta(NEXT, ServiceRoutes(WEB.key, 80, (Host(("*",), (good, bad)),))))
        refusals = 0
        while (response := await first.next(refusing)).type_url != ROUTES or refusing(response):
            refusals += response.type_url == ROUTES
        (taken,) = response.resources
        assert refusals == 2, "as it is written, and without the other route"
        assert b"good" in taken.body and b"bad" in taken.body
        await until(lambda: served.proxies.status()[0].types[ROUTES].error == f"{ROUTE}: {TABLE}: no good")
        condition = amended(served)
        assert (condition.reason, condition.status) == ("Rejected", "False")
        assert condition.message.startswith("Envoy refuses this route")
        status = RouteStatus(Version(OTHER, "u", 1), ())
        assert served.proxies.amended(status) is status


def refusing(response: Response) -> str:
    """As an Envoy that can do nothing with the backend of the bad route."""
    return f"{TABLE}: no good" if any(b"svc|none" in each.body for each in response.resources) else ""
