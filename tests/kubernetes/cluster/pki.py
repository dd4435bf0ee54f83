"""The cluster's certificates, the key of service account tokens, and one kubeconfig per user.

User names and groups are Kubernetes' own: kubernetes.io/docs/setup/best-practices/certificates.
"""

import base64
import datetime as dt
import ipaddress
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.kubernetes.cluster.settings import API_ADDRESS, API_PORT, API_SERVICE, CLUSTER_DOMAIN, Cluster

LIFETIME = dt.timedelta(days=30)
SKEW = dt.timedelta(hours=1)
API_NAMES = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
]

Key = ec.EllipticCurvePrivateKey
Issuer = tuple[Key, x509.Certificate]


def make(cluster: Cluster) -> None:
    """Writes everything below `cluster.pki` and the kubeconfig of every user."""
    cluster.pki.mkdir(mode=0o700)
    authority = _issue("kubernetes-ca")
    _write(cluster, "ca", *authority)
    hosts = [API_ADDRESS, API_SERVICE, "127.0.0.1", "localhost", *API_NAMES]
    _write(cluster, "apiserver", *_issue("kube-apiserver", hosts=hosts, issuer=authority))
    users = {
        "admin": ("admin", "system:masters"),
        "kube-controller-manager": ("system:kube-controller-manager", ""),
        "kube-scheduler": ("system:kube-scheduler", ""),
        "kube-proxy": ("system:kube-proxy", ""),
        **{node.name: (f"system:node:{node.name}", "system:nodes") for node in cluster.nodes},
    }
    for user, (common, group) in users.items():
        key, certificate = _issue(common, group=group, issuer=authority)
        _write(cluster, user, key, certificate)
        _kubeconfig(cluster, user)
    accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _secret(cluster, "accounts", accounts)


def _issue(
    common: str, group: str = "", hosts: list[str] | None = None, issuer: Issuer | None = None
) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if group:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    subject = x509.Name(attributes)
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return key, builder.sign(issuer[0] if issuer else key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(cluster: Cluster, name: str, key: Key, certificate: x509.Certificate) -> None:
    _secret(cluster, name, key)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (cluster.pki / f"{name}.crt").write_bytes(pem)


def _secret(cluster: Cluster, name: str, key: Key | rsa.RSAPrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (cluster.pki / f"{name}.key").write_bytes(pem)


def _kubeconfig(cluster: Cluster, user: str) -> None:
    def inline(name: str) -> str:
        return base64.b64encode((cluster.pki / name).read_bytes()).decode()

    server = {
        "server": f"https://{API_ADDRESS}:{API_PORT}",
        "certificate-authority-data": inline("ca.crt"),
    }
    credentials = {
        "client-certificate-data": inline(f"{user}.crt"),
        "client-key-data": inline(f"{user}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster.name, "cluster": server}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": cluster.name, "context": {"cluster": cluster.name, "user": user}}],
        "current-context": cluster.name,
    }
    path = cluster.kubeconfig(user)
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))
