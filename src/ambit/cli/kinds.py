"""Kinds of the Gateway API's experimental channel in a cluster.

The charts have the standard channel only: Helm keeps a release with its charts in one Secret, which has no room for
both. So `ambit install` applies these itself, and the charts leave them alone as kinds that are not of their release.
"""

import asyncio
from typing import Any

from ambit.cli.helm import FIELD_MANAGER, OURS, RELEASE_ANNOTATIONS, is_of_release, is_ours
from ambit.core.errors import AmbitError
from ambit.kube.client import Client
from ambit.kube.resource import CUSTOM_RESOURCE_DEFINITIONS
from ambit.objects.crds import read_bundle

CHANNEL = "gateway.networking.k8s.io/channel"
EXPERIMENTAL = "experimental"
Object = dict[str, Any]


def experimental_kinds() -> list[Object]:
    """Their definitions, marked as made by an installation; Helm deletes none of them."""
    found = []
    for each in read_bundle("gateway-experimental"):
        if each["kind"] == CUSTOM_RESOURCE_DEFINITIONS.kind:
            metadata = each["metadata"]
            annotations = {**metadata["annotations"], "helm.sh/resource-policy": "keep"}
            labels = metadata.get("labels", {}) | OURS
            marked = {**metadata, "labels": labels, "annotations": annotations}
            found.append(
                {
                    "apiVersion": each["apiVersion"],
                    "kind": each["kind"],
                    "metadata": marked,
                    "spec": each["spec"],
                }
            )
    return found


async def apply_experimental_kinds(client: Client) -> None:
    """Those of a former installation are brought to this channel, and are Helm's no longer; those of somebody else
    stay as they are. Raises AmbitError where these are of another channel, and changes nothing then."""
    there = {each["metadata"]["name"]: each for each in await client.list(CUSTOM_RESOURCE_DEFINITIONS)}
    wanted = experimental_kinds()
    theirs = {
        name: there[name]
        for name in (each["metadata"]["name"] for each in wanted)
        if name in there and not (is_ours(there[name]) or is_of_release(there[name]))
    }
    other = sorted(name for name, each in theirs.items() if _channel(each) != EXPERIMENTAL)
    if other:
        raise AmbitError(
            f"not of the experimental channel, and not of this installation: {', '.join(other)}",
            "bring them to the experimental channel as they were installed "
            "(https://gateway-api.sigs.k8s.io/guides/getting-started), or leave out --gateway-api",
        )
    async with asyncio.TaskGroup() as group:
        for each in wanted:
            name = each["metadata"]["name"]
            if name not in theirs:
                group.create_task(_apply(client, each, was_of_release=is_of_release(there.get(name, each))))


async def _apply(client: Client, kind: Object, *, was_of_release: bool) -> None:
    await client.apply(CUSTOM_RESOURCE_DEFINITIONS, kind, field_manager=FIELD_MANAGER, force=True)
    if was_of_release:
        change = {"metadata": {"annotations": dict.fromkeys(RELEASE_ANNOTATIONS)}}
        await client.patch(CUSTOM_RESOURCE_DEFINITIONS, kind["metadata"]["name"], change)


def _channel(kind: Object) -> str:
    return str((kind["metadata"].get("annotations") or {}).get(CHANNEL))
