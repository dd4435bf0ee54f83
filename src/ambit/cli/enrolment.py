"""Policies that protect nothing because no pod of theirs is in the mesh, and labels that were meant to enrol. Pure.

Rules:
1. A policy counts when it could refuse something at a node: an AuthorizationPolicy, or a PeerAuthentication that says
   STRICT somewhere. What is for a waypoint (`targetRefs`) has findings of its own. Pods of gateways at the edge are not
   in the mesh, and their proxies enforce AuthorizationPolicies.
2. It is told only when it selects pods and none of them is enrolled or captured; a policy without pods is not.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ambit.cli.policy_references import Surroundings, is_edge, selected
from ambit.core.enrolment import exclusion, is_enrolled
from ambit.core.names import (
    DATAPLANE_MODE_AMBIENT,
    DATAPLANE_MODE_LABEL,
    DATAPLANE_MODE_NONE,
    NOT_CAPTURED_ANNOTATION,
    REDIRECTION_ANNOTATION,
    REDIRECTION_ENABLED,
    REVISION_LABEL,
)

Object = Mapping[str, Any]
INJECTION_LABEL = "istio-injection"
_MODES = (DATAPLANE_MODE_AMBIENT, DATAPLANE_MODE_NONE)
_FINISHED = frozenset({"Succeeded", "Failed"})


def should_be_captured(pod: Object, namespace_labels: Mapping[str, str]) -> bool:
    """Whether the labels of a pod, or of its namespace, ask for it, and its namespace is not excluded."""
    metadata = pod["metadata"]
    return (
        is_enrolled(
            namespace_labels,
            _labels(pod),
            metadata.get("annotations") or {},
            host_network=bool(pod["spec"].get("hostNetwork")),
        )
        and "deletionTimestamp" not in metadata
        and not _is_excluded(pod)
    )


def is_captured(pod: Object) -> bool:
    return _annotation(pod, REDIRECTION_ANNOTATION) == REDIRECTION_ENABLED


def why_not_captured(pod: Object) -> str:
    """What its node's agent says about it; empty when that says nothing."""
    return _annotation(pod, NOT_CAPTURED_ANNOTATION)


def excluded_namespaces(pods: Iterable[Object]) -> Iterator[str]:
    """One sentence for each namespace whose pods ask for capture though it is excluded, as agents say."""
    for name in sorted({pod["metadata"]["namespace"] for pod in pods if _is_excluded(pod)}):
        yield (
            f"pods of {name} ask to be in the mesh and stay outside: {exclusion(name)} (node.cni.excludeNamespaces, "
            "or --exclude-namespace of the node agent)"
        )


def unenrolled_policies(
    policies: Iterable[Object], namespaces: Iterable[Object], around: Surroundings
) -> Iterator[str]:
    """One sentence for each policy that protects nothing because no pod of those that it selects is in the mesh."""
    labels = {each["metadata"]["name"]: _labels(each) for each in namespaces}
    for policy in policies:
        metadata, spec = policy["metadata"], policy.get("spec") or {}
        if not _is_of_nodes(policy["kind"], spec):
            continue
        chosen = (spec.get("selector") or {}).get("matchLabels") or {}
        pods = [pod for pod in selected(chosen, metadata["namespace"], around) if not _has_ended(pod)]
        if pods and not any(
            is_captured(pod)
            or should_be_captured(pod, labels.get(pod["metadata"]["namespace"], {}))
            or (policy["kind"] == "AuthorizationPolicy" and is_edge(pod))
            for pod in pods
        ):
            count = "the one pod" if len(pods) == 1 else f"none of the {len(pods)} pods"
            verb = "is not" if len(pods) == 1 else "is"
            where = metadata["namespace"] if metadata["namespace"] != around.root_namespace else "NAMESPACE"
            yield (
                f"{policy['kind']} {metadata['namespace']}/{metadata['name']} protects nothing: {count} that it selects"
                f" {verb} in the mesh; `kubectl label namespace {where} "
                f"{DATAPLANE_MODE_LABEL}={DATAPLANE_MODE_AMBIENT}` enrols a namespace"
            )


def enrolment_labels(objects: Iterable[Object]) -> Iterator[str]:
    """One sentence for each Namespace or Pod whose labels were probably meant to enrol it, and do not."""
    for each in objects:
        labels, metadata = _labels(each), each["metadata"]
        name = (
            f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else metadata["name"]
        )
        title = f"{each['kind']} {name}"
        mode = labels.get(DATAPLANE_MODE_LABEL)
        if mode and mode not in _MODES:
            yield (
                f"{title} has {DATAPLANE_MODE_LABEL}={mode}, which means nothing: "
                f"the values are {' and '.join(_MODES)}, in small letters"
            )
        elif mode is None and labels.get(INJECTION_LABEL) == "enabled":
            yield (
                f"{title} has {INJECTION_LABEL}=enabled, which has no effect: there are no sidecars; "
                f"{DATAPLANE_MODE_LABEL}={DATAPLANE_MODE_AMBIENT} enrols it"
            )
        elif mode is None and each["kind"] == "Namespace" and labels.get(REVISION_LABEL):
            # Not of pods: those of istiod and of its gateways have the label themselves.
            yield (
                f"{title} has {REVISION_LABEL}={labels[REVISION_LABEL]}, which has no effect: there are no sidecars "
                f"and no revisions; {DATAPLANE_MODE_LABEL}={DATAPLANE_MODE_AMBIENT} enrols it"
            )


def _is_of_nodes(kind: str, spec: Object) -> bool:
    if kind == "PeerAuthentication":
        modes = [spec.get("mtls"), *(spec.get("portLevelMtls") or {}).values()]
        return any((mode or {}).get("mode") == "STRICT" for mode in modes)
    return not spec.get("targetRefs") and not spec.get("targetRef")


def _is_excluded(pod: Object) -> bool:
    return why_not_captured(pod) == exclusion(pod["metadata"]["namespace"])


def _annotation(pod: Object, name: str) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(name, ""))


def _has_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in _FINISHED


def _labels(value: Object) -> Mapping[str, str]:
    return value["metadata"].get("labels") or {}
