"""API objects for tests, as a user would write them, each with the resource it belongs to."""

from typing import Any

Given = tuple[str, dict[str, Any]]


def pod(
    name: str,
    ip: str,
    *,
    namespace: str = "default",
    labels: dict[str, str] | None = None,
    owner: str = "",
    ready: bool = True,
    redirected: bool = True,
    deleted: bool = False,
    phase: str = "Running",
    ports: dict[str, int] | None = None,
    node_name: str = "node1",
    **spec: Any,
) -> Given:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": labels or {"app": "web"}}
    if redirected:
        metadata["annotations"] = {"ambient.istio.io/redirection": "enabled"}
    if owner:
        metadata["ownerReferences"] = [{"kind": "ReplicaSet", "name": owner, "controller": True}]
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    container = {
        "name": "main",
        "ports": [{"name": key, "containerPort": port} for key, port in (ports or {}).items()],
    }
    return "pods", {
        "metadata": metadata,
        "spec": {"nodeName": node_name, "containers": [container], **spec},
        "status": {
            "phase": phase,
            "podIP": ip,
            "podIPs": [{"ip": ip}] if ip else [],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def service(
    name: str,
    selector: dict[str, str] | None,
    *,
    namespace: str = "default",
    ip: str = "10.96.0.9",
    port: int = 80,
    target: int | str = 8080,
    **spec: Any,
) -> Given:
    return "services", {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": selector,
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ports": [{"name": "http", "port": port, "targetPort": target, "protocol": "TCP"}],
            **spec,
        },
    }


def endpoint_slice(
    service_name: str, ip: str, port: int, *, pod_name: str = "", port_name: str = "http"
) -> Given:
    endpoint: dict[str, Any] = {"addresses": [ip], "conditions": {"ready": True}}
    if pod_name:
        endpoint["targetRef"] = {"kind": "Pod", "name": pod_name, "namespace": "default"}
    return "endpointslices.discovery.k8s.io", {
        "metadata": {
            "name": f"{service_name}-s",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv4",
        "endpoints": [endpoint],
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
    }


def udp_service(
    name: str, *endpoints: tuple[str, int], port: int = 53, namespace: str = "default", ready: bool = True
) -> list[Given]:
    """A service with one port, of UDP, and its slice, as a controller of Kubernetes writes it."""
    named = {"name": "dgram", "protocol": "UDP"}
    slice_ = {
        "metadata": {
            "name": f"{name}-1",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv6" if endpoints and ":" in endpoints[0][0] else "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}} for address, _ in endpoints],
        "ports": [{**named, "port": number} for number in {number for _, number in endpoints}],
    }
    spec = {"selector": {"app": name}, "clusterIP": "10.96.9.9", "ports": [{**named, "port": port}]}
    return [
        ("services", {"metadata": {"name": name, "namespace": namespace}, "spec": spec}),
        ("endpointslices.discovery.k8s.io", slice_),
    ]


def node(name: str, region: str = "", zone: str = "") -> Given:
    labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}
    return "nodes", {"metadata": {"name": name, "labels": labels}}


def authorization_policy(
    name: str,
    *,
    namespace: str = "default",
    selector: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Given:
    if selector is not None:
        spec["selector"] = {"matchLabels": selector}
    return "authorizationpolicies.security.istio.io", {
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations or {}},
        "spec": spec,
    }


def peer(
    name: str,
    *,
    namespace: str = "default",
    mode: str | None = None,
    selector: dict[str, str] | None = None,
    ports: dict[int | str, str] | None = None,
    created: str = "2026-01-01T00:00:00Z",
) -> Given:
    spec: dict[str, Any] = {}
    if mode is not None:
        spec["mtls"] = {"mode": mode}
    if selector is not None:
        spec["selector"] = {"matchLabels": selector}
    if ports is not None:
        spec["portLevelMtls"] = {str(port): {"mode": each} for port, each in ports.items()}
    return "peerauthentications.security.istio.io", {
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
        "spec": spec,
    }
