"""The table of built-in kinds. Everything else about them (defaults, rules, columns) refers to it by
storage name."""

from ambit.local.apiserver.resources import ALL_VERBS, Resource, ScalePaths
from ambit.local.apiserver.storage.store import FieldReader, Json

_CREATE = ("create",)
_REPLICAS = ScalePaths(("spec", "replicas"), ("status", "replicas"), ("status", "selector"))


def _kind(
    api: str,
    plural: str,
    kind: str,
    *,
    short: str = "",
    cluster: bool = False,
    status: bool = False,
    scale: bool = False,
    counted: bool | None = None,
    extra: str = "",
    categories: str = "",
    verbs: tuple[str, ...] = ALL_VERBS,
    storage: str = "",
) -> Resource:
    group, _, version = api.rpartition("/")
    return Resource(
        group=group,
        version=version,
        plural=plural,
        kind=kind,
        singular=kind.lower(),
        list_kind=f"{kind}List",
        namespaced=not cluster,
        short_names=tuple(short.split()),
        categories=tuple(categories.split()),
        verbs=verbs,
        has_status=status,
        scale=_REPLICAS if scale else None,
        subresources=tuple(extra.split()),
        generation=status if counted is None else counted,
        storage=storage or (f"{plural}.{group}" if group else plural),
        storage_version=version,
    )


_POD_EXTRA = "attach binding ephemeralcontainers eviction exec log portforward resize"

KINDS: tuple[Resource, ...] = (
    _kind("v1", "bindings", "Binding", verbs=_CREATE),
    _kind("v1", "configmaps", "ConfigMap", short="cm"),
    _kind("v1", "endpoints", "Endpoints", short="ep"),
    _kind("v1", "events", "Event", short="ev"),
    _kind("v1", "limitranges", "LimitRange", short="limits"),
    _kind(
        "v1",
        "namespaces",
        "Namespace",
        short="ns",
        cluster=True,
        status=True,
        counted=False,
        extra="finalize",
    ),
    _kind("v1", "nodes", "Node", short="no", cluster=True, status=True, counted=False),
    _kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim", short="pvc", status=True, counted=False),
    _kind(
        "v1", "persistentvolumes", "PersistentVolume", short="pv", cluster=True, status=True, counted=False
    ),
    _kind("v1", "pods", "Pod", short="po", status=True, extra=_POD_EXTRA, categories="all"),
    _kind("v1", "podtemplates", "PodTemplate"),
    _kind(
        "v1",
        "replicationcontrollers",
        "ReplicationController",
        short="rc",
        status=True,
        scale=True,
        categories="all",
    ),
    _kind("v1", "resourcequotas", "ResourceQuota", short="quota", status=True, counted=False),
    _kind("v1", "secrets", "Secret"),
    _kind("v1", "serviceaccounts", "ServiceAccount", short="sa", extra="token"),
    _kind("v1", "services", "Service", short="svc", status=True, counted=False, categories="all"),
    _kind("apps/v1", "controllerrevisions", "ControllerRevision"),
    _kind("apps/v1", "daemonsets", "DaemonSet", short="ds", status=True, categories="all"),
    _kind("apps/v1", "deployments", "Deployment", short="deploy", status=True, scale=True, categories="all"),
    _kind("apps/v1", "replicasets", "ReplicaSet", short="rs", status=True, scale=True, categories="all"),
    _kind("apps/v1", "statefulsets", "StatefulSet", short="sts", status=True, scale=True, categories="all"),
    _kind("batch/v1", "cronjobs", "CronJob", short="cj", status=True, categories="all"),
    _kind("batch/v1", "jobs", "Job", status=True, categories="all"),
    _kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", counted=True),
    _kind("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", cluster=True),
    _kind("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", cluster=True),
    _kind("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
    _kind("rbac.authorization.k8s.io/v1", "roles", "Role"),
    _kind("coordination.k8s.io/v1", "leases", "Lease"),
    _kind(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        short="crd crds",
        cluster=True,
        status=True,
        categories="api-extensions",
    ),
    _kind(
        "admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        cluster=True,
        counted=True,
        categories="api-extensions",
    ),
    _kind(
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        cluster=True,
        status=True,
        categories="api-extensions",
    ),
    _kind(
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        cluster=True,
        counted=True,
        categories="api-extensions",
    ),
    _kind(
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        cluster=True,
        counted=True,
        categories="api-extensions",
    ),
    _kind("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", cluster=True, verbs=_CREATE),
    _kind("authentication.k8s.io/v1", "tokenreviews", "TokenReview", cluster=True, verbs=_CREATE),
    _kind("authorization.k8s.io/v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", verbs=_CREATE),
    _kind(
        "authorization.k8s.io/v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        cluster=True,
        verbs=_CREATE,
    ),
    _kind(
        "authorization.k8s.io/v1",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
        cluster=True,
        verbs=_CREATE,
    ),
    _kind(
        "authorization.k8s.io/v1", "subjectaccessreviews", "SubjectAccessReview", cluster=True, verbs=_CREATE
    ),
    _kind("networking.k8s.io/v1", "ingressclasses", "IngressClass", cluster=True, counted=True),
    _kind("networking.k8s.io/v1", "ingresses", "Ingress", short="ing", status=True),
    _kind("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", short="netpol", counted=True),
    _kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", short="pdb", status=True),
    _kind("events.k8s.io/v1", "events", "Event", short="ev", storage="events"),
    _kind(
        "autoscaling/v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        short="hpa",
        status=True,
        counted=False,
        categories="all",
    ),
    _kind("storage.k8s.io/v1", "storageclasses", "StorageClass", short="sc", cluster=True),
    _kind("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", short="pc", cluster=True, counted=True),
)


_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "events": _EVENT_FIELDS,
    "secrets": ("type",),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "services": ("spec.clusterIP", "spec.type"),
    "replicasets.apps": ("status.replicas",),
    "replicationcontrollers": ("status.replicas",),
    "jobs.batch": ("status.successful",),
}


def field_names(storage: str) -> tuple[str, ...]:
    """Fields besides metadata.name and metadata.namespace that built-in kinds select by."""
    return _FIELDS.get(storage, ())


def read_fields(paths: tuple[str, ...]) -> FieldReader:
    """Reads the given dotted paths as texts, the way field selectors compare them."""
    split = tuple((path, tuple(path.split("."))) for path in paths)

    def read(body: Json) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, path in split:
            value: object = body
            for step in path:
                value = value.get(step) if isinstance(value, dict) else None
            if name == "source" and isinstance(value, dict):
                value = value.get("component") or body.get("reportingComponent")
            found[name] = _text(value)
        return found

    return read


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


FIELD_READERS: dict[str, FieldReader] = {storage: read_fields(paths) for storage, paths in _FIELDS.items()}
