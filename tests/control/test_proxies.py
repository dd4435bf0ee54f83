"""Streams of L7 proxies: each gets its own, and only with its Gateway's service account."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import msgspec
import pytest

from ambit.ca.trust import Trust
from ambit.control.l7.plans import Plans
from ambit.control.l7.proxies import ProxyDiscovery
from ambit.core.finding import ObjectRef
from ambit.envoy import names
from ambit.model.request_policy import RequestAction, RequestPolicy
from ambit.model.status import Condition, ObjectStatus, Version
from ambit.plan.values import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES, SECRET, NodeSettings
from ambit.xds import wire
from ambit.xds.client_session import ClientSession
from ambit.xds.frames import Node, Response
from tests.control.test_plans import PROXY, TOKENS, WEB, delta, workload
from tests.control.world import World, pod_json, review
from tests.node.world import until

TYPES = (SECRET, CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES)
TOKEN, STRANGER = "token-of-way", "token-of-web"


class Served(World):
    """With one Gateway, its pod, and a pod of somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.proxies = ProxyDiscovery(
            Plans(NodeSettings(node=""), lambda: Trust(self.authority.roots, "", "ab12")), self.counters
        )
        self.discovery.others = self.proxies.serve
        for account, token in (("way", TOKEN), ("web", STRANGER)):
            self.api.reviews[token] = review("shop", account, f"{account}-0", f"uid-{account}-0")
            self.api.pods.append(pod_json(f"{account}-0", "shop", account))
        self.proxies.take(delta(PROXY, WEB, workload("web", WEB)))

    @asynccontextmanager
    async def stream(self, node: str = "proxy~shop/way~way-0", token: str = TOKEN) -> AsyncIterator["Client"]:
        metadata = (("authorization", f"Bearer {token}"),)
        async with self.channel() as channel:
            call = channel.stream_stream(wire.METHOD)(metadata=metadata)
            yield Client(call, node)
            call.cancel()


class Client:
    """Acknowledges everything, or rejects it."""

    def __init__(self, call: grpc.aio.StreamStreamCall, node: str) -> None:
        self._call = call
        self._session = ClientSession(TYPES, Node(node))

    async def begin(self) -> None:
        for request in self._session.connect():
            await self._call.write(wire.encode_request(request))

    async def refusal(self) -> str:
        """Why the stream ended at its first request. (A further one would hide it from this client.)"""
        first, *_ = self._session.connect()
        await self._call.write(wire.encode_request(first))
        async with asyncio.timeout(60):
            return f"{await self._call.code()}: {await self._call.details()}"

    async def next(self, error: str | Callable[[Response], str] = "", of: str = "") -> Response:
        """The next response, acknowledged; rejected with an `error`, where one is given only responses `of` a type."""
        async with asyncio.timeout(60):
            data = await self._call.read()
        if data is grpc.aio.EOF:
            raise EOFError(f"{await self._call.code()}: {await self._call.details()}")
        response = wire.decode_response(data)
        update = self._session.receive(response)
        text = error if isinstance(error, str) else error(response)
        is_bad = text and of in ("", response.type_url)
        for answer in self._session.reject(update, text) if is_bad else self._session.accept(update):
            await self._call.write(wire.encode_request(answer))
        return response


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    async with served.serving():
        yield served


async def refusal(served: Served, **more: str) -> str:
    async with served.stream(**more) as client:
        return await client.refusal()


async def test_a_proxy_gets_its_resources_and_their_changes(served: Served) -> None:
    async with served.stream() as client:
        await client.begin()
        first = [await client.next() for _ in TYPES]
        assert {each.type_url for each in first} == set(TYPES)
        assert all(each.resources for each in first if each.type_url != EXTENSION)
        served.proxies.take(delta(workload("web", WEB, address="10.244.1.9")))
        changed = await client.next()
        assert changed.type_url == ENDPOINTS
        assert b"10.244.1.9" in changed.resources[0].body


@pytest.mark.feature("F168")
async def test_what_a_proxy_has_and_rejects_is_known(served: Served) -> None:
    async with served.stream() as client:
        await client.begin()
        for _ in TYPES:
            await client.next()
        served.proxies.take(delta(workload("web", WEB, address="10.244.1.9")))
        # The alert AmbitConfigurationRejected sees an increase of what can be read before.
        assert f'ambit_xds_answers_total{{answer="nack",type="{ENDPOINTS}"}} 0' in served.counters.render()
        await client.next(error="no good")

        def told() -> str:
            (status,) = served.proxies.status()
            assert (status.gateway, status.pod) == ("shop/way", "way-0")
            return status.types[ENDPOINTS].error

        await until(lambda: told() == "no good")
        assert served.counters.value("ambit_xds_answers_total", type=ENDPOINTS, answer="nack") == 1


async def test_a_policy_is_acknowledged_when_its_proxies_have_it(served: Served) -> None:
    """And stays so: later pods have it before anybody's requests."""
    origin = ObjectRef("AuthorizationPolicy", "shop", "deny")
    looked: list[ObjectRef] = []
    served.proxies.on_refused = looked.append

    def said(holds: str = "True", *, by_nodes: bool = False) -> tuple[str, str, str] | None:
        accepted = Condition("WaypointAccepted", holds, "Accepted")  # type: ignore[arg-type]
        given = ObjectStatus(Version(origin, "u", 1), (accepted,), by_nodes=by_nodes)
        status = served.proxies.amended(given)
        assert isinstance(status, ObjectStatus)
        first, *more = status.conditions
        assert first == accepted
        return (more[0].type, more[0].status, more[0].message) if more else None

    kind = "ambit.io/Acknowledged"
    deny = RequestPolicy("deny", "shop", RequestAction.DENY, TOKENS.targets, origin=origin)
    served.proxies.take(delta(deny))
    assert said() is None, "nobody enforces it"
    async with served.stream() as first:
        await first.begin()
        assert EXTENSION in [(await first.next()).type_url for _ in TYPES]
        await until(lambda: looked)
        await until(lambda: said() == (kind, "True", "acknowledged by 1 proxy"))
        assert said(by_nodes=True) is None, "the condition tells of nodes"
        async with served.stream(node="proxy~shop/way~way-1") as second:
            await second.begin()
            assert said() == (kind, "True", "acknowledged by 1 proxy")
            for _ in TYPES:
                await second.next()
            served.proxies.take(delta(msgspec.structs.replace(deny, action=RequestAction.ALLOW)))
            assert said() == (kind, "False", "waiting for way-0, way-1")
            assert said("False") is None, "what is not accepted is enforced by nobody"
            assert said() == (kind, "False", "waiting for way-0, way-1")
            await first.next()
            await until(lambda: said() == (kind, "False", "waiting for way-1"))
            await second.next(error="no good", of=EXTENSION)
            await until(lambda: said() == (kind, "False", "rejected by way-1 (no good)"))


async def test_another_account_gets_nothing(served: Served) -> None:
    assert "service account shop/way" in await refusal(served, token=STRANGER)


async def test_who_is_no_proxy_gets_nothing(served: Served) -> None:
    assert "neither a node agent nor a proxy" in await refusal(served, node="ztunnel~1~2~3")


async def test_an_unknown_gateway_is_not_found(served: Served) -> None:
    said = await refusal(served, node="proxy~shop/none~way-0")
    assert "NOT_FOUND" in said


async def test_a_stream_that_ends_leaves_nothing(served: Served) -> None:
    async with served.stream() as client:
        await client.begin()
        await client.next()
        assert served.proxies.status()
    await until(lambda: not served.proxies.status())


async def test_keys_come_with_the_first_answer(served: Served) -> None:
    """Or a control plane that starts would take them away from a proxy that has them."""
    source = TOKENS.rules[0].source
    assert source is not None
    served.proxies.take(delta(TOKENS))
    waits, fetched = asyncio.Event(), asyncio.Event()

    async def before() -> None:
        waits.set()
        await fetched.wait()

    served.proxies.before = before
    async with served.stream() as client:
        await client.begin()
        async with asyncio.timeout(60):
            await waits.wait()
        served.proxies.rekey({source: "the keys"})
        fetched.set()
        answers = [await client.next() for _ in TYPES]
        (told,) = (each for each in answers if each.type_url == EXTENSION)
        tokens = [each for each in told.resources if each.name.startswith(names.tokens(""))]
        assert tokens and all(b"the keys" in each.body for each in tokens)
