"""Admission of pods: what a namespace's labels ask of them, and of the objects that make pods.

Only pods are refused. Deployments and their like are stored with a warning, as on Kubernetes: their controller's
requests for pods are refused.
"""

from collections.abc import Mapping

from ambit.local.apiserver import pod_security
from ambit.local.apiserver.failures import forbidden
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.storage.store import Json, Store


def admit(store: Store, resource: Resource, body: Json, old: Json | None) -> list[str]:
    """Warnings for the client of a create or update. Raises ApiFailure 403."""
    metadata = body["metadata"]
    if resource.storage == "namespaces" and old is not None:
        return _admit_namespace(store, metadata, old["metadata"])
    pod = pod_security.pod_of(resource.storage, body)
    if pod is None:
        return []
    is_pod = resource.storage == "pods"
    if is_pod and old is not None and not pod_security.is_significant(pod, old):
        return []
    namespace = store.get("namespaces", "", metadata.get("namespace", ""))
    labels = _labels(namespace.decode()["metadata"]) if namespace is not None else {}
    if is_pod:
        enforced = pod_security.policy_of(labels, "enforce")
        if found := pod_security.violations(enforced, pod):
            why = f'violates PodSecurity "{enforced}": {pod_security.describe(found)}'
            raise forbidden(resource.plural, resource.group, metadata.get("name") or "", why)
    warned = pod_security.policy_of(labels, "warn")
    found = pod_security.violations(warned, pod)
    return [f'would violate PodSecurity "{warned}": {pod_security.describe(found)}'] if found else []


def _admit_namespace(store: Store, metadata: Json, before: Json) -> list[str]:
    old, new = (pod_security.policy_of(_labels(each), "enforce") for each in (before, metadata))
    if not pod_security.is_stricter(new, old):
        return []
    pods = [entry.decode() for entry in store.select("pods", metadata["name"])]
    return pod_security.warn_of_existing(metadata["name"], new, pods)


def _labels(metadata: Json) -> Mapping[str, str]:
    return metadata.get("labels") or {}
