"""The instance's keys and certificates, made once and reused: API authority, server certificate,
service-account signing key, administrator's client certificate, and the kubeconfig (mode 0600).

Everything is ECDSA P-256. The service-account key signs ES256 tokens.
"""

import ipaddress
import os
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ambit.local import layout

MASTERS = "system:masters"
_LIFE = timedelta(days=3650)
_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


class Credentials(msgspec.Struct, frozen=True):
    """Paths of PEM files below the instance's `pki` directory, and the authority's certificate."""

    directory: Path
    authority_pem: str

    @property
    def authority(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        return self.directory / "apiserver.crt"

    @property
    def server_key(self) -> Path:
        return self.directory / "apiserver.key"

    @property
    def account_key(self) -> Path:
        return self.directory / "sa.key"

    @property
    def admin_certificate(self) -> Path:
        return self.directory / "admin.crt"

    @property
    def admin_key(self) -> Path:
        return self.directory / "admin.key"


def ensure_credentials(directory: Path) -> Credentials:
    """Makes what is missing in `directory` (mode 0700) and returns it all. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    authority = directory / "ca.crt"
    if not (authority.exists() and (directory / "ca.key").exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate("ambit-api-ca", "", key, None, key)
        _write_key(directory / "ca.key", key)
        _write(authority, certificate.public_bytes(serialization.Encoding.PEM))
        for stale in ("apiserver.crt", "admin.crt"):
            (directory / stale).unlink(missing_ok=True)
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    issuer_key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    _ensure_leaf(directory, "apiserver", "kube-apiserver", "", issuer, issuer_key)
    _ensure_leaf(directory, "admin", "kubernetes-admin", MASTERS, issuer, issuer_key)
    if not (directory / "sa.key").exists():
        _write_key(directory / "sa.key", ec.generate_private_key(ec.SECP256R1()))
    return Credentials(directory, authority.read_text())


def _ensure_leaf(
    directory: Path,
    file: str,
    name: str,
    organization: str,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> None:
    path = directory / f"{file}.crt"
    if path.exists() and (directory / f"{file}.key").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(name, organization, key, issuer, issuer_key)
    _write_key(directory / f"{file}.key", key)
    _write(path, certificate.public_bytes(serialization.Encoding.PEM))


def _certificate(
    name: str,
    organization: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """A self-signed authority when `issuer` is None, a client when `organization` is set, else the server."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    subject = x509.Name(attributes)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(_usage(authority=issuer is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if issuer is not None:
        use = ExtendedKeyUsageOID.CLIENT_AUTH if organization else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if not organization:
            builder = builder.add_extension(x509.SubjectAlternativeName(_server_names()), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _server_names() -> list[x509.GeneralName]:
    addresses = (
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
        layout.KUBERNETES_SERVICE,
        layout.SERVICES_V6[1],
        layout.FABRIC_V4.ip,
        layout.FABRIC_V6.ip,
    )
    names = [x509.DNSName(name) for name in _NAMES]
    return [*names, *(x509.IPAddress(address) for address in addresses)]


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, never readable by others."""
    draft = path.with_name(path.name + ".new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    draft.rename(path)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    _write(
        path,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def write_kubeconfig(path: Path, credentials: Credentials, server: str, name: str = "ambit") -> None:
    """A kubeconfig with cluster-admin rights for `server` (`https://127.0.0.1:PORT`), mode 0600.

    One that says the same already is left alone: an API server must come back while the disk is full.
    """

    def inline(file: Path) -> str:
        return b64encode(file.read_bytes()).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "preferences": {},
        "clusters": [
            {
                "name": name,
                "cluster": {"server": server, "certificate-authority-data": inline(credentials.authority)},
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": inline(credentials.admin_certificate),
                    "client-key-data": inline(credentials.admin_key),
                },
            }
        ],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}},
        ],
    }
    content = msgspec.yaml.encode(config)
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, content)
