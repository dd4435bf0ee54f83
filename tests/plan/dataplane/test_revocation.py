"""Revocation lists in Envoy, in both directions: what `ambit.ca.revocation` relies on."""

import contextlib
import datetime as dt
import itertools
import ssl
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.ca.authority import Authority
from ambit.core.identity import Identity
from tests.ca.authorities import intermediate_of, revoked_by
from tests.plan.dataplane.conftest import Mesh
from tests.plan.dataplane.network import REFUSED, Host
from tests.plan.dataplane.served import until
from tests.plan.dataplane.test_attacks import dial

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
NOW = dt.datetime.now(dt.UTC)
PORTS = itertools.count(8500)
"""One per test: a listener's accept keeps its port for a while."""
DAY = dt.timedelta(days=1)
GOOD, STOLEN = (f"spiffe://cluster.local/ns/default/sa/{name}" for name in ("good", "stolen"))


class Signing:
    """Two authorities below one root; one signs for the identity STOLEN only."""

    def __init__(self) -> None:
        self.root = Authority.create("cluster.local", NOW - DAY)
        self.trusted = intermediate_of(self.root, NOW, "trusted").load()
        self.stolen = intermediate_of(self.root, NOW, "stolen").load()
        self.serials: dict[str, int] = {}
        self.certificate = cache(self._certificate)

    def _certificate(self, uri: str) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        signer = self.stolen if uri == STOLEN else self.trusted
        *chain, _ = signer.issue(Identity.parse(uri), key.public_key(), NOW)
        self.serials[uri] = x509.load_pem_x509_certificate(chain[0].encode()).serial_number
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return "".join(chain), private.decode()

    def lists(self, *, leaves: Sequence[int] = (), stolen: bool = False, life: dt.timedelta = DAY) -> str:
        """A list of each of the three authorities."""
        between = [self.stolen.path[0].serial_number] if stolen else []
        return (
            revoked_by(self.root, between, NOW, life)
            + revoked_by(self.trusted, leaves, NOW, life)
            + revoked_by(self.stolen, [], NOW, life)
        )


class Callers:
    """Clients from outside with certificates of the mesh, each on a new connection to the pod `far`."""

    def __init__(self, mesh: Mesh, outside: Host, signing: Signing, directory: Path) -> None:
        self.port = next(PORTS)
        self.mesh, self.outside, self.signing, self.directory = mesh, outside, signing, directory

    def is_let_in(self, uri: str) -> bool:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        made.set_alpn_protocols(["h2"])
        chain, key = self.signing.certificate(uri)
        (self.directory / "client.pem").write_text(key + chain)
        made.load_cert_chain(self.directory / "client.pem")
        far = self.mesh.pods["far"]
        with contextlib.suppress(OSError):
            return dial(self.mesh, self.outside, made).is_allowed(f"{far.four}:{self.port}")
        return False

    def see(self, lists: str, *, good: bool, stolen: bool) -> None:
        """With these lists in Envoy, exactly these clients get in."""
        self.mesh.trust(self.signing.root.roots + lists, self.signing)  # type: ignore[arg-type]
        until(lambda: (self.is_let_in(GOOD), self.is_let_in(STOLEN)) == (good, stolen), f"{good}, {stolen}")


def test_a_server_refuses_what_is_revoked(mesh: Mesh, outside: Host, tmp_path: Path) -> None:
    signing = Signing()
    callers = Callers(mesh, outside, signing, tmp_path)
    with mesh.pods["far"].listen(callers.port):
        callers.see("", good=True, stolen=True)
        callers.see(signing.lists(stolen=True), good=True, stolen=False)
        callers.see(signing.lists(), good=True, stolen=True)
        callers.see(signing.lists(leaves=[signing.serials[GOOD]]), good=False, stolen=True)
        callers.see("", good=True, stolen=True)


def test_lists_that_are_incomplete_or_over_refuse_everybody(
    mesh: Mesh, outside: Host, tmp_path: Path
) -> None:
    """So the control plane never hands out such."""
    signing = Signing()
    callers = Callers(mesh, outside, signing, tmp_path)
    with mesh.pods["far"].listen(callers.port):
        callers.see(revoked_by(signing.root, [], NOW, DAY), good=False, stolen=False)
        callers.see("", good=True, stolen=True)
        callers.see(signing.lists(life=dt.timedelta(seconds=-30)), good=False, stolen=False)
        callers.see("", good=True, stolen=True)


def test_a_client_refuses_a_revoked_server(mesh: Mesh) -> None:
    signing = Signing()
    b, far2 = mesh.pods["b"], mesh.pods["far2"]
    signing.certificate(far2.identity.uri)
    lists = signing.lists(leaves=[signing.serials[far2.identity.uri]])
    with far2.listen(8510):
        mesh.trust(signing.root.roots + lists, signing)  # type: ignore[arg-type]
        until(lambda: b.ask(far2.four, 8510) == REFUSED, "the revoked server to be refused")
        mesh.trust(signing.root.roots, signing)  # type: ignore[arg-type]
        until(lambda: b.ask(far2.four, 8510) == f"{b.four} 2", "the server to be believed again")
