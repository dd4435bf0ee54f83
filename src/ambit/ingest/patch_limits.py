"""How far people may go with the pods that are made of a Gateway, unless the mesh's operator lets them go further.

Annotations are how webhooks that inject, and clouds that give rights to service accounts, are told whom to serve. Who
may write a Gateway or a ConfigMap need not be one who may have that, so only what is known to be harmless is passed on.
A key without a prefix is private to its user (Kubernetes: "Annotations"); what acts on others' objects has one.
"""

import msgspec

MESH_DOMAINS = ("istio.io", "ambit.io", "gateway.networking.k8s.io")
MOST_REPLICAS = 100
"""Of one Gateway, where nothing else is said."""
_ALL = "/*"
_HARMLESS = (
    "prometheus.io/*",
    "checksum/*",
    "cluster-autoscaler.kubernetes.io/safe-to-evict",
    "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes",
    "controller.kubernetes.io/pod-deletion-cost",
    "descheduler.alpha.kubernetes.io/evict",
    "descheduler.alpha.kubernetes.io/prefer-no-eviction",
    "karpenter.sh/do-not-disrupt",
    "kubectl.kubernetes.io/default-container",
    "kubectl.kubernetes.io/default-logs-container",
    "kubectl.kubernetes.io/restartedAt",
    "kubernetes.io/change-cause",
)
"""What scrapes, moves or shows a pod."""


class PatchLimits(msgspec.Struct, frozen=True):
    """`annotations` (`PREFIX/NAME`, or `PREFIX/*`) are admitted beside the harmless ones, on the Deployment, its pods
    and the service account."""

    annotations: tuple[str, ...] = ()
    replicas: int = MOST_REPLICAS

    def admits(self, annotation: str) -> bool:
        """Whether people may set it there."""
        prefix, slash, _ = annotation.partition("/")
        if not slash:
            return not annotation.startswith("$")
        if is_of_mesh(prefix):
            return False
        return not {annotation, prefix + _ALL}.isdisjoint((*_HARMLESS, *self.annotations))


def is_of_mesh(prefix: str) -> bool:
    """Whether keys with this prefix mean something to the mesh itself."""
    return any(prefix == each or prefix.endswith(f".{each}") for each in MESH_DOMAINS)


def annotation_problem(text: str) -> str:
    """Why it is not for `PatchLimits.annotations`; empty when it is."""
    prefix, _, name = text.partition("/")
    if not prefix or not name or "/" in name or "*" in prefix or ("*" in name and name != "*"):
        return "it is neither PREFIX/NAME nor PREFIX/*"
    if is_of_mesh(prefix):
        return "annotations of the mesh are its own"
    return ""
