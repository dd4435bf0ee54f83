"""The objects that make a Gateway's proxy run: ServiceAccount, Service and Deployment, named as its identity. Pure.

Names, labels and requests are those of Istio's waypoints and gateways, so that its tools and dashboards find them.
What is in them is of the Gateway: labels and annotations of `spec.infrastructure`, which never replace ours; of the
annotations only those that the mesh's settings admit are on what may be given rights or containers for them. The number
of pods is left to whoever scales. What people change beyond that: `ambit.control.gateways.patches`.
"""

from typing import Any

import msgspec

from ambit.core.names import (
    CA_TOKEN_AUDIENCE,
    CONTROL_TLS_PORT,
    HBONE_PORT,
    METRICS_PORT,
    READINESS_PORT,
    ROOT_CERT_CONFIGMAP,
)
from ambit.ingest.gateway.pod_labels import labels_of_objects, labels_of_pods, pods_selector
from ambit.ingest.patch_limits import PatchLimits
from ambit.ingest.preference import DISTRIBUTION_ANNOTATION
from ambit.kube.resource import DEPLOYMENTS, SERVICE_ACCOUNTS, SERVICES, Resource
from ambit.model.proxy import Protocol, Proxy, ProxyKind
from ambit.objects.gateway import GROUP, Gateway

Object = dict[str, Any]
TOKEN_SECONDS = 43_200
RUN = "/var/run/ambit"
"""In memory; the proxy makes a folder of its own there for its sockets."""
LEAST_DRAIN = "6s"
"""A second more than Envoy takes to tell all clients (its `--drain-time-s`)."""
SERVICE_TYPE_ANNOTATION = "networking.istio.io/service-type"
SERVICE_TYPES = frozenset({"ClusterIP", "NodePort", "LoadBalancer"})


class ProxyPods(msgspec.Struct, frozen=True):
    """What the pods of all proxies have in common."""

    image: str
    pull_policy: str
    trust_domain: str
    cluster_id: str
    system_namespace: str
    limits: PatchLimits = PatchLimits()


def gateway_objects(gateway: Gateway, proxy: Proxy, pods: ProxyPods) -> tuple[tuple[Resource, Object], ...]:
    """In the order in which they are needed. `proxy` is what was compiled of the Gateway."""
    return (
        (SERVICE_ACCOUNTS, {"metadata": _metadata(gateway, proxy, _admitted(gateway, pods))}),
        (SERVICES, _service(gateway, proxy)),
        (DEPLOYMENTS, _deployment(gateway, proxy, pods)),
    )


def objects_name(proxy: Proxy) -> str:
    """The name of all objects of a proxy."""
    return proxy.identity.service_account


def owner_of(gateway: Gateway) -> Object:
    """The reference that makes an object go with its Gateway."""
    meta = gateway.metadata
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
    }


def metadata_of(gateway: Gateway, proxy: Proxy, **annotations: str) -> Object:
    """Of an object of a proxy."""
    return _metadata(gateway, proxy, {**gateway.spec.infrastructure.annotations, **annotations})


def _admitted(gateway: Gateway, pods: ProxyPods) -> dict[str, str]:
    """Annotations for what runs, and for whom it runs as."""
    given = gateway.spec.infrastructure.annotations
    return {name: text for name, text in given.items() if pods.limits.admits(name)}


def _metadata(gateway: Gateway, proxy: Proxy, said: dict[str, str]) -> Object:
    return {
        "name": objects_name(proxy),
        "namespace": gateway.metadata.namespace,
        "labels": labels_of_objects(gateway, proxy.kind),
        **({"annotations": said} if said else {}),
        "ownerReferences": [owner_of(gateway)],
    }


def _service(gateway: Gateway, proxy: Proxy) -> Object:
    wanted = gateway.metadata.annotations.get(SERVICE_TYPE_ANNOTATION, "")
    usual = "LoadBalancer" if proxy.kind is ProxyKind.GATEWAY else "ClusterIP"
    kind = wanted if wanted in SERVICE_TYPES else usual
    asked = gateway.spec.wanted_addresses if kind == "LoadBalancer" else ()
    near = {} if proxy.kind is ProxyKind.GATEWAY else {DISTRIBUTION_ANNOTATION: "PreferClose"}
    return {
        "metadata": metadata_of(gateway, proxy, **near),
        "spec": {
            "type": kind,
            **({"loadBalancerIP": asked[0]} if asked else {}),
            "ipFamilyPolicy": "PreferDualStack",
            "selector": pods_selector(gateway),
            "ports": [
                {"name": "status-port", "port": READINESS_PORT, "protocol": "TCP", "appProtocol": "tcp"},
                *_ports(proxy),
            ],
        },
    }


def _ports(proxy: Proxy) -> list[Object]:
    """Of several listeners on one port, one. HTTP/3 is a port of its own."""
    if proxy.kind is not ProxyKind.GATEWAY:
        return [{"name": "mesh", "port": HBONE_PORT, "protocol": "TCP", "appProtocol": "hbone"}]
    ports = {(each.port, "UDP"): "http3" for each in proxy.listeners if each.terms.http3}
    ports |= {(each.port, _transport(each.protocol)): each.protocol.value.lower() for each in proxy.listeners}
    return [
        {"name": f"{protocol}-{port}", "port": port, "protocol": transport, "appProtocol": protocol}
        for (port, transport), protocol in sorted(ports.items())
    ]


def _transport(protocol: Protocol) -> str:
    return "UDP" if protocol is Protocol.UDP else "TCP"


def _deployment(gateway: Gateway, proxy: Proxy, pods: ProxyPods) -> Object:
    admitted = _admitted(gateway, pods)
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(METRICS_PORT),
        "prometheus.io/path": "/metrics",
        **admitted,
    }
    return {
        "metadata": _metadata(gateway, proxy, admitted),
        "spec": {
            "selector": {"matchLabels": pods_selector(gateway)},
            "template": {
                "metadata": {
                    "labels": labels_of_pods(gateway, proxy.kind, objects_name(proxy)),
                    "annotations": annotations,
                },
                "spec": {
                    "serviceAccountName": objects_name(proxy),
                    "terminationGracePeriodSeconds": 30,
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1337,
                        "runAsGroup": 1337,
                        "seccompProfile": {"type": "RuntimeDefault"},
                        **_sysctls(proxy),
                    },
                    "containers": [_container(gateway.metadata.name, proxy, pods)],
                    "volumes": _volumes(),
                },
            },
        },
    }


def _sysctls(proxy: Proxy) -> Object:
    """Listeners may have any port, and the proxy has no rights."""
    if proxy.kind is not ProxyKind.GATEWAY:
        return {}
    return {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]}


def _drain(proxy: Proxy) -> list[str]:
    """Clients of a gateway learn from answers that they should connect anew, and load balancers later than nodes that
    it goes."""
    return ["--least-drain", LEAST_DRAIN] if proxy.kind is ProxyKind.GATEWAY else []


def _container(name: str, proxy: Proxy, pods: ProxyPods) -> Object:
    mesh = {"name": "mesh", "containerPort": HBONE_PORT, "protocol": "TCP"}
    ready = {"httpGet": {"path": "/healthz/ready", "port": READINESS_PORT}}
    return {
        "name": "istio-proxy",
        "image": pods.image,
        "imagePullPolicy": pods.pull_policy,
        "args": ["proxy", "keep", "--gateway", name, "--trust-domain", pods.trust_domain, *_drain(proxy)],
        "env": [
            _field("POD_NAME", "metadata.name"),
            _field("POD_NAMESPACE", "metadata.namespace"),
            _field("NODE_NAME", "spec.nodeName"),
            _field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            {"name": "CLUSTER_ID", "value": pods.cluster_id},
            {"name": "AMBIT_RUN_DIR", "value": f"{RUN}/proxy"},
            {"name": "CA_ADDRESS", "value": f"istiod.{pods.system_namespace}.svc:{CONTROL_TLS_PORT}"},
        ],
        "ports": [
            *([mesh] if proxy.kind is not ProxyKind.GATEWAY else []),
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
            {"name": "status-port", "containerPort": READINESS_PORT, "protocol": "TCP"},
        ],
        "startupProbe": {**ready, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**ready, "periodSeconds": 5},
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "2", "memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
            {"name": "root-cert", "mountPath": "/var/run/secrets/istio"},
            {"name": "run", "mountPath": RUN},
        ],
    }


def _volumes() -> list[Object]:
    token = {"audience": CA_TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "istio-token"}
    return [
        {"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "root-cert", "configMap": {"name": ROOT_CERT_CONFIGMAP}},
        {"name": "run", "emptyDir": {"medium": "Memory"}},
    ]


def _field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
