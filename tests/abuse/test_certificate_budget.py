"""A pod that requests certificates as fast as it can: its node's agent and other pods get theirs meanwhile."""

import asyncio

import grpc
import pytest

from ambit.control.settings import Settings
from tests.control.world import World, pod_json, review, signing_request
from tests.soak import long

CALLS = long(150, 2_000)


def add_pod(world: World, name: str, namespace: str) -> str:
    """A pod of the node with a token of its own; the token."""
    world.api.namespaces[namespace] = {"istio.io/dataplane-mode": "ambient"}
    world.watch_pod(pod_json(name, namespace, name))
    token = f"token-of-{name}"
    world.api.reviews[token] = review(namespace, name, name, f"uid-{name}")
    return token


async def attempt(world: World, token: str, csr: str) -> bool:
    """Whether a certificate was issued. Raises what is no refusal for the number of requests."""
    try:
        await world.certificate(csr, token=token)
    except grpc.aio.AioRpcError as refusal:
        if refusal.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


@pytest.fixture
async def world():
    world = World()
    world.watch_pod(pod_json("agent", "ambit-system", "ztunnel"))
    async with world.serving():
        yield world


async def test_one_pod_takes_no_certificates_from_its_node_and_other_pods(world):
    attacker = add_pod(world, "attacker", "theirs")
    victim = add_pod(world, "victim", "shop")
    theirs = signing_request("spiffe://cluster.local/ns/theirs/sa/attacker")
    issued = 0
    for _ in range(0, CALLS, 50):
        issued += sum(await asyncio.gather(*(attempt(world, attacker, theirs) for _ in range(50))))
    # The pod was refused: else the test would show nothing.
    assert issued < CALLS
    ours = signing_request("spiffe://cluster.local/ns/shop/sa/victim")
    assert await attempt(world, victim, ours), "another pod of the node requests its own"
    await world.certificate(ours)
    # The node's agent has its whole budget.
    burst = world.settings.certificate_burst
    assert all([await attempt(world, "token-of-node1", ours) for _ in range(burst - 1)])
    assert not await attempt(world, "token-of-node1", ours)


async def test_a_pod_has_a_small_share_of_an_agents_budget():
    settings = Settings()
    assert settings.pod_certificate_rate <= settings.certificate_rate / 10
    assert settings.pod_certificate_burst <= settings.certificate_burst / 10
