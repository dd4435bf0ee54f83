"""What may be read from a certificate signing request: one SPIFFE identity and a public key.

Everything else in it (subject, other names, extensions, requested usages) is ignored: the authority decides.
"""

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ambit.core.identity import Identity

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

MAX_BYTES = 16 * 1024
RSA_BITS = range(2048, 4097)
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.DuplicateExtension,
    x509.InvalidVersion,
)
CURVES = ("secp256r1", "secp384r1")


class RefusedRequest(ValueError):
    """The request can never be signed; the text says why."""


class SigningRequest(msgspec.Struct, frozen=True):
    identity: Identity
    public_key: PublicKey


def parse_request(pem: str) -> SigningRequest:
    """The identity and key of a PEM request. Raises RefusedRequest."""
    if len(pem) > MAX_BYTES:
        raise RefusedRequest(f"the request has more than {MAX_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        proven = request.is_signature_valid
        key = request.public_key()
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise RefusedRequest("the request names no identity (no subject alternative name)") from None
    except _UNREADABLE as error:
        raise RefusedRequest(f"not a certificate signing request: {error}") from None
    if not proven:
        raise RefusedRequest("the request is not signed by its own key")
    return SigningRequest(_identity(names), _checked(key))


def _identity(names: x509.SubjectAlternativeName) -> Identity:
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise RefusedRequest(f"the request names {len(uris)} URIs; exactly one is allowed")
    try:
        return Identity.parse(uris[0])
    except ValueError as error:
        raise RefusedRequest(str(error)) from None


def _checked(key: object) -> PublicKey:
    match key:
        case ec.EllipticCurvePublicKey() if key.curve.name in CURVES:
            return key
        case rsa.RSAPublicKey() if key.key_size in RSA_BITS:
            return key
        case _:
            raise RefusedRequest("the key is neither P-256, P-384 nor RSA with 2048 to 4096 bits")
