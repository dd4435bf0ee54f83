"""Everything the agent of an L7 proxy is told when it starts."""

from pathlib import Path

import msgspec

from ambit.core import names
from ambit.core.identity import Identity


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True):
    """`gateway` is the Gateway whose proxy this is, in the pod's `namespace`. `run` holds sockets and is closed to
    others."""

    gateway: str
    namespace: str
    pod: str
    node_name: str = ""
    """Where the pod runs."""
    service_account: str
    run: Path
    control: str
    root_cert: Path | None = None
    token: Path | None = None
    server_name: str = ""
    cluster_id: str = names.DEFAULT_CLUSTER_ID
    certificate_lifetime: float = 86_400.0
    """Seconds that certificates are requested for."""
    trust_domain: str = names.DEFAULT_TRUST_DOMAIN
    concurrency: int = 2
    """Envoy's worker threads."""
    drain: float = 20.0
    """Seconds that requests under way get when the pod ends."""
    least_drain: float = 0.0
    """Seconds that are waited at the least: clients are told to connect anew, load balancers go elsewhere."""
    admin_port: int = names.NODE_ADMIN_PORT
    """On loopback, for people."""
    metrics_port: int = names.METRICS_PORT
    readiness_port: int = names.READINESS_PORT

    @property
    def identity(self) -> Identity:
        return Identity(self.trust_domain, self.namespace, self.service_account)

    @property
    def node(self) -> str:
        """What the control plane knows this proxy by (`ambit.xds.proxy_node`)."""
        return f"proxy~{self.namespace}/{self.gateway}~{self.pod}"
