"""The objects that make a waypoint run: ServiceAccount, Service and Deployment of its Gateway's name. Pure.

Names, labels and requests are those of Istio's waypoints, so that its tools and dashboards find them. Nothing but the
Gateway decides what is in them: labels and annotations of `spec.infrastructure`, which never replace ours. The number
of pods is left to whoever scales.
"""

from typing import Any

import msgspec

from ambit.core.names import (
    CA_TOKEN_AUDIENCE,
    CANONICAL_NAME_LABEL,
    CANONICAL_REVISION_LABEL,
    CONTROL_TLS_PORT,
    DATAPLANE_MODE_LABEL,
    DATAPLANE_MODE_NONE,
    GATEWAY_CLASS_LABEL,
    GATEWAY_NAME_LABEL,
    HBONE_PORT,
    MANAGED_LABEL,
    MANAGED_WAYPOINT,
    METRICS_PORT,
    READINESS_PORT,
    ROOT_CERT_CONFIGMAP,
)
from ambit.ingest.preference import DISTRIBUTION_ANNOTATION
from ambit.kube.resource import DEPLOYMENTS, SERVICE_ACCOUNTS, SERVICES, Resource
from ambit.objects.gateway import GROUP, Gateway

Object = dict[str, Any]
TOKEN_SECONDS = 43_200
RUN = "/var/run/ambit"
"""In memory; the proxy makes a folder of its own there for its sockets."""
SERVICE_TYPE_ANNOTATION = "networking.istio.io/service-type"
SERVICE_TYPES = frozenset({"ClusterIP", "NodePort", "LoadBalancer"})


class ProxyPods(msgspec.Struct, frozen=True):
    """What the pods of all proxies have in common."""

    image: str
    pull_policy: str
    trust_domain: str
    cluster_id: str
    system_namespace: str


def waypoint_objects(gateway: Gateway, pods: ProxyPods) -> tuple[tuple[Resource, Object], ...]:
    """In the order in which they are needed."""
    return (
        (SERVICE_ACCOUNTS, {"metadata": _metadata(gateway)}),
        (SERVICES, _service(gateway)),
        (DEPLOYMENTS, _deployment(gateway, pods)),
    )


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


def _labels(gateway: Gateway) -> dict[str, str]:
    return {
        **gateway.spec.infrastructure.labels,
        GATEWAY_NAME_LABEL: gateway.metadata.name,
        GATEWAY_CLASS_LABEL: gateway.spec.gateway_class_name,
        MANAGED_LABEL: MANAGED_WAYPOINT,
    }


def _metadata(gateway: Gateway, **annotations: str) -> Object:
    said = {**gateway.spec.infrastructure.annotations, **annotations}
    return {
        "name": gateway.metadata.name,
        "namespace": gateway.metadata.namespace,
        "labels": _labels(gateway),
        **({"annotations": said} if said else {}),
        "ownerReferences": [owner_of(gateway)],
    }


def _selector(gateway: Gateway) -> dict[str, str]:
    return {GATEWAY_NAME_LABEL: gateway.metadata.name}


def _service(gateway: Gateway) -> Object:
    wanted = gateway.metadata.annotations.get(SERVICE_TYPE_ANNOTATION, "")
    return {
        "metadata": _metadata(gateway, **{DISTRIBUTION_ANNOTATION: "PreferClose"}),
        "spec": {
            "type": wanted if wanted in SERVICE_TYPES else "ClusterIP",
            "ipFamilyPolicy": "PreferDualStack",
            "selector": _selector(gateway),
            "ports": [
                {"name": "status-port", "port": READINESS_PORT, "protocol": "TCP", "appProtocol": "tcp"},
                {"name": "mesh", "port": HBONE_PORT, "protocol": "TCP", "appProtocol": "hbone"},
            ],
        },
    }


def _deployment(gateway: Gateway, pods: ProxyPods) -> Object:
    name = gateway.metadata.name
    labels = {
        CANONICAL_NAME_LABEL: name,
        CANONICAL_REVISION_LABEL: "latest",
        **_labels(gateway),
        DATAPLANE_MODE_LABEL: DATAPLANE_MODE_NONE,
    }
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(METRICS_PORT),
        "prometheus.io/path": "/metrics",
        **gateway.spec.infrastructure.annotations,
    }
    return {
        "metadata": _metadata(gateway),
        "spec": {
            "selector": {"matchLabels": _selector(gateway)},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {
                    "serviceAccountName": name,
                    "terminationGracePeriodSeconds": 30,
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1337,
                        "runAsGroup": 1337,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [_container(name, pods)],
                    "volumes": _volumes(),
                },
            },
        },
    }


def _container(name: str, pods: ProxyPods) -> Object:
    ready = {"httpGet": {"path": "/healthz/ready", "port": READINESS_PORT}}
    return {
        "name": "istio-proxy",
        "image": pods.image,
        "imagePullPolicy": pods.pull_policy,
        "args": ["proxy", "run", "--gateway", name, "--trust-domain", pods.trust_domain],
        "env": [
            _field("POD_NAME", "metadata.name"),
            _field("POD_NAMESPACE", "metadata.namespace"),
            _field("NODE_NAME", "spec.nodeName"),
            {"name": "CLUSTER_ID", "value": pods.cluster_id},
            {"name": "AMBIT_RUN_DIR", "value": f"{RUN}/proxy"},
            {"name": "CA_ADDRESS", "value": f"istiod.{pods.system_namespace}.svc:{CONTROL_TLS_PORT}"},
        ],
        "ports": [
            {"name": "mesh", "containerPort": HBONE_PORT, "protocol": "TCP"},
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
