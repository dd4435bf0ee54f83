"""What `ambit check --pre` looks at: can the mesh be installed into this cluster?"""

import msgspec

from ambit.cli.checks import NO_OTHER_MESH, Check, api_answers
from ambit.cli.helm import RELEASE, RELEASE_ANNOTATIONS
from ambit.core.names import SYSTEM_NAMESPACE
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import CONFIG_MAPS, DAEMON_SETS, DEPLOYMENTS, NODES, Resource

OLDEST = (1, 30)
"""The first Kubernetes whose API the charts and the control plane rely on (the charts' `kubeVersion`)."""
ARCHITECTURES = frozenset({"amd64", "arm64"})
"""Those that stock Envoy is published for."""
NEEDED = (
    ("create", "", "namespaces", ""),
    ("create", "", "secrets", SYSTEM_NAMESPACE),
    ("create", "", "serviceaccounts", SYSTEM_NAMESPACE),
    ("create", "", "services", SYSTEM_NAMESPACE),
    ("create", "apps", "deployments", SYSTEM_NAMESPACE),
    ("create", "apps", "daemonsets", SYSTEM_NAMESPACE),
    ("create", "rbac.authorization.k8s.io", "roles", SYSTEM_NAMESPACE),
    ("create", "rbac.authorization.k8s.io", "rolebindings", SYSTEM_NAMESPACE),
    ("create", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings", ""),
    ("create", "apiextensions.k8s.io", "customresourcedefinitions", ""),
    ("create", "admissionregistration.k8s.io", "validatingadmissionpolicies", ""),
    ("create", "admissionregistration.k8s.io", "validatingadmissionpolicybindings", ""),
)
"""Verb, group, resource and namespace of what an installation does."""
WORKLOADS = frozenset({"ambit-control", "ambit-node"})
"""What the charts run; others in the namespace are somebody's own."""
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)


async def _version_fits(client: Client) -> list[str]:
    told = msgspec.json.decode(await client.raw("GET", "/version"))
    found = tuple(int("".join(filter(str.isdigit, str(told[part]))) or 0) for part in ("major", "minor"))
    if found >= OLDEST:
        return []
    return [f"the cluster is Kubernetes {told['gitVersion']}, older than {OLDEST[0]}.{OLDEST[1]}"]


async def _permitted(client: Client) -> list[str]:
    problems = []
    for verb, group, resource, namespace in NEEDED:
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
        review = await client.create(ACCESS_REVIEWS, {"spec": {"resourceAttributes": attributes}})
        if not review["status"]["allowed"]:
            where = f" in namespace {namespace}" if namespace else ""
            problems.append(f"you may not {verb} {resource}{'.' if group else ''}{group}{where}")
    return problems


async def _nodes_fit(client: Client) -> list[str]:
    problems = []
    for node in await client.list(NODES):
        info = (node.get("status") or {}).get("nodeInfo") or {}
        system, architecture = info.get("operatingSystem", "linux"), info.get("architecture", "")
        if system == "linux" and architecture not in ARCHITECTURES:
            problems.append(
                f"node {node['metadata']['name']} is {architecture or 'of an unknown architecture'}: "
                "Envoy is published for amd64 and arm64"
            )
    return problems


async def _ours_by_helm(client: Client) -> list[str]:
    return [
        f"{kind.kind} {SYSTEM_NAMESPACE}/{each['metadata']['name']} is there, but not as Helm's release {RELEASE!r}"
        for kind in (DEPLOYMENTS, DAEMON_SETS)
        for each in await client.list(kind, SYSTEM_NAMESPACE)
        if each["metadata"]["name"] in WORKLOADS
        and not RELEASE_ANNOTATIONS.items() <= (each["metadata"].get("annotations") or {}).items()
    ]


async def _cilium_leaves_room(client: Client) -> list[str]:
    try:
        data = (await client.get(CONFIG_MAPS, "cilium-config", "kube-system")).get("data") or {}
    except NotFound:
        return []
    problems = []
    if data.get("cni-exclusive") == "true":
        problems.append("Cilium removes the configuration of other CNI plugins (cni.exclusive is true)")
    if data.get("bpf-lb-sock") == "true" and data.get("bpf-lb-sock-hostns-only") != "true":
        problems.append("Cilium translates Service addresses before the node proxy sees them (socketLB)")
    return problems


PRE_CHECKS = (
    Check(
        "kubernetes", "api-reachable", "the API server answers", "check --kubeconfig and --context", api_answers,
        is_fatal=True,
    ),
    Check(
        "kubernetes", "kubernetes-version", f"Kubernetes is {OLDEST[0]}.{OLDEST[1]} or newer", "upgrade the cluster",
        _version_fits,
    ),
    Check(
        "kubernetes", "permissions", "you may create what an installation creates",
        "use a kubeconfig with the ClusterRole cluster-admin", _permitted,
    ),
    Check(
        "kubernetes", "nodes-fit", "Envoy runs on each node",
        "keep node agents off it: `ambit install --set node.nodeSelector.NAME=VALUE` with a label of the other nodes",
        _nodes_fit,
    ),
    NO_OTHER_MESH,
    Check(
        "other software", "release", "what is installed of ambit was installed by Helm",
        "a cluster of `ambit up` has the mesh already; otherwise delete what is named",
        _ours_by_helm,
    ),
    Check(
        "other software", "cilium", "Cilium, if there, leaves room for the mesh",
        "set Cilium's Helm values cni.exclusive=false and socketLB.hostNamespaceOnly=true", _cilium_leaves_room,
        is_warning=True,
    ),
)  # fmt: skip
