"""A node that was taken over: whatever it sends, others are served, and it gets no certificate but its pods'."""

import asyncio
import contextlib
import datetime as dt

import grpc
import pytest
from cryptography import x509
from envoy.service.discovery.v3 import discovery_pb2 as discovery
from hypothesis import given
from hypothesis import strategies as st

from ambit.model.service import Service
from ambit.xds import wire
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.control.test_discovery import POLICY, settled, updates, workload
from tests.control.world import World, Ztunnel, pod_json, signing_request
from tests.soak import fuzz

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
WEB = "spiffe://cluster.local/ns/shop/sa/web"
DB = "spiffe://cluster.local/ns/shop/sa/db"
LONGEST = dt.timedelta(days=1)
PATIENCE = 60.0

NAMES = st.one_of(
    st.sampled_from(
        ["*", "", "/", "\0", "Kubernetes//Pod/shop/web-0", "shop/deny", "/10.0.0.1", "x" * 70_000]
    ),
    st.text(max_size=8),
)
TYPE_URLS = st.one_of(*[st.sampled_from([ADDRESS_TYPE, AUTHORIZATION_TYPE])] * 4, st.text(max_size=9))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One message; sometimes none at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(min_size=1, max_size=40))
    made = discovery.DeltaDiscoveryRequest(
        type_url=draw(TYPE_URLS),
        resource_names_subscribe=draw(st.lists(NAMES, max_size=3)),
        resource_names_unsubscribe=draw(st.lists(NAMES, max_size=3)),
        initial_resource_versions=draw(st.dictionaries(NAMES, st.text(max_size=3), max_size=3)),
        response_nonce=draw(st.text(max_size=3)),
    )
    if draw(st.booleans()):
        made.error_detail.message = draw(st.text(max_size=20))
    sent: bytes = made.SerializeToString()
    return sent


async def play(script: list[bytes]) -> None:
    world = World()
    async with world.serving():
        web = workload("web-0")
        service = Service(name="web", namespace="shop", hostname="web.shop.svc")
        world.discovery.publish(updates(web, service, POLICY))
        async with world.channel() as channel:
            metadata = (("authorization", "Bearer token-of-node1"), ("clusterid", "Kubernetes"))
            call = channel.stream_stream(wire.METHOD)(metadata=metadata)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                for message in script:
                    await call.write(message)
            async with Ztunnel(world).connected() as honest, asyncio.timeout(PATIENCE):
                while not (honest.kept[ADDRESS_TYPE] and honest.kept[AUTHORIZATION_TYPE]):
                    await honest.receive()
                assert set(honest.kept[ADDRESS_TYPE]) == {web.key, service.key}
                assert set(honest.kept[AUTHORIZATION_TYPE]) == {POLICY.key}
            call.cancel()
        await settled(lambda: world.discovery.status() == [])


@fuzz(25)
@given(st.lists(requests(), min_size=1, max_size=5))
def test_others_are_served(script: list[bytes]) -> None:
    asyncio.run(play(script))


def damaged(position: int, byte: int) -> str:
    text = bytearray(signing_request(WEB).encode())
    text[position % len(text)] = byte
    return text.decode("latin-1")


CSRS = st.one_of(
    st.text(max_size=100),
    st.builds(damaged, st.integers(0, 10_000), st.integers(0, 127)),
    st.lists(
        st.sampled_from([WEB, WEB.replace("web", "db"), WEB.replace("cluster.local", "x"), "https://a", "*"]),
        max_size=3,
    ).map(lambda uris: signing_request(*uris)),
)
IDENTITIES = st.one_of(
    st.none(),
    st.just(WEB),
    st.sampled_from(["", WEB + "/", WEB.upper(), WEB.replace("web", "db")]),
    st.text(max_size=9),
)
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


async def sign(csr: str, impersonate: str | None, seconds: int) -> None:
    world = World()
    world.api.pods.append(pod_json("web-0"))
    async with world.serving():
        try:
            chain = await world.certificate(csr, impersonate=impersonate, seconds=seconds)
        except grpc.aio.AioRpcError as refusal:
            assert refusal.code() in REFUSED, refusal.details()
            return
        leaf = x509.load_pem_x509_certificate(chain[0].encode())
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [WEB]
        assert len(list(names)) == 1
        assert leaf.not_valid_after_utc - world.now <= LONGEST


@fuzz(30)
@given(CSRS, IDENTITIES, st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, 86_400])))
def test_it_gets_certificates_of_its_pods_only(csr: str, impersonate: str | None, seconds: int) -> None:
    asyncio.run(sign(csr, impersonate, seconds))
