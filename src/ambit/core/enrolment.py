"""Which pods the mesh captures, from labels, annotations and namespaces alone. Follows Istio's ambient mode.

Source: istio.io/docs/ambient/usage/add-workloads (label `istio.io/dataplane-mode`): the pod's own label wins over
the namespace's, `none` opts out, pods in the host's network and pods with a sidecar are never captured, nor those of
namespaces that are excluded (istio-cni: `cni.excludeNamespaces`).
"""

from collections.abc import Collection, Mapping

from ambit.core.names import DATAPLANE_MODE_AMBIENT, DATAPLANE_MODE_LABEL, SIDECAR_ANNOTATION


def asks(namespace_labels: Mapping[str, str], pod_labels: Mapping[str, str]) -> bool:
    """Whether the labels of a pod and its namespace ask for capture."""
    mode = pod_labels.get(DATAPLANE_MODE_LABEL) or namespace_labels.get(DATAPLANE_MODE_LABEL)
    return mode == DATAPLANE_MODE_AMBIENT


def objection(
    namespace: str,
    pod_annotations: Mapping[str, str],
    *,
    host_network: bool = False,
    excluded: Collection[str] = (),
) -> str:
    """Why a pod is not captured whatever labels ask for; empty when nothing is against it."""
    if namespace in excluded:
        return exclusion(namespace)
    if host_network:
        return "the pod is in the host's network"
    if SIDECAR_ANNOTATION in pod_annotations:
        return "the pod has a sidecar"
    return ""


def exclusion(namespace: str) -> str:
    """What is said of pods in a namespace that is excluded."""
    return f"namespace {namespace} is excluded from the mesh"


def is_enrolled(
    namespace_labels: Mapping[str, str],
    pod_labels: Mapping[str, str],
    pod_annotations: Mapping[str, str],
    *,
    host_network: bool = False,
) -> bool:
    """Whether a pod with these labels and annotations is to be captured, unless its namespace is excluded."""
    return asks(namespace_labels, pod_labels) and not objection(
        "", pod_annotations, host_network=host_network
    )
