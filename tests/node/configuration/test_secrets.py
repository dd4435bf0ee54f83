"""Certificates and trust that Envoy has: rules 1 and 2 of `ambit.node.configuration.secrets`."""

import datetime as dt
from pathlib import Path

import pytest

from ambit.agent.csr import Certificate, checked, new_key
from ambit.agent.envoy_server import EnvoyServer
from ambit.ca.authority import Authority
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.node.configuration.secrets import Secrets
from ambit.plan.values import SECRET

WEB = Identity("cluster.local", "default", "web")


def issued() -> Certificate:
    key, now = new_key(), dt.datetime.now(dt.UTC)
    authority = Authority.create("cluster.local", now)
    return checked(WEB, key, authority.issue(WEB, key.public_key(), now))


class Sent:
    """What Envoy is sent; `certificates` are what the rest of the agent has."""

    def __init__(self, *certificates: Certificate) -> None:
        self.certificates = {each.identity: each for each in certificates}
        self._server = EnvoyServer(Path("/nonexistent"), lambda *_: None)
        self.secrets = Secrets(self._server, ["cluster.local"], self.certificates.get)

    def versions(self) -> dict[str, str]:
        return {name: each.version for name, each in self._server.store.resources(SECRET).items()}


BOTH = {names.client_secret(WEB), names.server_secret(WEB)}


async def test_1_a_secret_is_answered_when_there_is_a_certificate() -> None:
    sent, certificate = Sent(), issued()
    wanted = [*BOTH, names.TRUST, "nonsense"]
    sent.secrets.asked(wanted)
    assert sent.versions() == {}
    sent.certificates[WEB] = certificate
    sent.secrets.trusted(certificate.roots.decode())
    sent.secrets.certified(certificate)
    before = sent.versions()
    assert set(before) == {*BOTH, names.TRUST}
    sent.secrets.asked(wanted)
    assert sent.versions() == before


@pytest.mark.parametrize("name", sorted(BOTH))
async def test_1_a_certificate_that_was_there_before_is_sent_when_asked_for(name: str) -> None:
    sent = Sent(issued())
    sent.secrets.asked([name])
    assert set(sent.versions()) == BOTH


async def test_2_a_certificate_goes_with_its_identity_and_trust_stays() -> None:
    sent, certificate = Sent(), issued()
    sent.secrets.trusted(certificate.roots.decode())
    sent.secrets.certified(certificate)
    sent.secrets.uncertified(WEB)
    assert set(sent.versions()) == {names.TRUST}


async def test_the_same_trust_again_changes_nothing() -> None:
    sent, roots = Sent(), issued().roots.decode()
    sent.secrets.trusted(roots)
    before = sent.versions()
    again = sent.secrets.trusted(roots)
    assert sent.versions() == before
    assert await again.settled() is None
    sent.secrets.trusted(roots + issued().roots.decode())
    assert sent.versions() != before
