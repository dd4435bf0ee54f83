"""The signing authority: short-lived workload certificates from one key (SPIFFE X.509-SVID).

An answer is a list of PEM texts: the leaf, each intermediate, and at last all trusted roots in one text; that
is what ztunnel and Istio's agents read (only the last element counts as roots).
"""

import datetime as dt
from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ambit.ca.bundle import as_text, certificates, key_id
from ambit.ca.request import PublicKey
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity

LEAF_LIFETIME = dt.timedelta(hours=24)
BACKDATE = dt.timedelta(minutes=2)
"""Certificates begin a little in the past, because clocks of nodes differ: so much, but at most a tenth of their
life, or clients that count half of it from its beginning would renew at once."""
ROOT_LIFETIME = dt.timedelta(days=3650)


class BadAuthority(AmbitError):
    """Key and certificates of the authority do not make a usable authority."""


class AuthorityFiles(msgspec.Struct, frozen=True):
    """An authority as PEM texts: `ca-cert.pem`, `ca-key.pem`, `root-cert.pem`, `cert-chain.pem`."""

    certificate: str
    key: str
    roots: str = ""
    chain: str = ""

    def same_signer(self, other: Self) -> bool:
        """Whether both sign with one key in one certificate."""
        return (self.certificate.strip(), self.key.strip()) == (other.certificate.strip(), other.key.strip())

    def load(self) -> "Authority":
        """Raises BadAuthority."""
        return Authority.from_pem(self.certificate, self.key, self.roots, self.chain)


class Authority:
    """A signing key, its certificate, the certificates between it and the root, and the roots to trust."""

    def __init__(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        intermediates: Sequence[x509.Certificate],
        roots: Sequence[x509.Certificate],
        lifetime: dt.timedelta = LEAF_LIFETIME,
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._path = [certificate, *(each for each in intermediates if each != certificate)]
        self._intermediates = [_pem(each) for each in intermediates]
        self._roots = as_text(roots)
        self._lifetime = lifetime
        self._digest = hashes.SHA256()
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        self._issuer_key = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)

    @classmethod
    def create(cls, trust_domain: str, now: dt.datetime) -> Self:
        """A new self-signed P-256 root."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + ROOT_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key, [], [certificate])

    @classmethod
    def from_pem(cls, certificate: str, key: str, roots: str = "", chain: str = "") -> Self:
        """The authority of Istio's Secrets: `ca-cert.pem`, `ca-key.pem`, `root-cert.pem`, `cert-chain.pem`.

        Without roots the certificate is its own root. Raises BadAuthority.
        """
        texts = {"ca-cert.pem": certificate, "root-cert.pem": roots, "cert-chain.pem": chain}
        for name, text in texts.items():
            if (text.strip() or name == "ca-cert.pem") and not certificates(text):
                raise BadAuthority(f"{name} holds no PEM certificate")
        try:
            private = serialization.load_pem_private_key(key.encode(), password=None)
        except (ValueError, TypeError) as error:
            raise BadAuthority(f"ca-key.pem holds no PEM private key without a password: {error}") from None
        try:
            signer = x509.load_pem_x509_certificate(certificate.encode())
            trusted = certificates(roots) if roots.strip() else [signer]
            between = x509.load_pem_x509_certificates(chain.encode()) if chain.strip() else []
            extensions = signer.extensions
            constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
            extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except (ValueError, TypeError, x509.ExtensionNotFound) as error:
            raise BadAuthority(
                f"the certificates of the authority cannot be read: {error}",
                "ca-cert.pem must be a CA certificate with a subject key identifier, ca-key.pem its key",
            ) from None
        if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise BadAuthority("the authority's key is neither an elliptic curve nor an RSA key")
        if not constraints.ca:
            raise BadAuthority("ca-cert.pem is not a CA certificate", "it needs basicConstraints CA:TRUE")
        if _public(private.public_key()) != _public(signer.public_key()):
            raise BadAuthority("ca-key.pem is not the key of ca-cert.pem")
        path = [signer] + [each for each in between if each != signer and each not in trusted]
        _check_path(path, trusted)
        return cls(signer, private, [each for each in path if each not in trusted], trusted)

    def trusting(self, roots: str, lifetime: dt.timedelta) -> Self:
        """The same signer, handing out these roots with certificates that live at most so long."""
        intermediates = [each for each in self._path if _pem(each) in self._intermediates]
        return type(self)(self._certificate, self._key, intermediates, certificates(roots), lifetime)

    @property
    def roots(self) -> str:
        """All trusted roots, concatenated PEM."""
        return self._roots

    @property
    def signer(self) -> str:
        """The key identifier that leaves name as their issuer's, lower-case hex."""
        return key_id(self._certificate)

    @property
    def path(self) -> Sequence[x509.Certificate]:
        """The signing certificate and those between it and a root."""
        return self._path

    def is_certificate(self, other: x509.Certificate) -> bool:
        """Whether that is the certificate of this authority's key."""
        return self._certificate == other

    def ends_in(self, root: x509.Certificate) -> bool:
        """Whether chains of this authority end in this root."""
        return self._path[-1] == root or _issued(root, self._path[-1])

    def empty_list(self, now: dt.datetime) -> str:
        """A revocation list of this authority that revokes nothing, valid as long as the authority."""
        return (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - BACKDATE)
            .next_update(self.not_after)
            .add_extension(self._issuer_key, critical=False)
            .sign(self._key, self._digest)
            .public_bytes(serialization.Encoding.PEM)
            .decode()
        )

    @property
    def certificate(self) -> str:
        return _pem(self._certificate)

    @property
    def key(self) -> str:
        """The private key as unencrypted PKCS#8 PEM, for its Secret only."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    @property
    def not_after(self) -> dt.datetime:
        return self._certificate.not_valid_after_utc

    def issue(
        self,
        identity: Identity,
        key: PublicKey,
        now: dt.datetime,
        lifetime: dt.timedelta = dt.timedelta(0),
    ) -> list[str]:
        """A workload's chain. Lives at most 24 hours, or what the mesh allows, and never longer than the authority.

        Raises BadAuthority when the authority itself has expired.
        """
        if lifetime <= dt.timedelta(0):
            lifetime = self._lifetime
        name = x509.UniformResourceIdentifier(identity.uri)
        return self._issue([name], x509.Name([]), key, now, min(lifetime, self._lifetime))

    def issue_server(self, names: Sequence[x509.GeneralName], key: PublicKey, now: dt.datetime) -> list[str]:
        """A chain for the control plane's own TLS server."""
        return self._issue(names, x509.Name([]), key, now, self._lifetime)

    def _issue(
        self,
        names: Sequence[x509.GeneralName],
        subject: x509.Name,
        key: PublicKey,
        now: dt.datetime,
        lifetime: dt.timedelta,
    ) -> list[str]:
        end = min(now + lifetime, self.not_after)
        if end <= now:
            raise BadAuthority(
                f"the authority's certificate expired at {self.not_after:%Y-%m-%d %H:%M} UTC",
                "replace the Secret that holds it",
            )
        leaf = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - min(BACKDATE, lifetime / 10), self._certificate.not_valid_before_utc))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                _usage(certificates=False, encipher=isinstance(key, rsa.RSAPublicKey)), critical=True
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            # Critical because the subject is empty (RFC 5280, 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(self._issuer_key, critical=False)
            .sign(self._key, self._digest)
        )
        return [_pem(leaf), *self._intermediates, self._roots]


def _usage(*, certificates: bool, encipher: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=encipher,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _check_path(path: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> None:
    """Each certificate is signed by the next, the last by a root (or is one)."""
    last = path[-1]
    try:
        for certificate, issuer in pairwise(path):
            certificate.verify_directly_issued_by(issuer)
        if last in roots:
            return
        if not any(_issued(root, last) for root in roots):
            raise BadAuthority(
                f"no root issued {last.subject.rfc4514_string() or 'the authority'}",
                "root-cert.pem must hold the root, cert-chain.pem the certificates in between",
            )
    except (ValueError, TypeError, InvalidSignature) as error:
        raise BadAuthority(
            f"the authority's certificates are no chain: {str(error) or 'wrong signature'}",
            "order them from ca-cert.pem to the root",
        ) from None


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _public(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
