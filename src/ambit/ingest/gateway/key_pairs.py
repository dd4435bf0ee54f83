"""Certificates that listeners name (Gateway API `ListenerTLSConfig.certificateRefs`), and Gateways for themselves:
Secrets with a chain and its key.

A pair that Envoy would not take is refused here, with the reason, since it would keep a whole listener from being
programmed. What another namespace has needs a ReferenceGrant there, before anything is said of it.
"""

import base64
import binascii
from typing import Literal, Protocol

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtensionOID, NameOID

from ambit.ingest.gateway.certificates import UNREADABLE, problem_of_roots
from ambit.ingest.gateway.conditions import RESOLVED, no, yes
from ambit.ingest.gateway.references import is_granted_to
from ambit.model.proxy import KeyPair
from ambit.model.status import Condition
from ambit.objects.gateway import Gateway, ReferenceGrant, SecretReference
from ambit.objects.kube import Secret

_RSA_BITS, _MOST_RSA_BITS = 2048, 4096
"""Of a proxy that others share: a signature takes 1.5 ms with 4096 bits, 28 with 8192 (OpenSSL 3)."""
_EXPONENT_BITS = 33
"""Of BoringSSL."""
_PEM, _SPKI = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
_LONGEST = 64 * 1024
"""Bytes of a field: a proxy has each for each listener."""
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
"""Smaller keys and other curves are refused by Envoy (BoringSSL)."""


class Unusable(msgspec.Struct, frozen=True):
    """Why a reference leads to no certificate, as `ResolvedRefs` says it."""

    reason: Literal["InvalidCertificateRef", "RefNotPermitted"]
    text: str


class BadRoots(msgspec.Struct, frozen=True):
    """Why a Secret has no roots that can be used; to be said after its name."""

    text: str


class ReadSecret(msgspec.Struct, frozen=True):
    """A Secret as listeners can use it. `roots` are those of clients' certificates beside the pair (PEM); None where
    it has none."""

    pair: KeyPair | Unusable
    roots: str | BadRoots | None = None


class Secrets(Protocol):
    """What there is to refer to."""

    def secret(self, key: str) -> ReadSecret | None:
        """By `<namespace>/<name>`."""

    def roots(self, key: str) -> str | None:
        """`ca.crt` of a ConfigMap, by `<namespace>/<name>`."""

    def grants(self, namespace: str) -> list[ReferenceGrant]:
        """The grants of a namespace."""


def resolve(given: SecretReference, kind: str, namespace: str, known: Secrets) -> KeyPair | Unusable:
    """What a reference of an object of this kind and namespace names."""
    if (given.group, given.kind) != ("", "Secret"):
        return _invalid(f"{given.kind} {given.name} is no kind of certificate: name a Secret")
    place = given.namespace or namespace
    key = f"{place}/{given.name}"
    if place != namespace and not is_granted_to(
        known.grants(place), kind, namespace, given.group, given.kind, given.name
    ):
        text = f"Secret {key} needs a ReferenceGrant in its namespace for {kind} of namespace {namespace}"
        return Unusable("RefNotPermitted", text)
    secret = known.secret(key)
    if secret is None:
        return _invalid(f"there is no Secret {key} of type kubernetes.io/tls")
    return secret.pair


def read(given: Secret) -> ReadSecret:
    """What is in a Secret. It takes up to a millisecond: read one once, however many refer to it."""
    key = given.metadata.key
    pair: KeyPair | Unusable
    try:
        pair = _pair(key, given)
    except UNREADABLE as problem:  # binascii.Error is a ValueError
        pair = _invalid(f"Secret {key}: {problem}")
    return ReadSecret(pair, _roots(given))


def shown_to_servers(given: Gateway, known: Secrets) -> tuple[KeyPair | None, Condition | None]:
    """What a Gateway shows to servers that ask for a certificate (`GatewayBackendTLS`), and what it says of that."""
    reference = given.spec.tls.backend.client_certificate_ref if given.spec.tls is not None else None
    if reference is None:
        return None, None
    found = resolve(reference, "Gateway", given.metadata.namespace, known)
    if isinstance(found, KeyPair):
        return found, yes(RESOLVED)
    reason = found.reason if found.reason == "RefNotPermitted" else "InvalidClientCertificateRef"
    text = f"spec.tls.backend.clientCertificateRef: {found.text}; servers are shown none"
    return None, no(RESOLVED, reason, text)


def _invalid(text: str) -> Unusable:
    return Unusable("InvalidCertificateRef", text)


def _pair(name: str, secret: Secret) -> KeyPair:
    """Raises ValueError and what `cryptography` raises; never with a key in its text."""
    chain_pem, key_pem = _decoded(secret.data.chain, "tls.crt"), _decoded(secret.data.key, "tls.key")
    chain = x509.load_pem_x509_certificates(chain_pem)
    try:
        # Nothing is signed with it. Looking for the primes' own factors takes 30 ms for 2048 bits, 3 s for 8192.
        key = serialization.load_pem_private_key(key_pem, None, unsafe_skip_rsa_key_validation=True)
    except UNREADABLE:
        raise ValueError("tls.key is no private key that can be read") from None
    match key:
        case rsa.RSAPrivateKey() if key.key_size < _RSA_BITS:
            raise ValueError(f"tls.key has {key.key_size} bits, and {_RSA_BITS} are needed")
        case rsa.RSAPrivateKey() if key.key_size > _MOST_RSA_BITS:
            raise ValueError(f"tls.key has {key.key_size} bits, and {_MOST_RSA_BITS} are the most")
        case rsa.RSAPrivateKey() if key.public_key().public_numbers().e.bit_length() > _EXPONENT_BITS:
            raise ValueError(f"tls.key has a public exponent of more than {_EXPONENT_BITS} bits")
        case rsa.RSAPrivateKey() if not _is_whole(key.private_numbers()):
            raise ValueError("tls.key is no RSA key: its numbers do not fit together")
        case ec.EllipticCurvePrivateKey() if not isinstance(key.curve, _CURVES):
            raise ValueError(f"tls.key is of curve {key.curve.name}; P-256, P-384 and P-521 can be used")
        case rsa.RSAPrivateKey() | ec.EllipticCurvePrivateKey():
            pass
        case _:
            raise ValueError("tls.key is neither RSA nor of an elliptic curve")
    if chain[0].public_key() != key.public_key():
        raise ValueError("tls.key is not the key of the first certificate in tls.crt")
    if problem := _problem_of_leaf(chain[0]):
        raise ValueError(f"the first certificate in tls.crt {problem}")
    return KeyPair(name, "".join(each.public_bytes(_PEM).decode() for each in chain), _text(key))


def _is_whole(key: rsa.RSAPrivateNumbers) -> bool:
    """What BoringSSL asks of a key (`RSA_check_key`)."""
    p, q, public = key.p, key.q, key.public_numbers
    if not (1 < p < public.n and 1 < q < public.n and p * q == public.n and 0 < key.d < public.n):
        return False
    parts = key.dmp1 == key.d % (p - 1) and key.dmq1 == key.d % (q - 1) and key.iqmp * q % p == 1
    return parts and key.iqmp < p and key.d * public.e % (p - 1) == 1 and key.d * public.e % (q - 1) == 1


def _problem_of_leaf(leaf: x509.Certificate) -> str:
    """Why Envoy would not take it (BoringSSL: `ssl_cert.cc`; Envoy: `context_impl.cc`). Raises ValueError for what
    nobody can read (`UNREADABLE`)."""
    key = leaf.public_key()
    if key.public_bytes(serialization.Encoding.DER, _SPKI) not in leaf.tbs_certificate_bytes:
        return "has its key in an unusual form: curves by name and plain RSA can be used"
    try:
        extensions = leaf.extensions
    except UNREADABLE as problem:
        return f"has an extension that cannot be read: {problem}"
    said = {each.oid: each.value for each in extensions}
    usage = said.get(ExtensionOID.KEY_USAGE)
    is_signing = not isinstance(usage, x509.KeyUsage) or usage.digital_signature
    if isinstance(key, ec.EllipticCurvePublicKey) and not is_signing:
        return "is not for signatures: keyUsage needs digitalSignature"
    if ExtensionOID.TLS_FEATURE in said:
        return "asks for OCSP responses (must-staple), which a gateway has none of"
    names = said.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    if names is None and not leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return "has no name, neither of a host (subjectAltName) nor a common one"
    return ""


def _text(key: PrivateKeyTypes) -> str:
    """As PEM without anything around it: Envoy's reader is stricter."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(_PEM, form, serialization.NoEncryption()).decode()


def _roots(given: Secret) -> str | BadRoots | None:
    """Whoever it revokes would be let in: no list of those is read."""
    if not given.data.roots:
        return None
    if given.data.revoked:
        return BadRoots(": ca.crl is not supported, remove it")
    try:
        found = _decoded(given.data.roots, "ca.crt").decode()
    except (binascii.Error, UnicodeDecodeError):
        found = ""
    except ValueError as problem:
        return BadRoots(f": {problem}")
    problem_text = problem_of_roots(found)
    return BadRoots(f", ca.crt: {problem_text}") if problem_text else f"{found.strip()}\n"


def _decoded(text: str, field: str) -> bytes:
    if not text:
        raise ValueError(f"{field} is missing")
    if len(text) > _LONGEST * 4 / 3 + 4:
        raise ValueError(f"{field} has more than {_LONGEST // 1024} KiB")
    return base64.b64decode(text, validate=True)
