"""What the control plane is told when it starts."""

import datetime as dt
from collections.abc import Iterable
from typing import Self

import msgspec

from ambit import __version__
from ambit.ca.authority import LEAF_LIFETIME
from ambit.control.gateways.objects import ProxyPods
from ambit.core.address import Network
from ambit.core.identity import TrustDomains
from ambit.core.names import (
    CLUSTER_DOMAIN,
    CONTROL_DEBUG_PORT,
    CONTROL_PLAIN_PORT,
    CONTROL_TLS_PORT,
    DEFAULT_CLUSTER_ID,
    DEFAULT_TRUST_DOMAIN,
    ROOT_NAMESPACE,
    SYSTEM_NAMESPACE,
)
from ambit.ingest.patch_limits import PatchLimits
from ambit.ingest.visibility import EntryVisibility
from ambit.model.provider import Authorizer
from ambit.model.service import ServerNames
from ambit.model.telemetry import MeshLogs
from ambit.model.tracing import MeshTracing

NODE_ACCOUNTS = ((SYSTEM_NAMESPACE, "ztunnel"), (SYSTEM_NAMESPACE, "ambit-node"), (ROOT_NAMESPACE, "ztunnel"))
"""Service accounts of node agents, ours and a stock ztunnel's, in their usual namespaces."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Ports of 0 are chosen by the kernel (tests); None turns a server off."""

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    trust_domain_aliases: tuple[str, ...] = ()
    cluster_id: str = DEFAULT_CLUSTER_ID
    cluster_domain: str = CLUSTER_DOMAIN
    network: str = ""
    root_namespace: str = ROOT_NAMESPACE
    entry_visibility: EntryVisibility | None = None
    logs: MeshLogs = MeshLogs()
    authorizers: tuple[Authorizer, ...] = ()
    tracing: MeshTracing = MeshTracing()
    trusted_proxies: int = 0
    """In front of gateways."""
    patches: PatchLimits = PatchLimits()
    by_server_name: ServerNames | None = None
    system_namespace: str = SYSTEM_NAMESPACE
    node_accounts: frozenset[tuple[str, str]] = frozenset(NODE_ACCOUNTS)
    instance: str = "ambit-control"
    """Name of this replica in the leader lease."""
    tls_address: str = "[::]"
    tls_port: int = CONTROL_TLS_PORT
    plain_port: int | None = CONTROL_PLAIN_PORT
    debug_port: int | None = CONTROL_DEBUG_PORT
    """On loopback."""
    metrics_addresses: tuple[str, ...] = ()
    """Where `debug_port` serves metrics, and nothing else, to the pod network."""
    readiness_port: int | None = None
    """Served on all addresses; nodes are let in earlier than it says ready."""
    leaf_lifetime: dt.timedelta = LEAF_LIFETIME
    """How long certificates live at most."""
    proxy_image: str = f"ambit/ambit:{__version__}"
    proxy_image_pull_policy: str = "IfNotPresent"
    """Of the pods of waypoints."""
    key_networks: tuple[Network, ...] = ()
    """Where keys of tokens may be fetched beside public addresses and Services of the mesh."""
    certificate_rate: float = 20.0
    certificate_burst: int = 500
    """Certificates per second for the agent of a node, which requests those of all its pods when it starts."""
    pod_certificate_rate: float = 1.0
    pod_certificate_burst: int = 10
    """The same for a pod that requests its own."""

    memory_limit: int = 0
    """Bytes that the process may have; 0 for no limit."""

    def with_accounts(self, accounts: Iterable[tuple[str, str]]) -> Self:
        """The same with these node accounts only."""
        return msgspec.structs.replace(self, node_accounts=frozenset(accounts))

    @property
    def trust_domains(self) -> TrustDomains:
        """Those of certificates that are issued."""
        return TrustDomains(self.trust_domain, self.trust_domain_aliases)

    @property
    def proxy_pods(self) -> ProxyPods:
        """What the pods of waypoints have in common."""
        return ProxyPods(
            image=self.proxy_image,
            pull_policy=self.proxy_image_pull_policy,
            trust_domain=self.trust_domain,
            cluster_id=self.cluster_id,
            system_namespace=self.system_namespace,
            limits=self.patches,
        )

    @property
    def server_names(self) -> tuple[str, ...]:
        """DNS names in the server's certificate: what agents and stock ztunnels dial."""
        names = []
        for namespace in dict.fromkeys((self.system_namespace, self.root_namespace)):
            for name in ("istiod", "ambit-control"):
                names += [
                    f"{name}.{namespace}.svc",
                    f"{name}.{namespace}.svc.{self.cluster_domain}",
                    f"{name}.{namespace}",
                ]
        return (*names, "localhost")
