"""Objects every cluster starts with: namespaces, the `kubernetes` Service, default roles, the shipped
CRDs."""

from typing import Any

from ambit.local import layout
from ambit.local.apiserver import clock
from ambit.local.apiserver.kinds.definitions import STORAGE as DEFINITIONS
from ambit.local.apiserver.kinds.definitions import complete
from ambit.local.apiserver.resources import Registry
from ambit.local.apiserver.storage.store import Json, Store
from ambit.objects.crds import read_bundle

_RBAC = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_DISCOVERY = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
]
_SELF = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Json:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def _workload_rules(*, write: bool) -> list[Json]:
    verbs = [*_READ, *(_WRITE if write else [])]
    core = [
        "configmaps",
        "endpoints",
        "events",
        "persistentvolumeclaims",
        "pods",
        "pods/log",
        "pods/status",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "serviceaccounts",
        "services",
        "services/status",
    ]
    rules = [
        _rule([""], core, verbs),
        _rule([""], ["namespaces"], _READ),
        _rule(
            ["apps", "batch", "autoscaling", "policy", "networking.k8s.io", "discovery.k8s.io"], ["*"], verbs
        ),
        _rule(["gateway.networking.k8s.io"], ["*"], verbs),
    ]
    if write:
        rules.append(
            _rule([""], ["secrets", "pods/exec", "pods/attach", "pods/portforward", "pods/proxy"], verbs)
        )
        rules.append(_rule([""], ["pods/eviction", "serviceaccounts/token"], ["create"]))
    return rules


def _cluster_roles() -> dict[str, list[Json]]:
    everything = [_rule(["*"], ["*"], ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}]
    return {
        "cluster-admin": everything,
        "admin": [*_workload_rules(write=True), _rule([_RBAC], ["roles", "rolebindings"], [*_READ, *_WRITE])],
        "edit": _workload_rules(write=True),
        "view": _workload_rules(write=False),
        "system:discovery": [{"nonResourceURLs": _DISCOVERY, "verbs": ["get"]}],
        "system:basic-user": [
            _rule(["authorization.k8s.io"], _SELF, ["create"]),
            _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
        ],
        "system:auth-delegator": [
            _rule(["authentication.k8s.io"], ["tokenreviews"], ["create"]),
            _rule(["authorization.k8s.io"], ["subjectaccessreviews"], ["create"]),
        ],
    }


_BINDINGS = {
    "cluster-admin": "system:masters",
    "system:discovery": "system:authenticated",
    "system:basic-user": "system:authenticated",
}


def _roles() -> list[Json]:
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}
        for name, rules in _cluster_roles().items()
    ]


def _bindings() -> list[Json]:
    return [
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": _RBAC, "kind": "Group", "name": group}],
        }
        for role, group in _BINDINGS.items()
    ]


def _namespaces() -> list[Json]:
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        }
        for name in ("default", "kube-node-lease", "kube-public", "kube-system")
    ]


def kubernetes_service() -> list[tuple[str, Json]]:
    """The Service `default/kubernetes`, and its endpoints: the API server inside the fabric."""
    labels = {"component": "apiserver", "provider": "kubernetes"}
    metadata = {"name": "kubernetes", "namespace": "default"}
    address = str(layout.FABRIC_V4.ip)
    port = {"name": "https", "port": layout.API_PORT, "protocol": "TCP"}
    spec = {
        "type": "ClusterIP",
        "clusterIP": str(layout.KUBERNETES_SERVICE),
        "clusterIPs": [str(layout.KUBERNETES_SERVICE)],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
        "sessionAffinity": "None",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": layout.API_PORT}],
    }
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**metadata, "labels": labels},
        "spec": spec,
        "status": {"loadBalancer": {}},
    }
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {**metadata, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [port]}],
    }
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [port],
    }
    return [("services", service), ("endpoints", endpoints), ("endpointslices.discovery.k8s.io", piece)]


def _stamped(bodies: list[Json], new_uid: Any) -> list[Json]:
    for body in bodies:
        body["metadata"] |= {"uid": new_uid(), "creationTimestamp": clock.now()}
    return bodies


def fill(store: Store, registry: Registry, bundles: tuple[str, ...], new_uid: Any) -> None:
    """Creates what is missing; leaves alone what is there."""
    wanted: list[tuple[str, list[Json]]] = [
        ("namespaces", _namespaces()),
        (f"clusterroles.{_RBAC}", _roles()),
        (f"clusterrolebindings.{_RBAC}", _bindings()),
        *((storage, [body]) for storage, body in kubernetes_service()),
    ]
    for storage, bodies in wanted:
        store.put_new(storage, _stamped(_missing(store, storage, bodies), new_uid))
    marker = store.get("configmaps", "kube-system", "ambit-shipped-definitions")
    if marker is None:
        _ship_definitions(store, registry, bundles, new_uid)


def _ship_definitions(store: Store, registry: Registry, bundles: tuple[str, ...], new_uid: Any) -> None:
    """Once per cluster, so that definitions the user deletes stay deleted."""
    bodies = [
        body for name in bundles for body in read_bundle(name) if body["kind"] == "CustomResourceDefinition"
    ]
    missing = _stamped(_missing(store, DEFINITIONS, bodies), new_uid)
    for body in missing:
        body["metadata"]["generation"] = 1
        body.pop("status", None)
        complete(body, registry)
    store.put_new(DEFINITIONS, missing)
    note = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ambit-shipped-definitions", "namespace": "kube-system"},
        "data": {"bundles": ",".join(bundles)},
    }
    store.put_new("configmaps", _stamped([note], new_uid))


def _missing(store: Store, storage: str, bodies: list[Json]) -> list[Json]:
    return [
        body
        for body in bodies
        if store.get(storage, body["metadata"].get("namespace", ""), body["metadata"]["name"]) is None
    ]
