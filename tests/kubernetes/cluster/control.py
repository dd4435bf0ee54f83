"""Starts the control plane: etcd, API server, controller manager and scheduler in one network namespace."""

import subprocess
from pathlib import Path

from tests.kubernetes.cluster import processes
from tests.kubernetes.cluster.settings import API_ADDRESS, API_PORT, CLUSTER_DOMAIN, SERVICES, Cluster

API_SERVER = "kube-apiserver"
READY = 90.0


def start(cluster: Cluster, programs: Path) -> None:
    """Starts all four and returns when the API server says it is ready; AmbitError after 90 s."""
    _start(cluster, programs, "etcd", ["--data-dir", str(cluster.state / "etcd")])
    start_api_server(cluster, programs)
    _start(cluster, programs, "kube-controller-manager", _controllers(cluster))
    _start(cluster, programs, "kube-scheduler", _common(cluster, "kube-scheduler"))


def start_api_server(cluster: Cluster, programs: Path) -> None:
    """Starts the API server alone and returns when it says it is ready; AmbitError after 90 s."""
    _start(cluster, programs, API_SERVER, _api_server(cluster))
    processes.wait_for(
        "the API server's readiness",
        lambda: _ready(cluster, programs),
        READY,
        hint=f"read {cluster.state}/kube-apiserver.log and etcd.log beside it",
    )


def _start(cluster: Cluster, programs: Path, name: str, arguments: list[str]) -> None:
    process = processes.start(cluster.state, name, [*cluster.inside(), programs / "kube", name, *arguments])
    processes.record(cluster.state, name, process.pid)


def _ready(cluster: Cluster, programs: Path) -> bool:
    command = [
        str(programs / "kube"),
        "kubectl",
        f"--kubeconfig={cluster.kubeconfig()}",
        "get",
        "--raw=/readyz",
    ]
    return subprocess.run([*cluster.inside(), *command], capture_output=True).returncode == 0


def _api_server(cluster: Cluster) -> list[str]:
    pki = cluster.pki
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        f"--bind-address={API_ADDRESS}",
        f"--advertise-address={API_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--service-cluster-ip-range={SERVICES}",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--service-account-key-file={pki}/accounts.key",
        f"--service-account-signing-key-file={pki}/accounts.key",
        f"--kubelet-client-certificate={pki}/admin.crt",
        f"--kubelet-client-key={pki}/admin.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--enable-aggregator-routing",  # webhooks are called at pods' addresses: there is no kube-proxy here
        f"--audit-log-path={cluster.state}/audit.log",
        f"--audit-policy-file={_audit_policy(cluster)}",
    ]


def _audit_policy(cluster: Cluster) -> Path:
    """Who asked for what, without contents: tests read from it which permissions a component really used."""
    path = cluster.state / "audit-policy.yaml"
    path.write_text(
        "apiVersion: audit.k8s.io/v1\n"
        "kind: Policy\n"
        "omitStages: [RequestReceived]\n"
        "rules:\n"
        "- {level: Metadata, userGroups: [system:serviceaccounts:ambit-system]}\n"
        "- {level: None}\n"
    )
    return path


def _controllers(cluster: Cluster) -> list[str]:
    return [
        *_common(cluster, "kube-controller-manager"),
        f"--root-ca-file={cluster.pki}/ca.crt",
        f"--service-account-private-key-file={cluster.pki}/accounts.key",
        f"--cluster-signing-cert-file={cluster.pki}/ca.crt",
        f"--cluster-signing-key-file={cluster.pki}/ca.key",
        "--use-service-account-credentials",
        # Nodes of a busy machine, or of one whose API server a test stopped, are slow, not lost.
        "--node-monitor-grace-period=300s",
    ]


def _common(cluster: Cluster, user: str) -> list[str]:
    # Nobody competes with them, so they need not wait for a lease.
    return [f"--kubeconfig={cluster.kubeconfig(user)}", "--leader-elect=false", "--bind-address=127.0.0.1"]
