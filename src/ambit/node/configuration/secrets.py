"""The certificates and the trust that Envoy has.

Rules:
1. A question for a secret is answered when there is a valid certificate, never with "removed".
2. A certificate goes with the last pod of its identity, and its key with it.
"""

from collections.abc import Callable, Iterable

from ambit.agent.csr import Certificate
from ambit.agent.envoy_server import EnvoyServer, framed
from ambit.agent.publication import Publication
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.plan.node import node_proxy
from ambit.plan.values import SECRET, PlannedResource


class Secrets:
    """`trust_domains` are those that count, all by the same roots; `certificate` is what an identity has."""

    def __init__(
        self,
        server: EnvoyServer,
        trust_domains: Iterable[str],
        certificate: Callable[[Identity], Certificate | None],
    ) -> None:
        self._server = server
        self._trust_domains = tuple(trust_domains)
        self._certificate = certificate
        self._bundle = ""

    def asked(self, wanted: Iterable[str]) -> None:
        """Envoy asked for names that were not there."""
        self._server.answer(framed(found) for name in wanted for found in self._answers(name))

    def certified(self, certificate: Certificate) -> None:
        """There is a new certificate: it is sent under both names."""
        self._server.publish(map(framed, _named(certificate)))

    def uncertified(self, identity: Identity) -> None:
        """No pod of this node has the identity any more: its key leaves Envoy."""
        self._server.publish((), [(SECRET, name) for name in node_proxy.required_secrets(identity)])

    def trusted(self, bundle: str) -> Publication:
        """Roots and revocation lists (PEM) by which peers are believed from now on."""
        if self._bundle == bundle:
            return self._server.publish(())
        self._bundle = bundle
        return self._server.publish([framed(self._trust())])

    def latest(self) -> Publication:
        """Certificates and trust as sent so far, to be awaited."""
        return self._server.latest(SECRET)

    def _answers(self, name: str) -> list[PlannedResource]:
        if name == names.TRUST:
            return [self._trust()] if self._bundle else []
        try:
            certificate = self._certificate(names.parse_secret(name))
        except ValueError:
            return []
        return _named(certificate) if certificate is not None else []

    def _trust(self) -> PlannedResource:
        return node_proxy.trust_bundle(dict.fromkeys(self._trust_domains, self._bundle))


def _named(certificate: Certificate) -> list[PlannedResource]:
    return [
        node_proxy.secret(name, chain_pem=certificate.chain.decode(), key_pem=certificate.key.decode())
        for name in node_proxy.required_secrets(certificate.identity)
    ]
