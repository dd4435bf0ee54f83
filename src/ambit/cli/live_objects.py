"""What a running cluster has, compiled here as its control plane does."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ambit.cli.mesh import CONTROL_PLANES, system_pods
from ambit.core import names
from ambit.ingest.mesh_settings.mesh_config import mesh_config
from ambit.ingest.patch_limits import MOST_REPLICAS, PatchLimits
from ambit.ingest.settings import MeshSettings
from ambit.insight.manifests import Compiled, compile_objects
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import CONFIG_MAPS, Resource
from ambit.objects.decoding import PROJECTIONS, Projection

MESH_CONFIG_VOLUME = "mesh-config"


async def compile_cluster(client: Client) -> Compiled:
    """All objects that the compiler reads, as they are now. Raises Unreachable or an API error."""
    settings, *lists = await asyncio.gather(
        mesh_settings(client), *(_objects(client, each) for each in PROJECTIONS.values())
    )
    assert isinstance(settings, MeshSettings)
    return compile_objects(
        (given for several in lists if isinstance(several, list) for given in several), settings
    )


async def _objects(client: Client, of: Projection) -> list[tuple[str, object]]:
    kind = Resource(of.group, of.version, of.plural, of.kind)
    try:
        found = await client.list(kind, field_selector=of.field_selector or None)
    except NotFound:
        return []  # Istio's kinds are not installed
    return [(of.kind, value) for value in found]


async def mesh_settings(client: Client) -> MeshSettings:
    """What the control plane was started with."""
    for pod in await system_pods(client, CONTROL_PLANES):
        for container in pod["spec"].get("containers") or ():
            words = [*(container.get("command") or ()), *(container.get("args") or ())]
            if "control" in words:
                found = mesh_config(*await _mesh_config(client, pod)).applied(settings_of(words))
                return msgspec.structs.replace(found, system_namespace=pod["metadata"]["namespace"])
    return MeshSettings()


async def _mesh_config(client: Client, pod: Mapping[str, Any]) -> tuple[str, str]:
    """The text of the mesh's settings that a control plane's pod mounts, and what it is called."""
    for volume in pod["spec"].get("volumes") or ():
        if volume["name"] == MESH_CONFIG_VOLUME:
            name, namespace = volume["configMap"]["name"], pod["metadata"]["namespace"]
            try:
                found = await client.get(CONFIG_MAPS, name, namespace)
            except NotFound:
                break
            return (found.get("data") or {}).get(names.MESH_CONFIG_KEY, ""), f"ConfigMap {namespace}/{name}"
    return "", ""


def settings_of(words: Sequence[str]) -> MeshSettings:
    """The settings in a command line of `ambit control run`."""

    def options(name: str) -> Iterator[str]:
        for index, word in enumerate(words):
            if word == name and index + 1 < len(words):
                yield words[index + 1]
            if word.startswith(f"{name}="):
                yield word.partition("=")[2]

    def option(name: str, default: str) -> str:
        return next(options(name), default)

    most = option("--patch-replicas", "")
    return MeshSettings(
        trust_domain=option("--trust-domain", names.DEFAULT_TRUST_DOMAIN),
        cluster_id=option("--cluster-id", names.DEFAULT_CLUSTER_ID),
        root_namespace=option("--root-namespace", names.ROOT_NAMESPACE),
        network=option("--network", ""),
        trust_domain_aliases=tuple(options("--trust-domain-alias")),
        patches=PatchLimits(
            tuple(options("--patch-annotation")), int(most) if most.isdecimal() else MOST_REPLICAS
        ),
    )
