"""What people change in the objects that make a Gateway's proxy run, by strategic merge patches. Pure.

Patches are known to change only what they may (`ambit.ingest.gateway.overlays`). An autoscaler and a disruption budget
are made when a patch for one is there.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ambit.control.gateways.objects import Object, metadata_of, objects_name
from ambit.ingest.gateway.pod_labels import pods_selector
from ambit.kube.resource import (
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    POD_DISRUPTION_BUDGETS,
    Resource,
)
from ambit.model.proxy import Proxy
from ambit.objects.gateway import Gateway
from ambit.objects.strategic import strategic_patch
from ambit.objects.structural import Schema, inline

OPTIONAL = (HORIZONTAL_POD_AUTOSCALERS, POD_DISRUPTION_BUDGETS)
"""Kinds that are made when somebody wants them, and are taken away again."""


def _merged_by(key: str, **members: Schema) -> Schema:
    strategy = {"x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": key}
    return {**strategy, "items": {"properties": members}}


def _below(*path: str, **members: Schema) -> Schema:
    """The schema of an object in which these members are so far down."""
    found: Schema = {"properties": members}
    for name in reversed(path):
        found = {"properties": {name: found}}
    return found


_SCHEMAS: Mapping[str, Schema] = {
    "Deployment": _below(
        *("spec", "template", "spec"),
        containers=_merged_by("name", resources=_below(claims=_merged_by("name"))),
        topologySpreadConstraints=_merged_by("topologyKey"),
        imagePullSecrets=_merged_by("name"),
    ),
    "Service": _below("spec", ports=_merged_by("port")),
    "ServiceAccount": _below(imagePullSecrets=_merged_by("name")),
}
"""The lists that are merged, and by what (`patchMergeKey` of the API's types); others are replaced."""


def patched(
    objects: Iterable[tuple[Resource, Object]], gateway: Gateway, proxy: Proxy
) -> tuple[tuple[Resource, Object], ...]:
    """The objects with the patches for each, and those that there are for the sake of a patch. Raises PatchError."""
    kinds = {each.kind for each in proxy.parameters.patches}
    wanted = [each for each in _optional(gateway, proxy) if each[0].kind in kinds]
    return tuple((resource, _merged(resource, value, proxy)) for resource, value in (*objects, *wanted))


def scaled(
    objects: Iterable[tuple[Resource, Object]], live: Object | None
) -> tuple[tuple[Resource, Object], ...]:
    """With an autoscaler among the objects the Deployment has as many pods as the live one, if that is there. It is for
    this version of it only: the autoscaler may have scaled it meanwhile."""
    given = tuple(objects)
    replicas = (live.get("spec") or {}).get("replicas") if live is not None else None
    if (
        live is None
        or replicas is None
        or all(resource != HORIZONTAL_POD_AUTOSCALERS for resource, _ in given)
    ):
        return given
    version = {"resourceVersion": live["metadata"]["resourceVersion"]}

    def with_replicas(value: Object) -> Object:
        metadata = {**value["metadata"], **version}
        return {**value, "metadata": metadata, "spec": {**value["spec"], "replicas": replicas}}

    return tuple(
        (resource, with_replicas(value) if resource == DEPLOYMENTS else value) for resource, value in given
    )


def _optional(gateway: Gateway, proxy: Proxy) -> tuple[tuple[Resource, Object], ...]:
    target = {"apiVersion": DEPLOYMENTS.api_version, "kind": DEPLOYMENTS.kind, "name": objects_name(proxy)}
    selector = {"matchLabels": pods_selector(gateway)}
    metadata = metadata_of(gateway, proxy)
    return (
        (HORIZONTAL_POD_AUTOSCALERS, {"metadata": metadata, "spec": {"scaleTargetRef": target}}),
        (POD_DISRUPTION_BUDGETS, {"metadata": metadata, "spec": {"selector": selector}}),
    )


def _merged(resource: Resource, value: Object, proxy: Proxy) -> Object:
    for each in proxy.parameters.patches:
        if each.kind == resource.kind:
            schema = _SCHEMAS.get(each.kind, {})
            patch: dict[str, Any] = msgspec.json.decode(each.json)
            value = strategic_patch(value, patch, schema, inline)
    return value
