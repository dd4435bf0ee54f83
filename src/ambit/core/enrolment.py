"""Which pods the mesh captures, from labels and annotations alone. Follows Istio's ambient mode.

Source: istio.io/docs/ambient/usage/add-workloads (label `istio.io/dataplane-mode`): the pod's own label wins over
the namespace's, `none` opts out, pods in the host's network and pods with a sidecar are never captured.
"""

from collections.abc import Mapping

from ambit.core.names import DATAPLANE_MODE_AMBIENT, DATAPLANE_MODE_LABEL, SIDECAR_ANNOTATION


def is_enrolled(
    namespace_labels: Mapping[str, str],
    pod_labels: Mapping[str, str],
    pod_annotations: Mapping[str, str],
    *,
    host_network: bool = False,
) -> bool:
    """Whether a pod with these labels and annotations is to be captured."""
    if host_network or SIDECAR_ANNOTATION in pod_annotations:
        return False
    mode = pod_labels.get(DATAPLANE_MODE_LABEL) or namespace_labels.get(DATAPLANE_MODE_LABEL)
    return mode == DATAPLANE_MODE_AMBIENT
