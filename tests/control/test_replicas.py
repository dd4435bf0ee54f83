"""Several replicas of the control plane: what the nodes of all have acknowledged is in the status of policies."""

import asyncio
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import msgspec
import pytest

from ambit.control.answers import Report, Standing, decode, encode, with_routes
from ambit.control.statuses.reporter import Reporter
from ambit.core.finding import ObjectRef
from ambit.kube import resource as kinds
from ambit.kube.errors import NotFound
from ambit.objects.kube import Pod
from tests.control.test_gateways import ROUTE, conditions, web
from tests.control.test_process import SETTINGS, acknowledged, client, make_pod, running
from tests.control.world import Ztunnel, pod_json

__all__ = ["client"]

ENABLED = {"ambient.istio.io/redirection": "enabled"}
SECOND = msgspec.structs.replace(SETTINGS, instance="two")


async def becomes(question, wanted):
    """Long enough for a machine that has other things to do."""
    answer = None
    try:
        async with asyncio.timeout(60):
            while True:
                answer = await question()
                if wanted(answer) if callable(wanted) else answer == wanted:
                    return answer
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"it stayed {answer!r}")


class Mesh:
    """Two replicas of which `one` leads, and two nodes with captured pods."""

    def __init__(self, client, one, two, tokens):
        self.client, self.one, self.two, self.tokens = client, one, two, tokens

    @asynccontextmanager
    async def node(self, number, plane):
        """That node, connected and with everything there is so far."""
        node = Ztunnel(plane, self.tokens[number])
        async with node.connected():
            await node.receive()
            await node.receive()
            yield node

    @asynccontextmanager
    async def moved(self, node, plane):
        """The node connects to another replica, and takes whatever it is told there."""

        async def read():
            with suppress(EOFError):
                while True:
                    await node.receive(None)

        node.world = plane
        async with node.connected():
            reading = asyncio.create_task(read())
            yield
            reading.cancel()

    async def policy(self, name):
        spec = {"action": "DENY", "rules": [{}]}
        value = {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}
        await self.client.create(kinds.AUTHORIZATION_POLICIES, value)

    async def becomes(self, name, status, message):
        await becomes(lambda: acknowledged(self.client, name), (status, message))

    async def reports(self):
        try:
            found = await self.client.get(kinds.CONFIG_MAPS, "ambit-acknowledgements", "ambit-system")
        except NotFound:
            return {}
        return found.get("data") or {}


@pytest.fixture
async def prepared(client):
    tokens = {}
    for number in (1, 2):
        node, agent = f"node{number}", f"agent{number}"
        await make_pod(client, "shop", "web", f"web-{number}", node=node, annotations=ENABLED)
        uid = await make_pod(client, "ambit-system", "ztunnel", agent, node=node)
        answer = await client.token_request("ambit-system", "ztunnel", ("istio-ca",), bound_pod=(agent, uid))
        tokens[number] = answer["token"]
    for replica in ("one", "two"):
        await make_pod(client, "ambit-system", "ambit-control", replica, node="node1")
    return tokens


async def holder(client):
    try:
        return (await client.get(kinds.LEASES, "ambit-control", "ambit-system"))["spec"]["holderIdentity"]
    except NotFound:
        return ""


@asynccontextmanager
async def replicas(client, tokens):
    async with running(client) as one:
        await becomes(lambda: holder(client), "one")
        async with running(client, SECOND) as two:
            yield Mesh(client, one, two, tokens)


async def test_a_policy_is_acknowledged_when_the_nodes_of_all_replicas_have_it(client, prepared):
    async with (
        replicas(client, prepared) as mesh,
        mesh.node(1, mesh.one) as first,
        mesh.node(2, mesh.two) as second,
    ):
        await mesh.policy("deny")
        await mesh.becomes("deny", "False", "waiting for node1, node2")
        await first.receive()
        await mesh.becomes("deny", "False", "waiting for node2")
        await second.receive()
        await mesh.becomes("deny", "True", "acknowledged by all 2 nodes")
        assert (await mesh.reports()).keys() == {"two"}, "who leads says nothing"


async def test_a_node_of_another_replica_that_rejects_is_named(client, prepared):
    async with (
        replicas(client, prepared) as mesh,
        mesh.node(1, mesh.one) as first,
        mesh.node(2, mesh.two) as second,
    ):
        await mesh.policy("deny")
        await first.receive()
        second.reject = "cannot do that"
        await second.receive()
        await mesh.becomes("deny", "False", "rejected by node2 (cannot do that)")


async def test_a_node_that_moves_counts_where_it_is(client, prepared):
    async with replicas(client, prepared) as mesh, mesh.node(1, mesh.one) as first:
        async with mesh.node(2, mesh.two) as second:
            await mesh.policy("deny")
            await first.receive()
            await mesh.becomes("deny", "False", "waiting for node2")
        # It never answered there, and the replica lives on.
        async with mesh.moved(second, mesh.one):
            await mesh.becomes("deny", "True", "acknowledged by all 2 nodes")
        await mesh.policy("other")
        await first.receive()
        # Where it was before may notice a little later that it is gone.
        await becomes(lambda: acknowledged(client, "other"), lambda found: "for node2" in found[1])
        async with mesh.moved(second, mesh.two):
            await mesh.becomes("other", "True", "acknowledged by all 2 nodes")


async def test_one_replica_tells_of_a_node_that_goes_and_writes_no_report(client, prepared):
    async with running(client) as one:
        mesh = Mesh(client, one, one, prepared)
        async with mesh.node(1, one):
            await mesh.policy("deny")
            await mesh.becomes("deny", "False", "waiting for node1, node2 (not connected)")
        await mesh.becomes("deny", "False", "waiting for node1 (not connected), node2 (not connected)")
        async with mesh.node(1, one), mesh.node(2, one):
            await mesh.becomes("deny", "True", "acknowledged by all 2 nodes")
        assert await mesh.reports() == {}


async def test_what_a_dead_replica_said_counts_no_more(client, prepared):
    async with running(client) as one:
        await becomes(lambda: holder(client), "one")
        async with running(client, SECOND) as two:
            mesh = Mesh(client, one, two, prepared)
            async with mesh.node(2, two) as second:
                await mesh.policy("deny")
                await mesh.becomes("deny", "False", "waiting for node1 (not connected), node2")
                left = await mesh.reports()
        # As if it had been killed: it took nothing back.
        await client.patch(kinds.CONFIG_MAPS, "ambit-acknowledgements", {"data": left}, "ambit-system")
        await mesh.becomes("deny", "False", "waiting for node1 (not connected), node2")
        down = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        await client.patch(kinds.PODS, "two", down, "ambit-system", subresource="status")
        await mesh.becomes("deny", "False", "waiting for node1 (not connected), node2 (not connected)")
        async with mesh.node(1, one), mesh.moved(second, one):
            await mesh.becomes("deny", "True", "acknowledged by all 2 nodes")
        assert await mesh.reports() == left, "its pod may come back"
        await client.delete(kinds.PODS, "two", "ambit-system", grace_period=0)
        await becomes(mesh.reports, {})


async def test_the_next_leader_joins_what_the_others_say(client, prepared):
    async with running(client, SECOND) as two:
        async with running(client) as one:
            mesh = Mesh(client, one, two, prepared)
            async with mesh.node(1, one) as first, mesh.node(2, two) as second:
                await becomes(lambda: holder(client), "two")
                await mesh.policy("deny")
                await second.receive()
                await mesh.becomes("deny", "False", "waiting for node1")
                assert (await mesh.reports()).keys() == {"one"}
        async with running(client) as one, mesh.moved(first, one), mesh.moved(second, two):
            await mesh.becomes("deny", "True", "acknowledged by all 2 nodes")


async def test_who_leads_writes_what_proxies_of_another_replica_refused(client, prepared):
    route = ObjectRef("HTTPRoute", "shop", "web")
    said = encode(with_routes(Report(), {route: "Envoy refuses this route: no good"}))
    place = {"name": "ambit-acknowledgements", "namespace": "ambit-system"}

    async def acknowledged_by_proxies():
        return (await conditions(client, kinds.HTTP_ROUTES, "web")).get("ambit.io/Acknowledged")

    async with running(client):
        await client.create(kinds.SERVICES, web())
        await client.create(kinds.HTTP_ROUTES, ROUTE)
        await client.create(kinds.CONFIG_MAPS, {"metadata": place, "data": {"two": said}})
        await becomes(acknowledged_by_proxies, ("False", "Rejected"))
        await client.patch(kinds.CONFIG_MAPS, place["name"], {"data": {"two": None}}, "ambit-system")
        await becomes(acknowledged_by_proxies, None)


def pods(*names):
    return {
        ("ambit-system", name): msgspec.convert(pod_json(name, "ambit-system", "ambit-control"), Pod)
        for name in names
    }


def reporter(known, leading, following, held=None, **more):
    informers = {
        "pods": SimpleNamespace(items=known),
        "authorizationpolicies.security.istio.io": SimpleNamespace(complete_at="12"),
        "peerauthentications.security.istio.io": SimpleNamespace(complete_at="7"),
    }
    discovery = SimpleNamespace(standings=lambda: [Standing("n1", {"a": 3})], revisions=lambda: {"a": 3})
    made = Reporter(
        None,
        SETTINGS,
        discovery,
        SimpleNamespace(informers=informers, has_compiled=lambda _: True),
        lambda: SimpleNamespace(leading=leading, following=following),
        lambda: None,
        **more,
    )
    made._held = lambda: held or {}
    return made


async def test_who_leads_or_is_alone_says_nothing_and_clears_up():
    known = pods("one", "two")
    assert reporter(known, leading=True, following=False)._due() == {}
    assert reporter(known, leading=False, following=False)._due() == {}
    assert reporter(pods(), leading=False, following=True)._due() == {}, "it runs outside of the cluster"
    held = {"one": "former", "two": "said", "gone": "said"}
    assert reporter(known, leading=True, following=False, held=held)._due() == {"one": None, "gone": None}


async def test_who_follows_says_what_changed():
    made = reporter(pods("one"), leading=False, following=True)
    said = made._due()["one"]
    assert decode(said).groups[0].nodes == ("n1",)
    again = reporter(pods("one"), leading=False, following=True, held={"one": said})
    assert again._due() == {}
    again._discovery.standings = list
    assert again._due() == {"one": None}


async def test_versions_of_an_incomplete_copy_are_noted_when_it_is_complete():
    made = reporter(pods("one"), leading=False, following=True)
    copy = made._feed.informers["authorizationpolicies.security.istio.io"]
    change = SimpleNamespace(resource="authorizationpolicies.security.istio.io")
    copy.complete_at = ""
    made.compiled([change])
    assert decode(made._due()["one"]).groups[0].seen == {}
    copy.complete_at, made._feed.has_compiled = "13", lambda _: False
    assert decode(made._due()["one"]).groups[0].seen == {}, "the last of it is not compiled yet"
    made._feed.has_compiled = lambda _: True
    assert decode(made._due()["one"]).groups[0].seen == {"AuthorizationPolicy": 13, "PeerAuthentication": 7}


async def test_who_leads_knows_which_routes_the_proxies_of_others_refused():
    route, other = (ObjectRef("HTTPRoute", "shop", each) for each in ("r", "other"))
    follower = reporter(pods("one", "two"), leading=False, following=True, refused=lambda: {route: "no good"})
    said = follower._due()["one"]
    looked = []
    changed = {"routes_changed": lambda found: looked.extend(sorted(found))}
    conditions = [{"type": "Ready", "status": "True"}]
    one = pod_json("one", "ambit-system", "ambit-control", conditions=conditions)
    ready = {**pods("two"), ("ambit-system", "one"): msgspec.convert(one, Pod)}
    held = {"one": said}
    leader = reporter(ready, leading=True, following=False, held=held, **changed)
    leader._instance = "two"
    leader._told("modified", None, None)
    assert (leader.refused_route(route), leader.refused_route(other)) == ("no good", None)
    leader._told("modified", None, None)
    assert looked == ["HTTPRoute shop/r"], "nothing new the second time"
    held.clear()
    leader._told("modified", None, None)
    assert leader.refused_route(route) is None and looked == ["HTTPRoute shop/r"] * 2
