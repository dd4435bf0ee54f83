"""The subscription to the workload API against a small control plane."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from bench.ports import free_port

from ambit.agent.channel import ControlPlane
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.model.workload import Workload
from ambit.node.state.database import StateLost
from ambit.node.state.mesh import MeshState, Stored
from ambit.node.upstream.subscription import Subscription
from ambit.xds.client_session import Update
from ambit.xds.events import Acknowledged, Event, Rejected
from ambit.xds.frames import Node, Request, Resource, Response
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE, to_resource
from ambit.xds.session import ServerSession
from ambit.xds.store import Store
from ambit.xds.wire import METHOD_NAME, SERVICE, decode_request, encode_response
from tests.node.state.full_disk import full_disk
from tests.node.world import until


def workload(name: str) -> Workload:
    return Workload(
        uid=f"c//Pod/default/{name}",
        name=name,
        namespace="default",
        identity=Identity("cluster.local", "default", "web"),
        cluster_id="Kubernetes",
    )


class ControlPlaneServer:
    """Serves one store; remembers requests, events and metadata."""

    def __init__(self) -> None:
        self.store = Store()
        self.events: list[Event] = []
        self.first: list[Request] = []
        self.metadata: dict[str, str] = {}
        self.port = free_port()
        self._server = grpc.aio.server()
        self._sessions: list[tuple[ServerSession, grpc.aio.ServicerContext]] = []
        self._writing = asyncio.Lock()
        """Two writes to a stream at once are an error of gRPC's."""

    async def start(self) -> None:
        """Always on the same port."""
        self._server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(self._serve, decode_request, encode_response)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD_NAME: handler}),)
        )
        self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    def acknowledged(self) -> list[Acknowledged]:
        return [event for event in self.events if isinstance(event, Acknowledged)]

    async def put(self, *resources: Resource) -> None:
        await self.change(ADDRESS_TYPE, *resources)

    async def change(self, type_url: str, *resources: Resource, gone: Iterable[str] = ()) -> None:
        changed = self.store.update(type_url, {each.name: each for each in resources}, gone)
        for session, context in self._sessions:
            await self._write(context, session.notify(changed))

    async def _write(self, context: grpc.aio.ServicerContext, responses: Iterable[Response]) -> None:
        async with self._writing:
            for response in responses:
                await context.write(response)

    async def _serve(self, _: object, context: grpc.aio.ServicerContext) -> None:
        self.metadata = dict(context.invocation_metadata() or ())
        session = ServerSession(self.store)
        entry = (session, context)
        self._sessions.append(entry)
        seen: set[str] = set()
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                if request.type_url not in seen:
                    seen.add(request.type_url)
                    self.first.append(request)
                await self._write(context, session.receive(request))
                self.events += session.take_events()
        finally:
            self._sessions.remove(entry)


@pytest.fixture
async def control() -> AsyncIterator[ControlPlaneServer]:
    server = ControlPlaneServer()
    await server.start()
    yield server
    await server.stop()


class Agent:
    def __init__(self, tmp_path: Path, control: ControlPlaneServer) -> None:
        self.state = MeshState(tmp_path / "state.sqlite")
        self.applied: list[tuple[str, ...]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.answer: str | None = None
        self.failure: Exception | None = None
        token = tmp_path / "token"
        token.write_text("secret\n")
        self.subscription = Subscription(
            ControlPlane(f"127.0.0.1:{control.port}", token=token, cluster_id="c1"),
            Node("node~1", metadata={"NODE_NAME": "n1"}),
            self.state,
            self.apply,
        )

    async def apply(self, stored: Stored) -> str | None:
        self.applied.append(stored.changed)
        await self.go.wait()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return self.answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.subscription.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_the_first_complete_answer_of_both_types_makes_it_complete(
    tmp_path: Path, control: ControlPlaneServer
) -> None:
    await control.put(to_resource(workload("a")))
    agent = Agent(tmp_path, control)
    assert not agent.subscription.complete.is_set()
    async with agent.running():
        await until(agent.subscription.complete.is_set)
        assert agent.state.workload("c//Pod/default/a") == workload("a")
        await until(lambda: agent.applied == [("c//Pod/default/a",)])
    assert [request.type_url for request in control.first] == [AUTHORIZATION_TYPE, ADDRESS_TYPE]
    assert control.metadata["authorization"] == "Bearer secret"
    assert control.metadata["clusterid"] == "c1"
    assert agent.state.complete


async def test_a_change_is_acknowledged_only_after_it_was_applied(
    tmp_path: Path, control: ControlPlaneServer
) -> None:
    agent = Agent(tmp_path, control)
    async with agent.running():
        await until(lambda: len(control.acknowledged()) == 2)
        agent.go.clear()
        control.events.clear()
        await control.put(to_resource(workload("a")))
        await control.put(to_resource(workload("b")))
        await until(lambda: len(agent.applied) == 2)
        assert not control.acknowledged()
        agent.go.set()
        await until(lambda: len(control.acknowledged()) == 2)


async def test_envoys_text_reaches_the_control_plane(tmp_path: Path, control: ControlPlaneServer) -> None:
    agent = Agent(tmp_path, control)
    agent.answer = "Envoy does not like it"
    async with agent.running():
        await until(agent.subscription.complete.is_set)
        await control.put(to_resource(workload("a")))
        await until(lambda: any(getattr(event, "error", "") == agent.answer for event in control.events))


@pytest.mark.feature("N49")
async def test_a_reconnect_brings_only_what_changed(tmp_path: Path, control: ControlPlaneServer) -> None:
    await control.put(to_resource(workload("a")), to_resource(workload("b")))
    agent = Agent(tmp_path, control)
    async with agent.running():
        await until(lambda: len(agent.applied) == 1)
        await control.stop()
        control.store.update(ADDRESS_TYPE, {}, ["c//Pod/default/b"])
        control.first.clear()
        await control.start()
        await until(lambda: len(agent.applied) == 2)
        assert agent.applied[1] == ("c//Pod/default/b",)
        ends = agent.subscription.stream.terminations
        assert ends["Complete"] + ends["Error"] + ends["Reconnect"] == 1
        assert agent.subscription.stream.messages[ADDRESS_TYPE] == 2
        assert agent.subscription.stream.message_bytes[ADDRESS_TYPE] > 2 * len("c//Pod/default/a")
        assert agent.state.workload("c//Pod/default/b") is None
        assert set(control.first[1].initial_versions) == {"c//Pod/default/a", "c//Pod/default/b"}


async def test_a_stream_that_ended_leaves_nobody_waiting_to_send_on_it(
    tmp_path: Path, control: ControlPlaneServer
) -> None:
    """Else asyncio complains in the log when it is forgotten."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    await control.put(to_resource(workload("a")))
    agent = Agent(tmp_path, control)
    async with agent.running():
        await until(lambda: len(agent.applied) == 1)
        await control.stop()
        await until(lambda: agent.subscription.stream.problem != "")
        await until(lambda: not agent.subscription.stream.connected)
        await control.start()
        await control.put(to_resource(workload("b")))
        await until(lambda: len(agent.applied) == 2)
    gc.collect()
    assert complaints == []


async def test_it_starts_from_disk_without_a_control_plane(
    tmp_path: Path, control: ControlPlaneServer
) -> None:
    await control.put(to_resource(workload("a")))
    agent = Agent(tmp_path, control)
    async with agent.running():
        await until(agent.subscription.complete.is_set)
    agent.state.close()
    await control.stop()
    again = Agent(tmp_path, control)
    assert again.subscription.complete.is_set()
    async with again.running():
        await until(lambda: again.subscription.stream.terminations["ConnectionError"] > 1)
    assert set(again.subscription.stream.terminations) == {"ConnectionError"}
    assert again.state.workload("c//Pod/default/a") == workload("a")


def test_plain_text_never_leaves_the_machine(tmp_path: Path) -> None:
    with pytest.raises(AmbitError, match="without TLS"):
        ControlPlane("10.0.0.1:15010").channel()
    with pytest.raises(AmbitError, match="root certificate"):
        ControlPlane("10.0.0.1:15012", root=tmp_path / "absent").channel()


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(AmbitError, match="empty"):
        ControlPlane("10.0.0.1:15012", token=tmp_path / "token").metadata()


async def test_a_lost_state_is_asked_for_again(tmp_path: Path, control: ControlPlaneServer) -> None:
    await control.put(to_resource(workload("a")))
    agent = Agent(tmp_path, control)
    agent.state.lost = agent.subscription.begin_anew
    async with agent.running():
        await until(agent.subscription.complete.is_set)
        agent.state.reopen()
        assert not agent.subscription.complete.is_set()
        assert agent.state.workload("c//Pod/default/a") is None
        await until(agent.subscription.complete.is_set)
        assert agent.state.workload("c//Pod/default/a") == workload("a")


@pytest.mark.parametrize(
    ("spoil", "mend", "reason"),
    [
        ("max_page_count = {pages}", "max_page_count = 1000000", "full"),
        ("query_only = ON", "query_only = OFF", "readonly"),
    ],
    ids=["full", "read-only"],
)
async def test_3_what_could_not_be_taken_in_is_rejected_and_there_once_it_can(
    tmp_path: Path, control: ControlPlaneServer, spoil: str, mend: str, reason: str
) -> None:
    await control.put(to_resource(workload("old")))
    agent = Agent(tmp_path, control)
    async with agent.running():
        await until(agent.subscription.complete.is_set)
        pages = agent.state.database.execute("PRAGMA page_count").fetchone()[0]
        agent.state.database.execute(f"PRAGMA {spoil.format(pages=pages)}")
        new = [workload(f"new-{number}-{'h' * 200}") for number in range(500)]
        await control.put(*map(to_resource, new))
        await until(
            lambda: any(isinstance(each, Rejected) and reason in each.error for each in control.events)
        )
        assert agent.state.workload("c//Pod/default/old") == workload("old")
        await until(lambda: reason in agent.subscription.stream.problem, 60)
        agent.state.database.execute(f"PRAGMA {mend}")
        await until(lambda: agent.state.workload(new[-1].uid) == new[-1], 60)
        assert all(agent.state.workload(each.uid) == each for each in new)
        everything = {"c//Pod/default/old", *(each.uid for each in new)}
        # What was stored is applied a moment later.
        await until(lambda: {name for names in agent.applied for name in names} == everything)


async def test_2_what_a_full_disk_does_not_take_is_applied_and_rejected_until_it_is_stored(
    tmp_path: Path, control: ControlPlaneServer
) -> None:
    agent = Agent(tmp_path, control)
    async with agent.running():
        await control.put(to_resource(workload("old")))
        await until(lambda: agent.applied == [("c//Pod/default/old",)])
        with full_disk():
            await control.put(to_resource(workload("new")))
            await until(lambda: agent.applied[1:] == [("c//Pod/default/new",)])
            rejected = "in force from memory only: the node's state could not be stored: disk I/O error"
            await until(lambda: any(getattr(each, "error", "") == rejected for each in control.events))
            assert agent.subscription.stream.connected
            # Another stream, and meanwhile what is only in memory goes.
            await control.stop()
            control.store.update(ADDRESS_TYPE, {}, ["c//Pod/default/new"])
            await control.start()
            await until(lambda: agent.state.workload("c//Pod/default/new") is None)
            await control.put(to_resource(workload("newer")))
            await until(lambda: agent.state.workload("c//Pod/default/newer") is not None)
            control.first.clear()
        await until(lambda: len(control.first) == 2)
    assert set(control.first[1].initial_versions) == {"c//Pod/default/old", "c//Pod/default/newer"}
    assert "unstored" not in control.first[1].initial_versions.values()
    agent.state.close()
    assert Agent(tmp_path, control).state.workload("c//Pod/default/newer") == workload("newer")


async def test_a_refused_resource_keeps_the_node_waiting_until_it_is_mended(
    tmp_path: Path, control: ControlPlaneServer
) -> None:
    await control.put(Resource(name="c//Pod/default/a", version="1", body=b""))
    agent = Agent(tmp_path, control)
    async with agent.running():
        await until(lambda: agent.subscription.rejections == 1)
        assert not agent.subscription.complete.is_set()
        await control.put(to_resource(workload("a")))
        await until(agent.subscription.complete.is_set)


@pytest.mark.parametrize("failure", [AmbitError("no such namespace"), OSError("no such namespace")])
async def test_what_cannot_be_applied_is_rejected_with_its_reason(
    tmp_path: Path, control: ControlPlaneServer, failure: Exception
) -> None:
    await control.put(to_resource(workload("a")))
    agent = Agent(tmp_path, control)
    agent.failure = failure
    async with agent.running():
        await until(lambda: agent.subscription.rejections == 1)
        assert agent.subscription.stream.connected
        await control.put(to_resource(workload("b")))
        await until(lambda: ("c//Pod/default/b",) in agent.applied)


async def test_a_state_found_lost_while_applying_is_opened_anew(
    tmp_path: Path, control: ControlPlaneServer
) -> None:
    await control.put(to_resource(workload("a")))
    agent = Agent(tmp_path, control)
    agent.state.lost = agent.subscription.begin_anew
    agent.failure = StateLost("damaged")
    async with agent.running():
        await until(lambda: len(agent.applied) == 2)
        await until(agent.subscription.complete.is_set)


async def test_a_defect_while_applying_ends_the_agent_and_is_not_swallowed(
    tmp_path: Path, control: ControlPlaneServer
) -> None:
    await control.put(to_resource(workload("a")))
    agent = Agent(tmp_path, control)
    agent.failure = ZeroDivisionError("a defect")
    async with asyncio.timeout(60):
        with pytest.raises(ZeroDivisionError):
            await agent.subscription.run()


async def test_nothing_as_large_as_the_mesh_is_kept_while_nothing_happens(
    tmp_path: Path, control: ControlPlaneServer
) -> None:
    """Neither what was received last, nor on the next stream the request that names all that is held."""
    await control.put(*(to_resource(workload(str(number))) for number in range(5)))
    agent = Agent(tmp_path, control)

    def kept() -> list[object]:
        """Of this test, without what the server itself keeps."""
        gc.collect()
        found = [each for each in gc.get_objects() if isinstance(each, Update | Request)]
        ours = [each for each in found if id(each) not in others and each not in control.first]
        return [
            each for each in ours if (each.resources if isinstance(each, Update) else each.initial_versions)
        ]

    others: set[int] = set()
    others = {id(each) for each in kept()}
    for streams in (1, 2):
        async with agent.running():
            await until(lambda count=2 * streams: len(control.first) == count)  # type: ignore[misc]
            await until(lambda: agent.state.count(ADDRESS_TYPE) == 5)
            await until(lambda: kept() == [])
    assert len(control.first[-1].initial_versions) == 5
