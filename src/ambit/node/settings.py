"""Everything the agent is told when it starts."""

from pathlib import Path

import msgspec

from ambit.core import names

SERVICE_RANGES = "services"


class Method:
    """How pods that start are captured: by NAT redirect, without NAT, or without NAT where the kernel can."""

    NAT, TPROXY, AUTO = "nat", "tproxy", "auto"


class AgentSettings(msgspec.Struct, frozen=True):
    """`run` holds sockets and is closed to others; `state` survives reboots. `sandboxes` and `namespaces` are
    where the pod runner keeps its records and pins network namespaces; with `host_proc`, the host's /proc, pods are a
    kubelet's, and `namespaces` is where the container runtime pins them."""

    node: str
    run: Path
    state: Path
    control: str
    root_cert: Path | None = None
    token: Path | None = None
    server_name: str = ""
    kubeconfig: Path | None = None
    context: str | None = None
    cluster_id: str = names.DEFAULT_CLUSTER_ID
    certificate_lifetime: float = 86_400.0
    """Seconds that certificates are requested for."""
    cluster_domain: str = names.CLUSTER_DOMAIN
    network: str = ""
    trust_domain: str = names.DEFAULT_TRUST_DOMAIN
    trust_domain_aliases: tuple[str, ...] = ()
    sandboxes: Path = Path("/run/ambit/sandboxes")
    namespaces: Path = Path("/run/ambit/netns")
    host_proc: Path | None = None
    resolv_conf: Path = Path("/etc/resolv.conf")
    excluded_namespaces: tuple[str, ...] = ("kube-system",)
    """Whose pods are never captured."""
    cluster_ranges: tuple[str, ...] = ()
    """CIDRs of which this cluster's pods and Services have every address that anything has; `SERVICE_RANGES` stands for
    those of the ServiceCIDR objects."""
    dns_capture: bool = True
    dns_timeout: float = 5.0
    """Seconds."""
    reconcile: bool = True
    """The rules of pods that are found captured, when the agent starts."""
    pod_name: str = ""
    pod_namespace: str = names.SYSTEM_NAMESPACE
    pod_ip: str = ""
    cni_programs: Path | None = None
    """The container runtime's folder of CNI plugins; None leaves the node's CNI alone."""
    cni_configurations: Path = Path("/etc/cni/net.d")
    cni_system_namespaces: tuple[str, ...] = ("kube-system",)
    daemon_set: str = "ambit-node"
    """The agent's, whose end ends the CNI plugin."""
    concurrency: int = 1
    """Envoy's worker threads; 0: as many as there are processors."""
    max_drain: int = 3600
    capture: str = Method.AUTO
    same_node_tls: bool = False
    admin_port: int = names.NODE_ADMIN_PORT
    metrics_port: int = names.METRICS_PORT
    readiness_port: int = names.READINESS_PORT
    access_log: bool = True
    log_as_json: bool = False
    """The form of access-log lines."""
