"""A pod that sends the control plane large messages, with a token and without: what they cost, and who waits."""

import asyncio
import functools
import ssl
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from bench.control.agents import Target
from bench.control.http2 import LARGEST_FRAME, Call
from bench.control.objects import pod_name

from ambit.control.server import LARGEST_MESSAGE
from ambit.core.names import CA_TOKEN_AUDIENCE
from ambit.kube import resource as kinds
from ambit.xds import wire
from ambit.xds.protos import ca_pb2
from tests.control.plane import SIZE, Running, running
from tests.control.world import signing_request
from tests.soak import long

CERTIFICATE_PATH = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
CALLS, LENGTH = 24, 60 << 20
ALLOWED = LARGEST_MESSAGE - LARGEST_FRAME
MOST_GROWTH = 50.0
"""MiB."""
MOST_DELAY = 0.5
SECONDS = long(1.0, 60.0)
ATTACKER, VICTIM = "127.0.9.1", "127.0.8.1"
PATIENCE = 60.0


class Arena(NamedTuple):
    plane: Running
    context: ssl.SSLContext
    token: str
    """Of the attacker's pod."""


@pytest.fixture
async def arena(tmp_path: Path) -> AsyncIterator[Arena]:
    async with running(tmp_path) as plane:
        context = ssl.create_default_context(cadata=plane.agents.all[0]._target.root)
        context.set_alpn_protocols(["h2"])
        namespace, name = pod_name(SIZE, 0)
        pod = await plane.client.get(kinds.PODS, name, namespace)
        account = pod["spec"]["serviceAccountName"]
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
        await plane.client.create(kinds.SERVICE_ACCOUNTS, body, namespace)
        bound = (name, pod["metadata"]["uid"])
        answer = await plane.client.token_request(namespace, account, (CA_TOKEN_AUDIENCE,), bound_pod=bound)
        yield Arena(plane, context, answer["token"])


async def call(
    arena: Arena, path: str, token: str, address: str, **more: str
) -> tuple[Call, asyncio.Future[bytes]]:
    """A call on a connection of its own, and its first message or, once the server has ended it, b""."""
    target: Target = arena.plane.agents.all[0]._target
    headers = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", target.name),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *([("authorization", f"Bearer {token}")] if token else []),
        *more.items(),
    ]
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    def settle(message: bytes) -> None:
        if not answer.done():
            answer.set_result(message)

    made = functools.partial(Call, headers, settle, lambda _: settle(b""))
    _, protocol = await loop.create_connection(
        made,
        "127.0.0.1",
        target.port,
        ssl=arena.context,
        server_hostname=target.name,
        local_addr=(address, 0),
    )
    return protocol, answer


async def flood_once(arena: Arena, path: str, token: str, length: int) -> None:
    """A message of this length, all of which shares one chunk of memory here; a negative one lacks its end."""
    chunk = b"x" * LARGEST_FRAME
    try:
        sender, answer = await call(arena, path, token, ATTACKER)
    except OSError:
        return
    frames = abs(length) // LARGEST_FRAME - (length < 0)
    sender._unsent += [b"\0" + abs(length).to_bytes(4, "big"), *[chunk] * frames]
    sender._flush()
    await asyncio.wait([answer], timeout=SECONDS)
    sender.close()


async def flood(arena: Arena, path: str, token: str, length: int, stop: asyncio.Event) -> None:
    """24 messages at a time, again and again."""

    async def repeat() -> None:
        while not stop.is_set():
            await flood_once(arena, path, token, length)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLS):
            group.create_task(repeat())


async def certificate_seconds(arena: Arena, csr: bytes) -> float:
    """How long a node agent waits for a certificate on a new connection."""
    begin = time.monotonic()
    sender, answer = await call(arena, CERTIFICATE_PATH, arena.plane.agents.all[1]._headers[6][1][7:], VICTIM)
    sender.send(csr)
    message = await asyncio.wait_for(answer, PATIENCE)
    sender.close()
    assert ca_pb2.IstioCertificateResponse.FromString(message).cert_chain
    return time.monotonic() - begin


async def median_wait(arena: Arena, csr: bytes, seconds: float) -> float:
    end, waits = time.monotonic() + seconds, []
    while not waits or time.monotonic() < end:
        waits.append(await certificate_seconds(arena, csr))
        await asyncio.sleep(0.05)
    return statistics.median(waits)


def reset_peak(arena: Arena) -> float:
    """Resident MiB of the control plane, from which its peak counts on."""
    process = arena.plane.plane._process
    assert process is not None
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return arena.plane.plane.usage().resident


def csr_of_victim() -> bytes:
    namespace, _ = pod_name(SIZE, 1)
    csr = signing_request(f"spiffe://cluster.local/ns/{namespace}/sa/svc-1")
    return ca_pb2.IstioCertificateRequest(csr=csr, validity_duration=3600).SerializeToString()


async def test_large_messages_cost_little_and_delay_no_certificate(arena: Arena) -> None:
    csr = csr_of_victim()
    await median_wait(arena, csr, 0.5)
    quiet = await median_wait(arena, csr, 0.5)
    cases = [
        ("no token", CERTIFICATE_PATH, "", LENGTH),
        ("forged token", CERTIFICATE_PATH, "forged", LENGTH),
        ("a pod's token", CERTIFICATE_PATH, arena.token, LENGTH),
        ("a pod's token, just allowed", CERTIFICATE_PATH, arena.token, ALLOWED),
        ("a pod's token, never complete", CERTIFICATE_PATH, arena.token, -ALLOWED),
        ("a pod's token, configuration", wire.METHOD, arena.token, ALLOWED),
    ]
    for name, path, token, length in cases:
        before = reset_peak(arena)
        stop = asyncio.Event()
        flooding = asyncio.create_task(flood(arena, path, token, length, stop))
        waits = await median_wait(arena, csr, SECONDS)
        stop.set()
        await flooding
        usage = arena.plane.plane.usage()
        assert usage.peak - before < MOST_GROWTH, name
        assert waits - quiet < MOST_DELAY, name
