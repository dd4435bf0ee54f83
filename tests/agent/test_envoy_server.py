"""The agent's discovery server with a client like Envoy: answers, acknowledgements, rejections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from ambit.agent.envoy_server import EnvoyServer
from ambit.plan.node import node_proxy
from ambit.xds.frames import Request, Resource, Response
from ambit.xds.session import ServerSession
from ambit.xds.wire import METHOD, decode_response, encode_request

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def resource(name: str, version: str = "1", *, on_demand: bool = False) -> Resource:
    return Resource(name=name, version=version, body=b"", on_demand=on_demand)


class Envoy:
    """One stream; subscribes to all clusters and listeners as Envoy does."""

    def __init__(self, call: grpc.aio.StreamStreamCall) -> None:
        self._call = call

    async def send(self, request: Request) -> None:
        await self._call.write(request)

    async def next(self) -> Response:
        async with asyncio.timeout(60):
            response = await self._call.read()
        assert isinstance(response, Response)
        return response

    async def ack(self, response: Response, error: str | None = None) -> None:
        await self.send(Request(type_url=response.type_url, nonce=response.nonce, error=error))

    async def begin(self) -> None:
        for type_url in (CLUSTER, LISTENER):
            await self.send(Request(type_url=type_url))
            await self.ack(await self.next())


class Agent:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: asyncio.Queue[tuple[str, tuple[str, ...]]] = asyncio.Queue()
        self.server = EnvoyServer(
            path,
            lambda type_url, names: self.asked.put_nowait((type_url, names)),
        )

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(f"unix:{self.path}") as channel:
            yield channel

    @asynccontextmanager
    async def envoy(self) -> AsyncIterator[Envoy]:
        async with self.channel() as channel:
            call = channel.stream_stream(METHOD, encode_request, decode_response)()
            yield Envoy(call)
            call.cancel()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    agent = Agent(tmp_path / "run" / "xds.sock")
    await agent.server.start()
    yield agent
    await agent.server.stop()


async def test_a_change_is_settled_when_envoy_acknowledges(agent: Agent) -> None:
    async with agent.envoy() as envoy:
        await envoy.begin()
        publication = agent.server.publish([(CLUSTER, resource("local")), (LISTENER, resource("in"))])
        first, second = await envoy.next(), await envoy.next()
        assert [first.type_url, second.type_url] == [CLUSTER, LISTENER]
        await envoy.ack(first)
        assert not publication.done
        await envoy.ack(second)
        assert await publication.settled() is None


async def test_without_envoy_nothing_is_settled_until_it_came(agent: Agent) -> None:
    publication = agent.server.publish([(LISTENER, resource("in"))])
    assert not publication.done
    async with agent.envoy() as envoy:
        await envoy.begin()
        assert await publication.settled() is None


async def test_a_rejection_is_given_to_the_change_it_names(agent: Agent) -> None:
    async with agent.envoy() as envoy:
        await envoy.begin()
        good = agent.server.publish([(LISTENER, resource("good"))])
        bad = agent.server.publish([(LISTENER, resource("bad"))])
        await envoy.ack(await envoy.next())
        await envoy.ack(await envoy.next(), error="Error adding listener bad: no such namespace")
        assert await good.settled() is None
        assert await bad.settled() == "Error adding listener bad: no such namespace"
        assert agent.server.rejections == {LISTENER: "Error adding listener bad: no such namespace"}


async def test_an_on_demand_name_is_asked_for_and_answered_later(agent: Agent) -> None:
    async with agent.envoy() as envoy:
        await envoy.begin()
        await envoy.send(Request(type_url=CLUSTER, subscribe=("dst|a|10.0.0.1:80",)))
        async with asyncio.timeout(60):
            assert await agent.asked.get() == (CLUSTER, ("dst|a|10.0.0.1:80",))
        agent.server.publish([(CLUSTER, resource("dst|a|10.0.0.1:80", on_demand=True))])
        answer = await envoy.next()
        assert [each.name for each in answer.resources] == ["dst|a|10.0.0.1:80"]


async def test_what_nobody_asked_for_is_settled_at_once(agent: Agent) -> None:
    async with agent.envoy() as envoy:
        await envoy.begin()
        assert agent.server.publish([(SECRET, resource("c|x", on_demand=True))]).done


async def test_an_unchanged_resource_is_not_sent(agent: Agent) -> None:
    async with agent.envoy() as envoy:
        await envoy.begin()
        agent.server.publish([(LISTENER, resource("in"))])
        await envoy.ack(await envoy.next())
        assert agent.server.publish([(LISTENER, resource("in"))]).done


async def test_a_publication_waits_for_both_generations(agent: Agent) -> None:
    async with agent.envoy() as older, agent.envoy() as newer:
        await older.begin()
        await newer.begin()
        publication = agent.server.publish([(LISTENER, resource("in"))])
        await newer.ack(await newer.next())
        response = await older.next()
        assert not publication.done
        await older.ack(response)
        assert await publication.settled() is None


async def test_the_socket_is_in_a_closed_directory(agent: Agent) -> None:
    assert agent.path.parent.stat().st_mode & 0o777 == 0o700


async def test_one_question_does_not_look_at_all_others(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod may ask thousands: each must cost the same."""

    def expensive(*_: object) -> None:
        raise AssertionError("this looks at every name")

    async with agent.envoy() as envoy:
        await envoy.begin()
        for name in ("unanswered", "status"):
            monkeypatch.setattr(ServerSession, name, expensive)
        waiting = agent.server.publish([(CLUSTER, resource("a"))])
        for name in ("one", "two"):
            await envoy.send(Request(type_url=CLUSTER, subscribe=(name,)))
            await agent.asked.get()
            agent.server.answer([(CLUSTER, resource(name, on_demand=True))])
        for _ in range(3):
            await envoy.ack(await envoy.next())
        async with asyncio.timeout(60):
            assert await waiting.settled() is None


async def test_answers_that_cannot_be_sent_end_the_stream(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy would wait for ever on a stream that has lost one."""

    async def broken(*_: object) -> None:
        raise RuntimeError("cannot be encoded")

    monkeypatch.setattr("ambit.agent.envoy_server._Stream.write", broken)
    async with agent.envoy() as envoy:
        async with asyncio.timeout(60):
            assert await envoy._call.read() is grpc.aio.EOF
        assert not agent.server.connected


async def test_listeners_wait_for_the_clusters_that_wait_for_envoy(tmp_path: Path) -> None:
    """Many answers that Envoy has not taken yet hold further clusters back; a listener must not overtake them, and
    counts as taken only when it was."""
    agent = Agent(tmp_path / "xds.sock")
    await agent.server.start()
    try:
        async with agent.envoy() as envoy:
            await envoy.begin()
            for number in range(16):
                agent.server.publish([(CLUSTER, resource(f"c{number}"))])
            held = [await envoy.next() for _ in range(16)]
            publication = agent.server.publish([(CLUSTER, resource("local")), (LISTENER, resource("in"))])
            await envoy.send(Request(type_url=SECRET, subscribe=("s",)))
            assert await agent.asked.get() == (SECRET, ("s",))
            assert not publication.done
            await envoy.ack(held[0])
            for wanted in ("local", "in"):
                response = await envoy.next()
                assert [each.name for each in response.resources] == [wanted]
                held.append(response)
            for response in held[1:]:
                await envoy.ack(response)
            assert await publication.settled() is None
    finally:
        await agent.server.stop()


async def test_a_policy_that_envoy_refuses_is_replaced_by_one_that_denies(agent: Agent) -> None:
    def policy(name: str, version: str) -> Resource:
        return resource(f"policy|{name}", version, on_demand=True)

    agent.server.publish([(EXTENSION, policy("a", "1")), (EXTENSION, policy("b", "1"))])
    async with agent.envoy() as envoy:
        await envoy.begin()
        await envoy.send(Request(type_url=EXTENSION, subscribe=("policy|a", "policy|b")))
        for name in ("policy|a", "policy|b"):
            response = await envoy.next()
            assert [each.name for each in response.resources] == [name]
            await envoy.ack(response)
        publication = agent.server.publish([(EXTENSION, policy("a", "2")), (EXTENSION, policy("b", "2"))])
        bad, good = await envoy.next(), await envoy.next()
        await envoy.ack(bad, error="too large")
        await envoy.ack(good)
        closed = await envoy.next()
        (instead,) = closed.resources
        assert instead.name == "policy|a"
        denying = node_proxy.refused_policy("policy|a")
        assert (instead.version, instead.body) == (denying.version, denying.body)
        assert not publication.done, "the former policy is in force until this is acknowledged"
        await envoy.ack(closed)
        assert await publication.settled() == "too large"
        assert agent.server.closed == ("a",)
        assert agent.server.rejections == {EXTENSION: "too large"}

        # The same again is not even tried, and says so; another one is.
        assert await agent.server.publish([(EXTENSION, policy("a", "2"))]).settled() == "too large"
        again = agent.server.publish([(EXTENSION, policy("a", "3"))])
        response = await envoy.next()
        assert [each.version for each in response.resources] == ["3"]
        await envoy.ack(response)
        assert await again.settled() is None
        assert (agent.server.closed, agent.server.rejections) == ((), {})


async def test_stopping_ends_streams_without_a_traceback(
    agent: Agent, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with agent.envoy() as envoy:
        await envoy.begin()
        await agent.server.stop()
        with pytest.raises(grpc.aio.AioRpcError, match="the agent stops"):
            await envoy.next()
    assert agent.server.connected == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert "Traceback" not in capfd.readouterr().err
