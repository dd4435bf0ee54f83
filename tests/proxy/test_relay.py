"""What the control plane says reaches Envoy, and Envoy's answer the control plane."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from ambit.agent.channel import ControlPlane
from ambit.agent.envoy_server import EnvoyServer
from ambit.envoy import names
from ambit.model.metrics import MetricsNote, MetricsRule, Override
from ambit.model.telemetry import Level, TelemetryPolicy
from ambit.plan import authority
from ambit.plan.authority import AuthorityNote
from ambit.plan.telemetry import metrics
from ambit.plan.values import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET
from ambit.proxy import relay
from ambit.proxy.last_good import LastGood
from ambit.proxy.relay import TYPES, Notes, Relay
from ambit.xds.events import Acknowledged, Rejected
from ambit.xds.frames import Node, Request, Resource
from ambit.xds.wire import METHOD, decode_response, encode_request
from tests.agent.test_envoy_server import Envoy, resource
from tests.node.upstream.test_subscription import ControlPlaneServer
from tests.node.world import until
from tests.plan.test_request_logs import PROXY


class Between:
    """A control plane, the relay, and a place for an Envoy."""

    def __init__(self, directory: Path, control: ControlPlaneServer, kept: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.control = control
        self.server = EnvoyServer(directory / "run" / "xds.sock", lambda *_: None)
        token = directory / "token"
        token.write_text("secret")
        self._path = directory / "run" / "xds.sock"
        node = Node("proxy~shop/way~way-0")
        self.notes: list[AuthorityNote] = []
        self.counted: list[MetricsNote] = []
        place = ControlPlane(f"127.0.0.1:{control.port}", token=token)
        self.warm = asyncio.Event()
        self.warm.set()
        self.kept = LastGood(kept)
        self.kept.open()
        notes = Notes(self.notes.append, self.counted.append)
        self.relay = Relay(place, node, self.server, self.kept, notes, self._in_force)

    async def _in_force(self) -> None:
        await self.warm.wait()

    @asynccontextmanager
    async def envoy(self) -> AsyncIterator[Envoy]:
        async with grpc.aio.insecure_channel(f"unix:{self._path}") as channel:
            call = channel.stream_stream(METHOD, encode_request, decode_response)()
            yield Envoy(call)
            call.cancel()

    def put(self, type_url: str, *resources: Resource) -> None:
        self.control.store.update(type_url, {each.name: each for each in resources})


@pytest.fixture
async def between(tmp_path: Path) -> AsyncIterator[Between]:
    control = ControlPlaneServer()
    await control.start()
    between = Between(tmp_path, control, tmp_path / "last-good.db")
    await between.server.start()
    yield between
    await between.server.stop()
    await control.stop()
    between.kept.close()


@asynccontextmanager
async def relaying(between: Between) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(between.relay.run())
    try:
        yield task
    finally:
        task.cancel()


async def test_an_answer_goes_up_when_envoy_has_answered(between: Between) -> None:
    between.put(CLUSTER, resource("svc"))
    async with relaying(between):
        await until(lambda: between.server.store.get(CLUSTER, "svc"))
        assert not _answered(between, CLUSTER)
        async with between.envoy() as envoy:
            await envoy.begin()
            await until(lambda: _answered(between, CLUSTER))
            assert between.relay.complete.is_set()


async def test_an_answer_goes_up_when_what_envoy_has_taken_is_in_force(between: Between) -> None:
    """What waits for more holds up neither other types nor what it waits for."""
    between.put(CLUSTER, resource("svc"))
    between.put(ENDPOINTS, resource("svc"))
    between.warm.clear()
    async with relaying(between):
        await until(lambda: between.server.store.get(CLUSTER, "svc"))
        async with between.envoy() as envoy:
            await envoy.begin()
            await until(lambda: _answered(between, ENDPOINTS))
            assert not _answered(between, CLUSTER)
            between.warm.set()
            await until(lambda: _answered(between, CLUSTER))


async def test_what_envoy_rejects_after_the_acknowledgement_is_rejected_then(between: Between) -> None:
    """Envoy subscribes to a table when it has the listener that names it."""
    between.put(ROUTES, resource("table"), resource("other"))
    async with relaying(between), between.envoy() as envoy:
        await envoy.begin()
        await until(lambda: _answered(between, ROUTES))
        assert not _rejections(between)
        await envoy.send(Request(type_url=ROUTES, subscribe=("table", "other")))
        together = await envoy.next()
        await envoy.ack(together, error="missing )")
        by_name = {each.resources[0].name: each for each in (await envoy.next(), await envoy.next())}
        await envoy.ack(by_name["other"])
        await envoy.ack(by_name["table"], error="missing )")
        await until(lambda: _rejections(between))
        (rejected,) = _rejections(between)
        assert {each.name for each in rejected.response.resources} == {"table"}
        assert rejected.error == "table: missing )"


async def test_what_envoy_rejects_is_rejected(between: Between) -> None:
    between.put(LISTENER, resource("in"))
    async with relaying(between), between.envoy() as envoy:
        await envoy.send(Request(type_url=CLUSTER))
        await envoy.ack(await envoy.next())
        await until(lambda: between.server.store.get(LISTENER, "in"))
        await envoy.send(Request(type_url=LISTENER))
        await envoy.ack(await envoy.next(), error="in: bad listener")
        await until(lambda: [each for each in between.control.events if isinstance(each, Rejected)])
        (rejected,) = (each for each in between.control.events if isinstance(each, Rejected))
        assert (rejected.response.type_url, "bad listener" in rejected.error) == (LISTENER, True)


async def test_a_control_plane_that_was_restarted_is_told_again_what_is_refused(between: Between) -> None:
    """And Envoy is not asked twice."""

    def refusals() -> list[Rejected]:
        return [each for each in between.control.events if isinstance(each, Rejected)]

    between.put(LISTENER, resource("in"))
    async with relaying(between), between.envoy() as envoy:
        await envoy.send(Request(type_url=CLUSTER))
        await envoy.ack(await envoy.next())
        await until(lambda: between.server.store.get(LISTENER, "in"))
        await envoy.send(Request(type_url=LISTENER))
        await envoy.ack(await envoy.next(), error="in: bad listener")
        await until(refusals)
        await between.control.stop()
        between.control.events.clear()
        await between.control.start()
        await until(refusals)
        (again,) = refusals()
        assert "in: bad listener" in again.error
        assert [each.name for each in again.response.resources] == ["in"]


async def test_no_key_comes_from_elsewhere(between: Between) -> None:
    own = resource("spiffe://cluster.local/ns/shop/sa/way")
    between.server.publish([(SECRET, own)])
    between.put(SECRET, resource(own.name, "2"), resource(names.TRUST))
    async with relaying(between):
        await until(lambda: between.server.store.get(SECRET, names.TRUST))
        assert between.server.store.get(SECRET, own.name) == own


async def test_what_is_said_of_the_authority_is_for_the_agent(between: Between) -> None:
    planned = authority.resource(AuthorityNote("ab12", ("7",)))
    note = Resource(name=planned.name, version=planned.version, body=planned.body)
    between.put(SECRET, note, resource(names.TRUST))
    async with relaying(between):
        await until(lambda: between.server.store.get(SECRET, names.TRUST) is not None)
        assert between.notes == [AuthorityNote("ab12", ("7",))]
        assert between.server.store.get(SECRET, names.AUTHORITY) is None


async def test_what_is_said_of_metrics_is_for_the_agent(between: Between) -> None:
    policy = TelemetryPolicy("root/a", Level.MESH, metrics=(MetricsRule(("istio_requests",), True),))
    (planned,) = metrics.resources([policy], PROXY)
    between.put(
        SECRET, Resource(name=planned.name, version=planned.version, body=planned.body), resource(names.TRUST)
    )
    async with relaying(between):
        await until(lambda: between.server.store.get(SECRET, names.TRUST) is not None)
        assert between.counted == [MetricsNote({"istio_requests": Override(True)})]
        assert between.server.store.get(SECRET, names.METRICS) is None
    between.control.store.update(SECRET, {}, [names.METRICS])
    async with relaying(between):
        await until(lambda: between.counted[1:] == [MetricsNote()])


async def test_a_new_stream_goes_on_where_the_last_one_ended(
    between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is made here is no concern of the control plane's."""
    monkeypatch.setattr(relay, "LINGER", 0.05)
    between.server.publish([(SECRET, resource("own"))])
    between.put(ENDPOINTS, resource("svc"), resource("former"))
    async with relaying(between):
        await until(lambda: between.server.store.get(ENDPOINTS, "former"))
        await between.control.stop()
        between.control.store.update(ENDPOINTS, {}, ["former"])
        between.control.first.clear()
        await between.control.start()
        await until(lambda: len(between.control.first) == len(TYPES))
        await until(lambda: between.server.store.get(ENDPOINTS, "former") is None)
    kept = {each.type_url: dict(each.initial_versions) for each in between.control.first}
    assert set(kept) == set(TYPES)
    assert (kept[ENDPOINTS], kept[SECRET]) == ({"svc": "1", "former": "1"}, {})
    assert between.server.store.get(SECRET, "own")


async def test_what_listeners_use_that_drain_goes_after_them(
    between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LINGER", 0.5)
    between.put(CLUSTER, resource("svc"), resource("back"))
    between.put(LISTENER, resource("in"))
    async with relaying(between):
        await until(lambda: between.server.store.get(LISTENER, "in"))
        await between.control.change(CLUSTER, gone=["svc", "back"])
        await between.control.change(LISTENER, gone=["in"])
        await until(lambda: between.server.store.get(LISTENER, "in") is None)
        assert between.server.store.get(CLUSTER, "svc") is not None, "requests that are under way need it"
        await between.control.change(CLUSTER, resource("back", "2"))
        await until(lambda: between.server.store.get(CLUSTER, "svc") is None)
        back = between.server.store.get(CLUSTER, "back")
        assert back is not None and back.version == "2", "what came back is not taken away"


def _answered(between: Between, type_url: str) -> list[Acknowledged]:
    return [
        each
        for each in between.control.events
        if isinstance(each, Acknowledged) and each.response.type_url == type_url
    ]


def _rejections(between: Between) -> list[Rejected]:
    return [each for each in between.control.events if isinstance(each, Rejected)]


async def test_every_envoy_gets_the_whole_of_what_is_kept_in_little_memory(between: Between) -> None:
    bodies = {name: f"{name} ".encode() + bytes(range(256)) * 4 for name in ("one", "two")}
    between.put(CLUSTER, *(Resource(name=name, version="1", body=body) for name, body in bodies.items()))
    async with relaying(between):
        await until(lambda: between.server.store.get(CLUSTER, "two"))
        kept = between.server.store.resources(CLUSTER).values()
        assert not any(each.body for each in kept)
        for _ in range(2):
            async with between.envoy() as envoy:
                await envoy.send(Request(type_url=CLUSTER))
                sent = (await envoy.next()).resources
                assert {each.name: each.body for each in sent} == bodies


async def test_keys_that_are_shown_to_clients_are_kept_as_they_are(between: Between) -> None:
    """So that no key outlives its certificate by what others are compared with."""
    name = names.shown_certificate("shop/web")
    between.put(SECRET, Resource(name=name, version="1", body=bytes(1000)))
    async with relaying(between):
        await until(lambda: between.server.store.get(SECRET, name))
        kept = between.server.store.get(SECRET, name)
        assert kept is not None and kept.body == bytes(1000)


async def test_the_next_agent_begins_with_what_envoy_has_taken(
    between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what it has refused, and without what is gone; and it holds that already when the control plane comes."""
    monkeypatch.setattr(relay, "LINGER", 0.05)
    between.put(CLUSTER, resource("svc"), resource("former"))
    between.put(LISTENER, resource("in"))
    between.put(SECRET, resource(names.TRUST))
    async with relaying(between), between.envoy() as envoy:
        await until(between.relay.complete.is_set)
        await envoy.begin()
        await until(lambda: all(_answered(between, each) for each in TYPES))
        await between.control.change(LISTENER, resource("in", "2"))
        await envoy.ack(await envoy.next(), error="in: bad listener")
        await between.control.change(CLUSTER, gone=["former"])
        await until(lambda: between.server.store.get(CLUSTER, "former") is None)
        await until(lambda: [each for each in between.control.events if isinstance(each, Rejected)])
    between.kept.close()
    following = Between(tmp_path / "next", between.control, tmp_path / "last-good.db")
    assert following.relay.restore() and following.relay.complete.is_set()
    store = following.server.store
    found = {
        (each, name): store.resources(each)[name].version for each in TYPES for name in store.resources(each)
    }
    assert found == {(SECRET, names.TRUST): "1", (CLUSTER, "svc"): "1", (LISTENER, "in"): "1"}
    between.control.first.clear()
    async with relaying(following):
        await until(lambda: len(between.control.first) == len(TYPES))
    held = {each.type_url: dict(each.initial_versions) for each in between.control.first}
    assert (held[CLUSTER], held[LISTENER]) == ({"svc": "1"}, {"in": "1"})


async def test_what_envoy_rejects_of_what_was_kept_is_rejected_when_the_control_plane_answers(
    between: Between, tmp_path: Path
) -> None:
    """The former agent may have ended before Envoy subscribed to the table."""
    between.put(ROUTES, resource("table"))
    async with relaying(between), between.envoy() as envoy:
        await envoy.begin()
        await until(lambda: all(_answered(between, each) for each in TYPES))
    between.kept.close()
    following = Between(tmp_path / "next", between.control, tmp_path / "last-good.db")
    assert following.relay.restore()
    await following.server.start()
    async with following.envoy() as envoy:
        await envoy.begin()
        await envoy.send(Request(type_url=ROUTES, subscribe=("table",)))
        await envoy.ack(await envoy.next(), error="missing )")
        async with relaying(following):
            await until(lambda: _rejections(between))
    (rejected,) = _rejections(between)
    assert rejected.error == "table: missing )"
    await following.server.stop()
    following.kept.close()


async def test_what_came_with_something_rejected_is_rejected_later(between: Between) -> None:
    """Envoy has no use for the second table yet when it rejects the first."""
    between.put(ROUTES, resource("first"))
    async with relaying(between), between.envoy() as envoy:
        await envoy.begin()
        await envoy.send(Request(type_url=ROUTES, subscribe=("first",)))
        await envoy.ack(await envoy.next())
        await until(lambda: _answered(between, ROUTES))
        await between.control.change(ROUTES, resource("first", "2"), resource("second"))
        await envoy.ack(await envoy.next(), error="missing )")
        await until(lambda: _rejections(between))
        await envoy.send(Request(type_url=ROUTES, subscribe=("second",)))
        await envoy.ack(await envoy.next(), error="missing ]")
        await until(lambda: any("second: missing ]" in each.error for each in _rejections(between)))
