"""A workload's key and certificate, as values: requests made, answers checked. Pure but for the key's randomness.

The answer is a list of PEM texts, leaf first and roots last, as `istio.v1.auth` returns it. Ours has all roots in its
last text, istiod each in one of its own, so whatever at the end signed itself is a root.
"""

import datetime as dt

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.core.identity import Identity


class Certificate(msgspec.Struct, frozen=True):
    """PEM texts; `chain` is leaf and intermediates, `roots` what the authority wants trusted, `signer` its key
    identifier (lower-case hex). Times are UTC seconds since 1970."""

    identity: Identity
    key: bytes
    chain: bytes
    roots: bytes
    not_before: float
    not_after: float
    serial: int
    signer: str = ""

    def valid(self, now: float) -> bool:
        return self.not_before <= now < self.not_after

    def renew_at(self, jitter: float) -> float:
        """Half of its life, earlier by up to a tenth of it (`jitter` in 0..1)."""
        life = self.not_after - self.not_before
        return self.not_before + life * (0.5 - 0.1 * jitter)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def signing_request(identity: Identity, key: ec.EllipticCurvePrivateKey) -> str:
    """A CSR with an empty subject and one critical URI SAN, as ztunnel's (`src/tls/csr.rs`)."""
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)]), critical=True
        )
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


def checked(identity: Identity, key: ec.EllipticCurvePrivateKey, answer: list[str]) -> Certificate:
    """The certificate in an answer. Raises ValueError when it is not for this key and identity."""
    if len(answer) < 2:
        raise ValueError("the answer has no root certificate")
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    texts = [_line_ended(text).encode() for text in answer]
    first = len(texts) - 1
    while first > 1 and _are_roots(texts[first - 1]):
        first -= 1
    certificate = parsed(key_pem, b"".join(texts[:first]), b"".join(texts[first:]))
    if certificate.identity != identity:
        raise ValueError(f"the certificate is for {certificate.identity}, not for {identity}")
    return certificate


def parsed(key: bytes, chain: bytes, roots: bytes) -> Certificate:
    """A certificate from its PEM parts. Raises ValueError when they do not belong together."""
    leaf = x509.load_pem_x509_certificate(chain)
    private = serialization.load_pem_private_key(key, None)
    if leaf.public_key() != private.public_key():
        raise ValueError("the certificate is not for the key that was made")
    if not x509.load_pem_x509_certificates(roots):
        raise ValueError("the answer has no root certificate")
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("the certificate has no name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not uris:
        raise ValueError("the certificate has no SPIFFE name")
    return Certificate(
        Identity.parse(uris[0]),
        key,
        chain,
        roots,
        _seconds(leaf.not_valid_before_utc),
        _seconds(leaf.not_valid_after_utc),
        leaf.serial_number,
        _signer(leaf),
    )


def _are_roots(pem: bytes) -> bool:
    """Whether each of these certificates signed itself. Raises ValueError."""
    for each in x509.load_pem_x509_certificates(pem):
        try:
            each.verify_directly_issued_by(each)
        except (ValueError, TypeError, InvalidSignature):
            return False
    return True


def _signer(leaf: x509.Certificate) -> str:
    try:
        found = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return ""
    return found.hex() if found is not None else ""


def _line_ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def _seconds(moment: dt.datetime) -> float:
    return moment.timestamp()
