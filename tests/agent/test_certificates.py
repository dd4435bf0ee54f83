"""Certificates of the node's pods: rules 1 to 4 of `ambit.agent.certificates`."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ambit.agent import certificates as module
from ambit.agent.certificates import Certificates
from ambit.agent.csr import Certificate, checked, new_key, signing_request
from ambit.ca.authority import Authority
from ambit.ca.request import parse_request
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.node.state.certificates import KeptCertificates
from ambit.node.state.mesh import MeshState
from tests.node.world import until

WEB = Identity("cluster.local", "default", "web")
OTHER = Identity("cluster.local", "default", "other")
THIRD = Identity("cluster.local", "default", "third")
NOW = 1_800_000_000.0


class World:
    """A clock, an authority that may refuse, and what was told."""

    def __init__(self, path: Path) -> None:
        self.now = NOW
        self.elapsed = 0.0
        self.lifetime = dt.timedelta(0)
        self.authority = Authority.create(
            "cluster.local", dt.datetime.fromtimestamp(NOW - 86_400 * 30, dt.UTC)
        )
        self.refusal = ""
        self.order: list[Identity] = []
        self.issued: asyncio.Queue[Certificate] = asyncio.Queue()
        self.state = MeshState(path)
        self.certificates = self.agent()

    def agent(self) -> Certificates:
        return Certificates(
            self.sign,
            KeptCertificates(self.state),
            self.issued.put_nowait,
            lambda: self.now,
            lambda: self.elapsed,
        )

    async def sign(self, identity: Identity, csr: str) -> list[str]:
        self.order.append(identity)
        if self.refusal:
            raise AmbitError(self.refusal)
        request = parse_request(csr)
        assert request.identity == identity
        now = dt.datetime.fromtimestamp(self.now, dt.UTC)
        return self.authority.issue(identity, request.public_key, now, self.lifetime)

    def passes(self, seconds: float) -> None:
        """Time passes, for both clocks."""
        self.now += seconds
        self.elapsed += seconds

    async def next(self) -> Certificate:
        async with asyncio.timeout(60):
            return await self.issued.get()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state.sqlite")


@asynccontextmanager
async def running(certificates: Certificates) -> AsyncIterator[None]:
    task = asyncio.ensure_future(certificates.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_wanted_identity_gets_a_certificate(world: World) -> None:
    async with running(world.certificates):
        world.certificates.want(WEB)
        certificate = await world.next()
        assert certificate.identity == WEB
        assert world.certificates.get(WEB) == certificate
        assert await world.certificates.obtain(WEB) == certificate
        with pytest.raises(AmbitError, match="nobody here"):
            await world.certificates.obtain(OTHER)


async def test_2_it_is_renewed_at_half_life_with_a_new_key(world: World) -> None:
    async with running(world.certificates):
        world.certificates.want(WEB)
        first = await world.next()
        half = first.not_before + (first.not_after - first.not_before) / 2
        assert first.renew_at(0) == half
        assert first.renew_at(1) < half
        world.now = half
        world.certificates.want(OTHER)
        renewed = {
            certificate.identity: certificate for certificate in [await world.next(), await world.next()]
        }
        assert renewed[WEB].key != first.key


async def test_2_a_clock_that_is_set_back_renews(world: World) -> None:
    async with running(world.certificates):
        world.certificates.want(WEB)
        await world.next()
        world.now = NOW - 86_400
        world.certificates.want(OTHER)
        assert {(await world.next()).identity, (await world.next()).identity} == {WEB, OTHER}
        assert world.certificates.get(WEB) is not None


async def test_3_a_failed_renewal_keeps_the_valid_certificate_until_its_end(world: World) -> None:
    async with running(world.certificates):
        world.certificates.want(WEB)
        first = await world.next()
        world.refusal = "the authority is on holiday"
        world.now = first.not_after - 60
        world.certificates.want(OTHER)
        await until(lambda: any(each.problem for each in world.certificates.states() if each.identity == WEB))
        assert world.certificates.get(WEB) == first
        world.now = first.not_after
        assert world.certificates.get(WEB) is None
        with pytest.raises(AmbitError, match="on holiday"):
            await world.certificates.obtain(WEB)


async def test_2_an_authority_with_another_clock_is_not_asked_without_end(world: World) -> None:
    """What it signs is past half of its life when it comes."""
    async with running(world.certificates):
        world.certificates.want(WEB)
        first = await world.next()
        sign = world.authority.issue
        late = dt.timedelta(hours=20)
        world.authority.issue = lambda identity, key, now, lifetime=late: sign(identity, key, now - late)  # type: ignore[method-assign]
        world.passes(43_200)
        world.certificates.want(OTHER)
        assert {(await world.next()).identity, (await world.next()).identity} == {WEB, OTHER}
        [held, other] = sorted(world.certificates.states(), key=lambda each: each.identity != WEB)
        assert held.certificate is not None and held.certificate.not_before < first.not_before + 43_200
        for each in (held, other):
            assert each.due >= world.now + 60


async def test_3_back_off_of_a_jumped_clock_is_forgotten(world: World) -> None:
    async with running(world.certificates):
        world.certificates.want(WEB)
        first = await world.next()
        world.refusal = "not valid now"
        world.now += 10 * 86_400
        world.certificates.want(OTHER)
        await until(lambda: all(each.problem for each in world.certificates.states()))
        world.now = NOW + 60
        world.certificates.want(THIRD)
        await until(lambda: all(each.problem for each in world.certificates.states()))
        [web] = [each for each in world.certificates.states() if each.identity == WEB]
        assert web.certificate == first and NOW + 34_000 < web.due < NOW + 43_300


async def test_3_a_renewal_is_repeated_more_often_near_the_end(world: World) -> None:
    world.lifetime = dt.timedelta(seconds=60)
    async with running(world.certificates):
        world.certificates.want(WEB)
        first = await world.next()
        world.refusal = "away"
        # Half of the life without the authority.
        world.passes(first.renew_at(0) - world.now)
        asked = len(world.order)
        while world.now < first.not_after - 1:
            world.certificates.want(OTHER)
            await until(lambda asked=asked: len(world.order) > asked)  # type: ignore[misc]
            await until(lambda: all(each.due > world.now for each in world.certificates.states()))
            asked = len(world.order)
            [web] = [each for each in world.certificates.states() if each.identity == WEB]
            assert web.due - world.now <= max(0.6, (first.not_after - world.now) / 8 * 1.21)
            world.passes(max(0.5, web.due - world.now))
            world.certificates.forget(OTHER)
        world.refusal = ""
        world.certificates.want(THIRD)
        renewed = {(await world.next()).identity, (await world.next()).identity}
        assert renewed == {WEB, THIRD}, "within the last second, too"
        assert first.valid(world.now)


async def test_5_a_revoked_certificate_is_replaced_at_once(world: World) -> None:
    async with running(world.certificates):
        world.certificates.want(WEB)
        world.certificates.want(OTHER)
        held = {each.identity: each for each in (await world.next(), await world.next())}
        world.certificates.replace({held[WEB].serial, 4711})
        assert (await world.next()).identity == WEB
        assert world.certificates.get(OTHER) == held[OTHER]


async def test_5_certificates_of_a_former_authority_are_renewed_soon(world: World) -> None:
    async with running(world.certificates):
        world.certificates.want(WEB)
        first = await world.next()
        new = Authority.create("cluster.local", dt.datetime.fromtimestamp(NOW - 86_400, dt.UTC))
        world.certificates.follow(first.signer)
        assert world.certificates.strays == []
        world.certificates.follow(new.signer)
        assert world.certificates.strays == [WEB]
        [state] = world.certificates.states()
        assert state.due <= world.now + 303, "within five minutes, though it lives for a day"
        world.passes(303)
        world.certificates.want(OTHER)
        assert {(await world.next()).identity, (await world.next()).identity} == {WEB, OTHER}
        assert set(world.certificates.strays) == {WEB, OTHER}, "a replica that lags signs with the former key"
        assert all(each.due <= world.now + 61 for each in world.certificates.states())
        world.authority = new
        world.passes(61)
        world.certificates.want(THIRD)
        await until(lambda: not world.certificates.strays)


async def test_4_who_waits_is_served_at_once_despite_back_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FIRST_RETRY", "_LAST_RETRY"):
        monkeypatch.setattr(module, name, 3600.0)
    world.refusal = "not yet"
    async with running(world.certificates):
        world.certificates.want(WEB)
        await until(lambda: len(world.order) == 1)
        world.refusal = ""
        async with asyncio.timeout(60):
            assert (await world.certificates.obtain(WEB)).identity == WEB


async def test_a_restarted_agent_uses_the_stored_certificate(world: World) -> None:
    async with running(world.certificates):
        world.certificates.want(WEB)
        first = await world.next()
    world.refusal = "gone"
    again = world.agent()
    again.want(WEB)
    assert again.get(WEB) == first


async def test_a_forgotten_identity_leaves_no_key_on_disk(world: World) -> None:
    async with running(world.certificates):
        world.certificates.want(WEB)
        await world.next()
        world.certificates.forget(WEB)
        assert world.certificates.get(WEB) is None
        assert world.state.database.execute("SELECT count(*) FROM certificate").fetchone() == (0,)


async def test_an_answer_for_another_identity_or_key_is_refused(world: World) -> None:
    key = new_key()
    answer = await world.sign(OTHER, signing_request(OTHER, key))
    with pytest.raises(ValueError, match=r"is for spiffe://cluster\.local/ns/default/sa/other"):
        checked(WEB, key, answer)
    with pytest.raises(ValueError, match="not for the key"):
        checked(OTHER, new_key(), answer)
    with pytest.raises(ValueError, match="no root"):
        checked(OTHER, key, answer[:1])


async def test_3_a_control_plane_that_answers_again_ends_back_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FIRST_RETRY", "_LAST_RETRY"):
        monkeypatch.setattr(module, name, 3600.0)
    async with running(world.certificates):
        world.certificates.want(WEB)
        first = await world.next()
        world.refusal = "away"
        world.passes(first.not_after - world.now)
        world.certificates.want(OTHER)
        await until(lambda: all(each.due > world.now + 300 for each in world.certificates.states()))
        world.refusal = ""
        world.certificates.retry()
        assert {(await world.next()).identity, (await world.next()).identity} == {WEB, OTHER}


async def test_3_an_expired_certificate_is_reported_once_its_renewal_has_failed(world: World) -> None:
    expired: list[Identity] = []
    world.certificates.expired = expired.append
    async with running(world.certificates):
        world.certificates.want(WEB)
        first = await world.next()
        # The clock jumps, and the renewal works.
        world.passes(first.not_after - world.now + 1)
        world.certificates.want(OTHER)
        assert {(await world.next()).identity, (await world.next()).identity} == {WEB, OTHER}
        assert expired == []
        second = world.certificates.get(WEB)
        assert second is not None
        world.refusal = "away"
        world.passes(second.not_after - world.now + 1)
        world.certificates.want(THIRD)
        await until(lambda: len(expired) == 2)
        world.certificates.retry()
        await until(lambda: len(world.order) >= 8)
    assert sorted(expired) == sorted([WEB, OTHER]), "each once"
