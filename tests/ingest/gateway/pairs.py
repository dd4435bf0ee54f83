"""Certificates of an authority of the test, and Secrets that hold them."""

import base64
import datetime as dt
from collections.abc import Iterable
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from tests.ingest.build import Given

_PEM, _PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


class Pair(msgspec.Struct, frozen=True):
    """PEM."""

    chain: str
    key: str


class Authority:
    """Signs certificates for host names, and for clients."""

    def __init__(self, name: str = "test") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(self._key.public_key(), self._name)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.root = builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM).decode()

    def pair(
        self, *hosts: str, key: CertificateIssuerPrivateKeyTypes | None = None, uris: Iterable[str] = ()
    ) -> Pair:
        private = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0][:60])])
        said = [*map(x509.DNSName, hosts), *map(x509.UniformResourceIdentifier, uris)]
        names = x509.SubjectAlternativeName(said)
        builder = self._builder(private.public_key(), subject).add_extension(names, critical=False)
        chain = builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM).decode()
        return Pair(chain, private.private_bytes(_PEM, _PKCS8, serialization.NoEncryption()).decode())

    def _builder(self, key: Any, subject: x509.Name) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
        )


def secret(name: str, pair: Pair, *, namespace: str = "default", **data: str) -> Given:
    given = {"tls.crt": pair.chain, "tls.key": pair.key, **data}
    return "secrets", {
        "metadata": {"name": name, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(each.encode()).decode() for key, each in given.items()},
    }


def https(name: str = "https", *secrets: str, port: int = 443, **more: Any) -> dict[str, Any]:
    """A listener that shows these certificates; `namespace/name` for one of another namespace."""
    references = []
    for each in secrets:
        namespace, _, named = each.rpartition("/")
        references.append({"name": named, **({"namespace": namespace} if namespace else {})})
    tls = {"mode": "Terminate", "certificateRefs": references}
    return {"name": name, "port": port, "protocol": "HTTPS", "tls": tls, **more}
