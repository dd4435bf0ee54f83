import base64
import contextlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ambit.ca.request import RefusedRequest, parse_request
from ambit.core.identity import Identity
from tests.soak import fuzz

WEB = "spiffe://cluster.local/ns/shop/sa/web"
KEY = ec.generate_private_key(ec.SECP256R1())


def request(names, key=KEY, digest=None, subject=()):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM).decode()


def uri(text):
    return x509.UniformResourceIdentifier(text)


def test_only_identity_and_key_are_read():
    boss = [x509.NameAttribute(NameOID.COMMON_NAME, "istiod.istio-system.svc")]
    parsed = parse_request(request([uri(WEB), x509.DNSName("istiod.istio-system.svc")], subject=boss))
    assert parsed.identity == Identity("cluster.local", "shop", "web")
    assert parsed.public_key.public_numbers() == KEY.public_key().public_numbers()


@pytest.mark.parametrize(
    ("reason", "pem"),
    [
        ("not a certificate signing request", "hello"),
        ("not a certificate signing request", ""),
        ("bytes", "x" * 20_000),
        ("no identity", request([])),
        ("0 URIs", request([x509.DNSName("web")])),
        ("2 URIs", request([uri(WEB), uri(WEB)])),
        ("spiffe://", request([uri("https://example.com")])),
        ("spiffe://", request([uri(WEB + "/extra")])),
        ("P-256", request([uri(WEB)], ed25519.Ed25519PrivateKey.generate())),
        ("P-256", request([uri(WEB)], ec.generate_private_key(ec.SECP256K1()))),
        ("P-256", request([uri(WEB)], rsa.generate_private_key(65537, 1024))),
    ],
)
def test_refusals(reason, pem):
    with pytest.raises(RefusedRequest, match=reason):
        parse_request(pem)


def test_a_request_with_a_foreign_key_is_refused():
    der = x509.load_pem_x509_csr(request([uri(WEB)]).encode()).public_bytes(serialization.Encoding.DER)
    mine = KEY.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    victim = ec.generate_private_key(ec.SECP256R1()).public_key()
    theirs = victim.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    forged = x509.load_der_x509_csr(der.replace(mine, theirs)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(RefusedRequest, match="own key"):
        parse_request(forged.decode())


@pytest.mark.soak
@pytest.mark.timeout(3600)
@fuzz()
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(RefusedRequest):
        parse_request(data.decode("latin-1"))


GOOD = x509.load_pem_x509_csr(request([uri(WEB)]).encode()).public_bytes(serialization.Encoding.DER)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@fuzz()
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_requests_are_read_or_refused(position, byte):
    damaged = bytearray(GOOD)
    damaged[position % len(damaged)] = byte
    body = base64.encodebytes(bytes(damaged)).decode()
    with contextlib.suppress(RefusedRequest):
        parse_request(f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n")


def test_a_request_of_another_version_is_refused():
    other = GOOD.replace(b"\x02\x01\x00", b"\x02\x01\x05", 1)
    body = base64.encodebytes(other).decode()
    with pytest.raises(RefusedRequest, match="not a certificate signing request"):
        parse_request(f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n")
