"""Several certificates in one PEM text: read tolerantly, joined without repetition."""

import hashlib
import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import serialization

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_BLOCK = re.compile(f"{_BEGIN}(?:(?!{_BEGIN}).)+?{_END}", re.DOTALL)


def certificates(*texts: str) -> list[x509.Certificate]:
    """Each certificate of these texts once, in order; a damaged one is left out and costs the others nothing."""
    found: dict[bytes, x509.Certificate] = {}
    for text in texts:
        for block in _BLOCK.findall(text):
            try:
                certificate = x509.load_pem_x509_certificate(block.encode())
            except ValueError:
                continue
            found.setdefault(certificate.public_bytes(serialization.Encoding.DER), certificate)
    return list(found.values())


def damaged_blocks(text: str) -> tuple[int, ...]:
    """The positions, from 1, of the blocks of a text that begin like a certificate and are none."""
    begun = text.split(_BEGIN)[1:]
    return tuple(at for at, each in enumerate(begun, 1) if not certificates(_BEGIN + each))


def describe_damage(text: str) -> str:
    """What is wrong with the blocks of a text, for a log; empty when all are certificates."""
    damaged = ", ".join(map(str, damaged_blocks(text)))
    return (
        f"PEM block {damaged} cannot be read as a certificate and is left out; the others count"
        if damaged
        else ""
    )


def joined(*texts: str) -> str:
    """The certificates of all texts as one PEM text, each once."""
    return as_text(certificates(*texts))


def as_text(several: Sequence[x509.Certificate]) -> str:
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in several)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, lower-case hex."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def key_id(certificate: x509.Certificate) -> str:
    """The subject key identifier in lower-case hex; empty when the certificate has none."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return ""
    return extension.value.key_identifier.hex()
