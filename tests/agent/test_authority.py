"""Calls to the authority: what becomes of the channel when nobody answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from ambit.agent import authority
from ambit.agent.authority import METHOD, Authority, parse_maximum
from ambit.agent.channel import ControlPlane
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.xds.protos import ca_pb2
from tests.node.world import until

WEB = Identity("cluster.local", "shop", "web")


class Replicas:
    """Answers calls one after the other; those for `silent` never."""

    def __init__(self) -> None:
        self.peers: list[str] = []
        self.silent = asyncio.Event()

        self.requested: list[int] = []
        self.maximum = 0

    async def sign(
        self, request: ca_pb2.IstioCertificateRequest, context: grpc.aio.ServicerContext
    ) -> ca_pb2.IstioCertificateResponse:
        self.peers.append(context.peer())
        self.requested.append(request.validity_duration)
        if self.maximum and request.validity_duration > self.maximum:
            text = "CSR signing error (requested TTL 24h0m0s is greater than the max allowed TTL 1h30m0s)"
            await context.abort(grpc.StatusCode.INTERNAL, text)
        if self.silent.is_set():
            await asyncio.Event().wait()
        return ca_pb2.IstioCertificateResponse(cert_chain=["certificate"])


@asynccontextmanager
async def served(replicas: Replicas) -> AsyncIterator[Authority]:
    server = grpc.aio.server()
    service, _, method = METHOD.strip("/").partition("/")
    handler = grpc.unary_unary_rpc_method_handler(
        replicas.sign,
        request_deserializer=ca_pb2.IstioCertificateRequest.FromString,
        response_serializer=ca_pb2.IstioCertificateResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    made = Authority(ControlPlane(f"127.0.0.1:{port}"))
    try:
        yield made
    finally:
        await made.close()
        await server.stop(None)


async def test_calls_share_a_connection() -> None:
    replicas = Replicas()
    async with served(replicas) as made:
        assert await made.sign(WEB, "request") == ["certificate"]
        assert await made.sign(WEB, "request") == ["certificate"]
    assert len(set(replicas.peers)) == 1


async def test_an_authority_with_a_lower_maximum_is_asked_for_that() -> None:
    replicas = Replicas()
    replicas.maximum = 5_400
    async with served(replicas) as made:
        assert await made.sign(WEB, "request") == ["certificate"]
        assert await made.sign(WEB, "request") == ["certificate"]
    assert replicas.requested == [86_400, 5_400, 5_400]


@pytest.mark.parametrize(
    ("refusal", "seconds"),
    [
        ("requested TTL 24h0m0s is greater than the max allowed TTL 1h0m0s", 3600.0),
        ("... max allowed TTL 90s)", 90.0),
        ("... max allowed TTL 1m0.5s", 60.5),
        ("... max allowed TTL 500ms", 0.5),
        ("... max allowed TTL soon", None),
        ("permission_denied: no enrolled pod", None),
    ],
)
def test_the_maximum_in_a_refusal(refusal: str, seconds: float | None) -> None:
    assert parse_maximum(refusal) == seconds


async def test_a_maximum_that_helps_nothing_is_a_refusal() -> None:
    replicas = Replicas()
    replicas.maximum = 100
    async with served(replicas) as made:
        with pytest.raises(AmbitError, match="max allowed TTL"):
            await made.sign(WEB, "request")
    assert replicas.requested == [86_400, 5_400]


async def test_who_answers_no_more_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several calls wait when their time is over: all fail, and those after them have one connection, a new one."""
    replicas = Replicas()
    async with served(replicas) as made:
        await made.sign(WEB, "request")
        monkeypatch.setattr(authority, "_TIMEOUT", 2.0)
        replicas.silent.set()
        asking = asyncio.gather(*(made.sign(WEB, "request") for _ in range(3)), return_exceptions=True)
        await until(lambda: len(replicas.peers) == 4)
        asked = await asking
        assert all(isinstance(each, AmbitError) and "deadline_exceeded" in each.message for each in asked)
        former = set(replicas.peers)
        assert len(former) == 1
        replicas.silent.clear()
        replicas.peers.clear()
        monkeypatch.setattr(authority, "_TIMEOUT", 60.0)
        await asyncio.gather(*(made.sign(WEB, "request") for _ in range(3)))
    assert len(set(replicas.peers)) == 1
    assert not set(replicas.peers) & former
