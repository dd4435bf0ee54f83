"""What the node trusts: rules 1 to 5 of `ambit.node.upstream.trust`."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ambit.agent.certificates import Certificates
from ambit.agent.csr import Certificate, checked, new_key, signing_request
from ambit.agent.publication import Publication
from ambit.ca.authority import Authority
from ambit.ca.trust import Trust
from ambit.core.errors import Unreachable
from ambit.core.names import TRUST_ANNOTATION
from ambit.node.state.certificates import KeptCertificates
from ambit.node.state.mesh import MeshState
from ambit.node.upstream.trust import TrustFollower
from tests.agent.test_certificates import WEB
from tests.ca.authorities import revoked_by
from tests.node.world import Api, until

NOW = dt.datetime.now(dt.UTC)
OLD, NEW = (Authority.create("cluster.local", NOW - dt.timedelta(days=1)) for _ in range(2))


class Envoy:
    """What Envoy was given; `rejection` is what it says to it."""

    def __init__(self) -> None:
        self.bundles: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.rejection = ""

    def spread(self, bundle: str) -> Publication:
        self.bundles.append(bundle)
        return Publication({}, {})

    def settled(self) -> "Envoy":
        return self

    async def wait(self) -> str | None:
        await self.answers.wait()
        return self.rejection or None


class Answer:
    """An awaited publication."""

    def __init__(self, envoy: Envoy) -> None:
        self._envoy = envoy

    async def settled(self) -> str | None:
        return await self._envoy.wait()


class World:
    def __init__(self, path: Path) -> None:
        self.api = Api()
        self.envoy = Envoy()
        self.signing = OLD
        self.path = path
        self.api.put("pods", {"metadata": {"namespace": "ambit-system", "name": "agent"}})
        self.open()

    def open(self) -> None:
        self.state = MeshState(self.path)
        self.certificates = Certificates(self.sign, KeptCertificates(self.state), self.certified)
        self.trust = TrustFollower(
            self.api,  # type: ignore[arg-type]
            ("ambit-system", "agent"),
            self.state,
            self.certificates,
            self.envoy.spread,
            lambda: Answer(self.envoy),  # type: ignore[arg-type, return-value]
        )

    def certified(self, certificate: Certificate) -> None:
        self.trust.certified(certificate)

    async def sign(self, identity, csr):  # type: ignore[no-untyped-def]
        from ambit.ca.request import parse_request

        return self.signing.issue(identity, parse_request(csr).public_key, dt.datetime.now(dt.UTC))

    def publish(self, trust: Trust) -> None:
        data = {"root-cert.pem": trust.roots, "ca-crl.pem": trust.revoked, "signer": trust.signer}
        self.api.put(
            "configmaps", {"metadata": {"namespace": "ambit-system", "name": "ambit-trust"}, "data": data}
        )

    @property
    def acknowledged(self) -> str:
        pod = self.api.objects["pods"]["ambit-system", "agent"]
        digest: str = pod["metadata"].get("annotations", {}).get(TRUST_ANNOTATION, "")
        return digest

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(each) for each in (self.trust.run(), self.certificates.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state.sqlite")


BOTH = Trust(OLD.roots + NEW.roots, "", OLD.signer)
RENEWING = Trust(BOTH.roots, "", NEW.signer)


async def test_a_damaged_root_is_logged_and_the_others_go_to_envoy(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    async with world.running():
        world.publish(Trust(OLD.roots + damaged, "", OLD.signer))
        await until(lambda: world.trust.trust is not None)
    assert world.envoy.bundles[-1] == OLD.roots
    (said,) = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
    assert said.startswith("ConfigMap ambit-system/ambit-trust, root-cert.pem: PEM block 2 cannot be read")


async def test_1_and_2_a_trust_is_acknowledged_when_envoy_and_all_certificates_have_it(world: World) -> None:
    world.envoy.answers.clear()
    async with world.running():
        world.certificates.want(WEB)
        await world.certificates.obtain(WEB)
        world.publish(BOTH)
        await until(lambda: world.envoy.bundles[-1:] == [BOTH.roots])
        assert world.acknowledged == ""
        world.envoy.answers.set()
        await until(lambda: world.acknowledged == BOTH.digest)

        world.publish(RENEWING)
        await until(lambda: world.certificates.strays == [WEB])
        assert world.acknowledged == BOTH.digest
        # The spread of renewals over minutes is the certificates' own test.
        world.signing = NEW
        world.certificates._entries[WEB].due = 0.0
        world.certificates._wake.set()
        await until(lambda: world.acknowledged == RENEWING.digest)


async def test_2_what_envoy_rejects_is_not_acknowledged(world: World) -> None:
    world.envoy.rejection = "no such thing"
    async with world.running():
        world.publish(BOTH)
        await until(lambda: world.trust.problem == "no such thing")
        assert world.acknowledged == ""
        world.envoy.rejection = ""
        world.publish(Trust(NEW.roots, "", OLD.signer))
        await until(lambda: world.acknowledged == Trust(NEW.roots, "", OLD.signer).digest)


async def test_2_an_acknowledgement_is_written_again_after_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch, tried = world.api.patch, []

    async def away(*words, **more):  # type: ignore[no-untyped-def]
        tried.append(words)
        if len(tried) == 1:
            raise Unreachable("away")
        return await patch(*words, **more)

    monkeypatch.setattr(world.api, "patch", away)
    async with world.running():
        world.publish(BOTH)
        await until(lambda: world.acknowledged == BOTH.digest)
    assert len(tried) == 2


async def test_3_the_newest_trust_is_kept(world: World) -> None:
    async with world.running():
        world.publish(BOTH)
        await until(lambda: world.acknowledged == BOTH.digest)
    world.state.close()
    world.open()
    world.envoy.bundles.clear()
    world.trust.restore()
    assert world.trust.trust == BOTH and world.trust.roots == BOTH.roots
    assert world.envoy.bundles == [BOTH.roots]


async def test_3_nonsense_changes_nothing(world: World) -> None:
    async with world.running():
        world.publish(BOTH)
        await until(lambda: world.trust.trust == BOTH)
        for nonsense in (Trust("", "", "x"), Trust("no certificate", "", "x"), Trust(NEW.roots, "", "")):
            world.publish(nonsense)
        world.publish(RENEWING)
        await until(lambda: world.trust.trust == RENEWING)
        assert world.envoy.bundles == [BOTH.roots, BOTH.roots]


async def test_4_what_is_newly_revoked_is_told(world: World) -> None:
    told: list[int] = []
    world.trust.revoked = lambda _: told.append(len(world.envoy.bundles))
    first, more = (revoked_by(OLD, serials, NOW, dt.timedelta(days=1)) for serials in ([1, 2], [1, 2, 3]))
    async with world.running():
        for lists, count in (("", 0), (first, 1), (more, 2), (first, 2), ("", 2), (more, 3)):
            trust = Trust(BOTH.roots, lists, OLD.signer)
            world.publish(trust)
            await until(lambda trust=trust: world.acknowledged == trust.digest)  # type: ignore[misc]
            assert len(told) == count


async def test_5_without_the_configmap_the_certificates_roots_count(world: World) -> None:
    key = new_key()
    certificate = checked(WEB, key, await world.sign(WEB, signing_request(WEB, key)))
    world.trust.certified(certificate)
    assert world.envoy.bundles == [OLD.roots]
    world.trust._take(Trust(NEW.roots, "lists", NEW.signer))
    assert world.envoy.bundles[-1] == NEW.roots + OLD.roots + "lists", "of another mesh: both count"
    world.trust._take(Trust(OLD.roots + NEW.roots, "lists", NEW.signer))
    assert world.envoy.bundles[-1] == OLD.roots + NEW.roots + "lists"
