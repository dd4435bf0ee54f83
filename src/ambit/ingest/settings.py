"""What the compiler is told about the mesh as a whole (a part of Istio's MeshConfig)."""

from collections.abc import Mapping

import msgspec

from ambit.core.identity import TrustDomains
from ambit.core.names import (
    CLUSTER_DOMAIN,
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

NETWORK_LABEL = "topology.istio.io/network"


class MeshSettings(msgspec.Struct, frozen=True):
    """`network` names the flat network that this cluster's pods share; empty when there is one only."""

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    cluster_id: str = DEFAULT_CLUSTER_ID
    root_namespace: str = ROOT_NAMESPACE
    system_namespace: str = SYSTEM_NAMESPACE
    network: str = ""
    cluster_domain: str = CLUSTER_DOMAIN
    trust_domain_aliases: tuple[str, ...] = ()
    entry_visibility: EntryVisibility | None = None
    logs: MeshLogs = MeshLogs()
    authorizers: tuple[Authorizer, ...] = ()
    trusted_proxies: int = 0
    """In front of gateways, where their own Gateways say nothing about it."""
    tracing: MeshTracing = MeshTracing()
    patches: PatchLimits = PatchLimits()
    server_names: ServerNames | None = None
    """What hosts of resolution DYNAMIC_DNS may lead to; None where there are to be none."""

    @property
    def trust_domains(self) -> TrustDomains:
        return TrustDomains(self.trust_domain, self.trust_domain_aliases)

    def network_of(self, labels: Mapping[str, str]) -> str:
        """The network of a pod with these labels."""
        return labels.get(NETWORK_LABEL, self.network)

    def hostname(self, name: str, namespace: str) -> str:
        """The fully qualified name of a Kubernetes Service."""
        return f"{name}.{namespace}.svc.{self.cluster_domain}"
