"""Reads where the API server is and who we are: from a kubeconfig file or from a pod's mounted account.

Fields are those of Kubernetes' `v1 Config`; what cannot be honoured (proxies, old auth providers) is refused,
never ignored.
"""

import os
import ssl
import tempfile
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ambit.core.errors import BadInput, EnvironmentProblem
from ambit.kube.credentials import Credentials, ExecPlugin, Fixed, TokenFile
from ambit.kube.http import Address, Transport

HINT = "pass --kubeconfig FILE, or --name NAME for a laptop cluster"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def load_kubeconfig(path: Path | str, context: str | None = None) -> tuple[Transport, Credentials, str]:
    """Transport, credentials and default namespace of a context (None: the current). Raises `BadInput`."""
    import yaml

    path = Path(path)
    try:
        document = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except OSError as error:
        raise BadInput(f"cannot read the kubeconfig {path}: {error.strerror or error}", HINT) from error
    except yaml.YAMLError as error:
        raise BadInput(f"the kubeconfig {path} is not YAML: {' '.join(str(error).split())}", HINT) from error
    if not isinstance(document, dict):
        raise BadInput(f"the kubeconfig {path} is {'no object' if document else 'empty'}", HINT)
    name = context or document.get("current-context") or ""
    if not name:
        raise BadInput(f"the kubeconfig {path} has no current-context", "pass --context NAME")
    chosen = _named(document, "contexts", "context", name, path)
    cluster = _named(document, "clusters", "cluster", str(chosen.get("cluster", "")), path)
    user = _named(document, "users", "user", str(chosen["user"]), path) if chosen.get("user") else {}
    transport = _transport(cluster, user, path)
    return transport, _credentials(user, path), str(chosen.get("namespace") or "default")


def load_in_cluster(account: Path = ACCOUNT) -> tuple[Transport, Credentials, str]:
    """Transport, credentials and namespace of the pod that runs this. Raises `EnvironmentProblem`."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT_HTTPS") or os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise EnvironmentProblem("KUBERNETES_SERVICE_HOST is not set: this is not a pod", "pass a kubeconfig")
    try:
        tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
        namespace = (account / "namespace").read_text().strip()
    except OSError as error:
        raise EnvironmentProblem(f"no service account is mounted at {account}: {error}") from error
    transport = Transport(Address(host, int(port)), tls, host_header=_host_header(host, int(port)))
    return transport, TokenFile(str(account / "token")), namespace


def _named(document: dict[str, Any], plural: str, singular: str, name: str, path: Path) -> dict[str, Any]:
    entries = document.get(plural)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name:
            found = entry.get(singular) or {}
            if not isinstance(found, dict):
                break
            return found
    raise BadInput(f"the kubeconfig {path} has no {singular} named {name!r}", HINT)


def _transport(cluster: dict[str, Any], user: dict[str, Any], path: Path) -> Transport:
    if cluster.get("proxy-url"):
        raise BadInput(f"the kubeconfig {path} asks for a proxy (proxy-url), which is not supported")
    server = urlsplit(str(cluster.get("server", "")))
    if server.scheme not in ("http", "https") or not server.hostname:
        raise BadInput(f"the kubeconfig {path} has a wrong server {cluster.get('server')!r}")
    if server.path.strip("/"):
        raise BadInput(f"the kubeconfig {path} has a server with a path, which is not supported")
    port = server.port or (443 if server.scheme == "https" else 80)
    address = Address(server.hostname, port)
    tls = _tls(cluster, user, path) if server.scheme == "https" else None
    host_header = _host_header(server.hostname, port)
    return Transport(address, tls, cluster.get("tls-server-name"), host_header)


def _host_header(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls(cluster: dict[str, Any], user: dict[str, Any], path: Path) -> ssl.SSLContext:
    authority = _material(cluster, "certificate-authority", path)
    try:
        context = ssl.create_default_context(cadata=authority.decode("ascii") if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate = _material(user, "client-certificate", path)
        key = _material(user, "client-key", path)
        if certificate and key:
            # The ssl module takes files only; the pair lives in one private file for the length of the call.
            with tempfile.NamedTemporaryFile() as file:
                file.write(certificate + b"\n" + key)
                file.flush()
                context.load_cert_chain(file.name)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise BadInput(f"the certificates in the kubeconfig {path} are unusable: {error}") from error
    return context


def _material(entry: dict[str, Any], field: str, path: Path) -> bytes | None:
    inline = entry.get(f"{field}-data")
    if inline:
        try:
            return b64decode(inline, validate=True)
        except ValueError as error:
            raise BadInput(f"the kubeconfig {path}: {field}-data is not base64") from error
    if not entry.get(field):
        return None
    file = path.parent / str(entry[field])
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadInput(f"the kubeconfig {path}: cannot read {field} {file}: {error.strerror}") from error


def _credentials(user: dict[str, Any], path: Path) -> Credentials:
    if user.get("auth-provider"):
        raise BadInput(
            f"the kubeconfig {path} uses an auth-provider, which Kubernetes removed", "use an exec plugin"
        )
    if user.get("token"):
        return Fixed.token(str(user["token"]))
    if user.get("tokenFile"):
        return TokenFile(str(path.parent / str(user["tokenFile"])))
    if user.get("exec"):
        return ExecPlugin(dict(user["exec"]))
    if user.get("username"):
        return Fixed.basic(str(user["username"]), str(user.get("password", "")))
    return Fixed()
