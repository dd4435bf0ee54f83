"""gRPC channels to the control plane: TLS with the mesh's root, a bearer token, and the cluster's id.

The root file and the token file are read anew for each connection and each call: both rotate.
"""

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import grpc
import msgspec

from ambit.ca.bundle import describe_damage, joined
from ambit.core.errors import AmbitError, BadInput
from ambit.core.names import CONTROL_TLS_PORT, DEFAULT_CLUSTER_ID, ROOT_CERT_CONFIGMAP

_log = logging.getLogger("ambit.trust")

_OPTIONS = (
    ("grpc.max_receive_message_length", 200 << 20),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A pooled subchannel would keep an old root's verdict.
    ("grpc.use_local_subchannel_pool", 1),
)
"""Pings and the message limit are ztunnel's (`src/tls/control.rs`)."""


class ControlPlane(msgspec.Struct, frozen=True):
    """Where the control plane is and how to be believed there.

    Without `root` the connection is plain text, which is refused for anything but a loopback address.
    `server_name` is the name expected in its certificate when that differs from the address. `trusted` gives roots
    (PEM) besides the file's, which may lag behind while roots change.
    """

    address: str
    root: Path | None = None
    token: Path | None = None
    cluster_id: str = DEFAULT_CLUSTER_ID
    server_name: str = ""
    trusted: Callable[[], str] = lambda: ""

    def channel(self) -> grpc.aio.Channel:
        """A new channel. Raises AmbitError when the root is missing or plain text would leave the machine."""
        if self.root is None:
            if self.address.rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]"):
                raise AmbitError(
                    f"{self.address} would be called without TLS", "give --root-cert for the control plane"
                )
            return grpc.aio.insecure_channel(self.address, _OPTIONS)
        root = self.trusted().encode()
        try:
            root = readable_roots(self.root, self.root.read_bytes()) + b"\n" + root
        except OSError as problem:
            if not root:
                raise AmbitError(
                    f"cannot read the root certificate {self.root}: {problem.strerror}"
                ) from problem
        options = [*_OPTIONS]
        if self.server_name:
            options.append(("grpc.ssl_target_name_override", self.server_name))  # type: ignore[arg-type]
        return grpc.aio.secure_channel(self.address, grpc.ssl_channel_credentials(root), options)

    def metadata(self) -> Mapping[str, str]:
        """Headers of a call. Raises AmbitError when the token cannot be read or is empty."""
        if self.token is None:
            return {"clusterid": self.cluster_id}
        try:
            token = self.token.read_text().strip()
        except OSError as problem:
            raise AmbitError(f"cannot read the token {self.token}: {problem.strerror}") from problem
        if not token:
            raise AmbitError(f"the token file {self.token} is empty")
        return {"authorization": f"Bearer {token}", "clusterid": self.cluster_id}


@lru_cache(maxsize=4)
def readable_roots(file: Path, pem: bytes) -> bytes:
    """The certificates of a root file: gRPC stops at the first damaged block, so those are left out.

    The cache makes one warning of each damage. What has no certificate at all is returned as it is.
    """
    text = pem.decode(errors="replace")
    if damage := describe_damage(text):
        _log.warning("%s (ConfigMap %s): %s", file, ROOT_CERT_CONFIGMAP, damage)
    return joined(text).encode() or pem


def control_address(text: str) -> str:
    """HOST:PORT of a control plane written as that, without its port, or as ztunnel and istiod write it
    (`https://istiod.istio-system.svc:15012`). Raises BadInput."""
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme != "https":
        raise BadInput(
            f"{text!r}: a control plane is called by https only", "write https://HOST:PORT or HOST:PORT"
        )
    authority = rest.removesuffix("/")
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        host, port = authority, str(CONTROL_TLS_PORT)
    if not host or "/" in host or (":" in host and not host.startswith("[")) or not port.isdecimal():
        raise BadInput(
            f"{text!r} is not the address of a control plane", "write https://HOST:PORT or HOST:PORT"
        )
    return f"{host}:{port}"


def describe(problem: grpc.aio.AioRpcError) -> str:
    """One line for a log."""
    return f"{problem.code().name.lower()}: {problem.details()}"
