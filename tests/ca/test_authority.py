import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from ambit.ca.authority import Authority, BadAuthority
from ambit.core.identity import Identity

NOW = dt.datetime(2026, 11, 20, 12, 0, tzinfo=dt.UTC)
WEB = Identity("cluster.local", "shop", "web")
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def authority():
    return Authority.create("cluster.local", NOW)


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP256R1())


def leaf_of(chain):
    return x509.load_pem_x509_certificate(chain[0].encode())


def verify(chain, now):
    roots = x509.load_pem_x509_certificates(chain[-1].encode())
    between = [x509.load_pem_x509_certificate(pem.encode()) for pem in chain[1:-1]]
    verifier = PolicyBuilder().store(Store(roots)).time(now).build_client_verifier()
    return verifier.verify(leaf_of(chain), between)


def test_a_leaf_is_a_valid_spiffe_certificate(authority, key):
    chain = authority.issue(WEB, key.public_key(), NOW)
    assert len(chain) == 2
    assert [name.value for name in verify(chain, NOW).subjects] == [WEB.uri]
    leaf = leaf_of(chain)
    assert leaf.not_valid_after_utc == NOW + DAY
    assert leaf.not_valid_before_utc == NOW - dt.timedelta(minutes=2)
    extensions = leaf.extensions
    assert extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign) == (True, False)
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }


@pytest.mark.parametrize(
    ("asked", "given"),
    [(dt.timedelta(hours=1), dt.timedelta(hours=1)), (DAY * 90, DAY), (-DAY, DAY), (DAY * 0, DAY)],
)
def test_lifetimes_are_capped(authority, key, asked, given):
    assert leaf_of(authority.issue(WEB, key.public_key(), NOW, asked)).not_valid_after_utc == NOW + given


def test_no_leaf_outlives_the_authority(authority, key):
    late = authority.not_after - dt.timedelta(hours=2)
    assert leaf_of(authority.issue(WEB, key.public_key(), late)).not_valid_after_utc == authority.not_after
    with pytest.raises(BadAuthority, match="expired"):
        authority.issue(WEB, key.public_key(), authority.not_after)


def test_an_authority_survives_its_secret(authority, key):
    again = Authority.from_pem(authority.certificate, authority.key)
    assert again.roots == authority.roots
    chain = again.issue(WEB, key.public_key(), NOW)
    chain[-1] = authority.roots
    verify(chain, NOW)


def intermediate(root, *, ca=True):
    key = ec.generate_private_key(ec.SECP256R1())
    usage = root._certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "intermediate")]))
        .issuer_name(root._certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 30 * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(root._issuer_key, critical=False)
        .sign(root._key, hashes.SHA256())
    )
    return Authority(certificate, key, [], [certificate])


def test_a_plugged_in_intermediate(authority, key):
    between = intermediate(authority)
    other = Authority.create("other", NOW)
    plugged = Authority.from_pem(
        between.certificate, between.key, authority.roots + other.roots, between.certificate
    )
    chain = plugged.issue(WEB, key.public_key(), NOW)
    assert chain[1:] == [between.certificate, authority.roots + other.roots]
    verify(chain, NOW)


def test_what_is_no_authority_is_refused(authority):
    other = Authority.create("cluster.local", NOW)
    for message, arguments in [
        ("^ca-cert.pem holds no PEM certificate", ("nonsense", authority.key)),
        ("^ca-cert.pem holds no PEM certificate", ("", authority.key)),
        ("^ca-key.pem holds no PEM private key", (authority.certificate, "nonsense")),
        ("^root-cert.pem holds no PEM", (authority.certificate, authority.key, "nonsense")),
        ("^cert-chain.pem holds no PEM", (authority.certificate, authority.key, "", "nonsense")),
        ("not the key", (authority.certificate, other.key)),
        ("no root issued", (intermediate(authority).certificate, "", other.roots)),
    ]:
        if not arguments[1]:
            between = intermediate(authority)
            arguments = (between.certificate, between.key, other.roots)
        with pytest.raises(BadAuthority, match=message):
            Authority.from_pem(*arguments)
    no_ca = intermediate(authority, ca=False)
    with pytest.raises(BadAuthority, match="not a CA"):
        Authority.from_pem(no_ca.certificate, no_ca.key, authority.roots)
