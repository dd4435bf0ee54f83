"""A control plane that was taken over, or is broken: whatever it sends, the agent goes on and can be put right."""

import asyncio
import tempfile
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2 as discovery
from hypothesis import given
from hypothesis import strategies as st

from ambit.agent.channel import ControlPlane
from ambit.core.identity import Identity
from ambit.model.service import Service
from ambit.model.workload import Port, Workload
from ambit.node.state.mesh import MeshState, Stored
from ambit.node.upstream.subscription import Subscription
from ambit.xds.frames import Node
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE, TYPES, to_resource
from ambit.xds.wire import METHOD_NAME, SERVICE
from tests.node.world import until
from tests.soak import fuzz

WEB = Workload(
    uid="c1//Pod/shop/web-0",
    name="web-0",
    namespace="shop",
    identity=Identity("cluster.local", "shop", "web"),
    cluster_id="c1",
    services={"shop/web.shop.svc": (Port(80, 8080),)},
)
NAMES = st.sampled_from(
    [WEB.uid, "shop/web.shop.svc", "shop/policy", "trust", "", "/", "\0", "*", "x" * 70_000]
)
HONEST = [to_resource(WEB), to_resource(Service(name="web", namespace="shop", hostname="web.shop.svc"))]
BODIES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([each.body for each in HONEST]),
    # An honest body with one byte changed, inserted or cut off.
    st.tuples(
        st.sampled_from([each.body for each in HONEST]), st.integers(0, 200), st.binary(max_size=2)
    ).map(lambda made: made[0][: made[1]] + made[2] + made[0][made[1] + 1 :]),
)
KINDS = st.sampled_from([ADDRESS_TYPE, AUTHORIZATION_TYPE])


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """One message, of a type that was asked for; sometimes no message at all."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(min_size=1, max_size=20))
    made = discovery.DeltaDiscoveryResponse(
        type_url=draw(st.one_of(*[KINDS] * 9, st.just("type.googleapis.com/x"))),
        nonce=draw(st.text(max_size=3)),
        removed_resources=draw(st.lists(NAMES, max_size=2)),
    )
    data: bytes = made.SerializeToString()
    for _ in range(draw(st.integers(0, 3))):
        resource = discovery.Resource(name=draw(NAMES), version=draw(st.text(max_size=3)))
        encoded = resource.SerializeToString() + _field(2, draw(BODIES))
        data += _field(2, encoded)
    return data


def _field(number: int, content: bytes) -> bytes:
    length, out = len(content), bytearray([number << 3 | 2])
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*out, length]) + content


class Hostile:
    """Sends a script on its first stream, and after that what is true."""

    def __init__(self, script: list[bytes]) -> None:
        self.script = script
        self.answers = 0
        self.streams = 0

    async def serve(self, _requests: object, context: grpc.aio.ServicerContext) -> None:
        self.streams += 1
        if self.streams == 1:
            for data in self.script:
                await context.write(data)
            return
        kept: dict[str, list[str]] = {kind: [] for kind in TYPES}
        for _ in TYPES:
            request = discovery.DeltaDiscoveryRequest.FromString(await context.read())
            kept[request.type_url] = list(request.initial_resource_versions)
        for kind in TYPES:
            response = discovery.DeltaDiscoveryResponse(type_url=kind, nonce=kind)
            true = HONEST if kind == ADDRESS_TYPE else []
            response.removed_resources.extend(set(kept[kind]) - {each.name for each in true})
            for each in true:
                resource = response.resources.add(name=each.name, version=each.version)
                resource.resource.ParseFromString(each.body)
            await context.write(response.SerializeToString())
        while (data := await context.read()) is not grpc.aio.EOF:
            answer = discovery.DeltaDiscoveryRequest.FromString(data)
            self.answers += answer.response_nonce in TYPES and not answer.HasField("error_detail")


async def _play(directory: Path, script: list[bytes]) -> None:
    hostile = Hostile(script)
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(hostile.serve)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD_NAME: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    state = MeshState(directory / "mesh.sqlite")
    state.keep("trust", b"of the agent's own")

    async def applied(stored: Stored) -> None:
        # What the agent does with a change reads values back.
        for name in stored.changed:
            state.workload(name), state.service(name), state.authorization(name)

    subscription = Subscription(ControlPlane(f"127.0.0.1:{port}"), Node("n"), state, applied)
    running = asyncio.ensure_future(subscription.run())
    try:
        await until(lambda: hostile.answers == len(TYPES) or running.done(), 60)
        assert not running.done(), running.exception()
        assert subscription.complete.is_set()
        assert set(state.versions(ADDRESS_TYPE)) == {each.name for each in HONEST}
        assert state.versions(AUTHORIZATION_TYPE) == {}
        service = state.service("shop/web.shop.svc")
        assert service is not None and state.endpoints(service) == (WEB,)
        assert state.kept("trust") == b"of the agent's own"
    finally:
        running.cancel()
        await asyncio.wait([running])
        await server.stop(None)
        state.close()


def test_bytes_that_are_no_message_end_the_stream_and_not_the_agent(tmp_path: Path) -> None:
    asyncio.run(_play(tmp_path, [b"\0"]))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@fuzz(25)
@given(st.lists(responses(), min_size=1, max_size=5))
def test_the_agent_goes_on_and_can_be_put_right(script: list[bytes]) -> None:
    """Its own values are out of reach, and what is true in the end holds."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_play(Path(directory), script))
