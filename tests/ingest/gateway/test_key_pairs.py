"""Pairs of Secrets: which are refused, and in which form they reach a proxy."""

import base64
import datetime as dt
import math
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID, NameOID

from ambit.ingest.gateway.certificates import problem_of_roots
from tests.ingest.gateway.build import edge, listener
from tests.ingest.gateway.pairs import Pair, https, secret
from tests.ingest.gateway.test_edge import status
from tests.ingest.test_mesh import compiler

KEY = ec.generate_private_key(ec.SECP256R1())


def signed(
    key: Any = KEY, name: str = "a", usage: bool = True, extension: x509.ExtensionType | None = None
) -> Pair:
    """A pair of this key; its certificate is for signatures, or not."""
    told = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(told, told, key.public_key(), 7, now, now + dt.timedelta(1))
    said = x509.KeyUsage(usage, *(False, False, False, True), False, False, False, False)
    builder = builder.add_extension(said, critical=True)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    chain = builder.sign(KEY, hashes.SHA256()).public_bytes(form[0]).decode()
    return Pair(chain, key.private_bytes(*form).decode())


def with_large_exponent() -> rsa.RSAPrivateKey:
    while True:
        found = rsa.generate_private_key(65537, 2048).private_numbers()
        p, q, e = found.p, found.q, (1 << 40) + 15
        if math.gcd(e, (p - 1) * (q - 1)) == 1:
            d = pow(e, -1, (p - 1) * (q - 1))
            public = rsa.RSAPublicNumbers(e, p * q)
            return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), found.iqmp, public).private_key()


def of_version(pair: Pair, version: int) -> Pair:
    body = base64.b64decode("".join(pair.chain.splitlines()[1:-1]))
    at = body.index(b"\xa0\x03\x02\x01\x02") + 4
    text = base64.encodebytes(body[:at] + bytes([version]) + body[at + 1 :]).decode()
    return Pair(f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n", pair.key)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: signed(usage=False), "keyUsage needs digitalSignature"),
        (lambda: signed(name=""), "has no name"),
        (lambda: signed(extension=x509.TLSFeature([x509.TLSFeatureType.status_request])), "must-staple"),
        (
            lambda: signed(
                extension=x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\xff\xff")
            ),
            "cannot be read",
        ),
        (lambda: signed(with_large_exponent()), "public exponent"),
        (lambda: of_version(signed(), 23), "not a valid X509 version"),
    ],
)
def test_what_envoy_would_refuse_is_refused(make: Callable[[], Pair], why: str) -> None:
    """One such certificate must not keep anybody else's listener from being served."""
    made = compiler(edge(https("https", "a"), listener()), secret("a", make()))
    found = {each.name: each for each in status(made).listeners}
    (resolved,) = (each for each in found["https"].conditions if each.type == "ResolvedRefs")
    assert (resolved.status, resolved.reason) == (
        "False",
        "InvalidCertificateRef",
    ) and why in resolved.message
    assert [each.name for each in made.proxies["default/edge"].listeners] == ["http"]
    assert {each.code for each in made.findings} == {"AMB0408"}


def test_a_pair_is_written_as_envoy_reads_it() -> None:
    """Which takes nothing around it: marks, comments, indentation, other line ends, headers."""
    given = signed()
    odd = Pair(
        "\ufeff" + given.chain.replace("\n", "\r\n") + "-----BEGIN FOO-----\n!!!\n",
        " \x00" + given.key.replace("-----\n", "-----\nFoo: bar\n\n", 1),
    )
    for each in (given, odd):
        made = compiler(edge(https("https", "a")), secret("a", each))
        (pair,) = made.certificates["default/edge"].pairs
        assert (pair.chain, pair.key) == (given.chain, given.key)


def test_a_root_of_an_unknown_version_is_no_root() -> None:
    """What `cryptography` raises for it is no ValueError."""
    assert not problem_of_roots(signed().chain)
    assert problem_of_roots(of_version(signed(), 23).chain) == "it holds no certificates that can be read"
