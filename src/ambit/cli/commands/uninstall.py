"""`ambit uninstall`."""

import asyncio
import time
from typing import Any

import click

from ambit.cli import access
from ambit.cli.commands.install import LOOK_AGAIN
from ambit.cli.helm import RELEASE, helm, is_of_release, is_ours, kubeconfig_file
from ambit.cli.mesh import NODE_PROXIES, node_of, system_pods
from ambit.cli.render.progress import Progress
from ambit.core.errors import AmbitError, NotRunning
from ambit.core.names import (
    ACKNOWLEDGEMENTS_CONFIGMAP,
    AUTHORITY_SECRET,
    CONTROL_LEASE,
    CRL_CONFIGMAP,
    GATEWAY_CONTROLLER,
    REDIRECTION_ANNOTATION,
    REDIRECTION_ENABLED,
    ROOT_CERT_CONFIGMAP,
    ROOT_KEY_SECRET,
    SYSTEM_NAMESPACE,
    TRUST_CONFIGMAP,
    WAYPOINT_CONTROLLER,
)
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    GATEWAY_CLASSES,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    Resource,
)

EVERY_STATE = ("--deployed", "--failed", "--pending", "--superseded", "--uninstalled", "--uninstalling")
"""Options of `helm list` for releases in any state: Helm 3 lists some only, and Helm 4 has no `--all`."""
AGENTS_END = 90.0
"""Seconds for the node agents to end: they may need a quarter of a minute to be sure that they are not replaced."""
PUBLISHED = (ROOT_CERT_CONFIGMAP, CRL_CONFIGMAP)
"""What the control plane copies into each namespace."""
WRITTEN = (
    (CONFIG_MAPS, CRL_CONFIGMAP),
    (SECRETS, ROOT_KEY_SECRET),
    (SECRETS, AUTHORITY_SECRET),
    (CONFIG_MAPS, TRUST_CONFIGMAP),
    (CONFIG_MAPS, ACKNOWLEDGEMENTS_CONFIGMAP),
    (LEASES, CONTROL_LEASE),
    (CONFIG_MAPS, ROOT_CERT_CONFIGMAP),
)
"""What it writes into its own namespace, in the order in which it goes."""


@click.command("uninstall")
@click.option(
    "--purge",
    is_flag=True,
    help="Also the kinds that the installation made, with every object of them, and the root namespace.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Also while pods are captured: their traffic stops until they are restarted.",
)
@click.option(
    "--kubeconfig", default=None, metavar="FILE", help="Uninstall from the cluster of this kubeconfig."
)
@click.option("--context", default=None, metavar="NAME", help="Context of the kubeconfig.")
def command(purge: bool, force: bool, kubeconfig: str | None, context: str | None) -> None:
    """Remove the mesh from a Kubernetes cluster. Uses Helm.

    Your own objects stay, and so do the kinds they are of, unless --purge is given.
    """
    file = kubeconfig_file(kubeconfig)
    progress = Progress()

    def work(what: Any) -> Any:
        return access.run(access.with_client(Client.from_kubeconfig(file, context), what))

    if not force:
        work(_none_captured)
    release = ["list", "-q", *EVERY_STATE, "-n", SYSTEM_NAMESPACE, "-f", f"^{RELEASE}$"]
    if helm(release, kubeconfig=file, context=context):
        helm(["uninstall", RELEASE, "-n", SYSTEM_NAMESPACE, "--wait"], kubeconfig=file, context=context)
        progress.done("parts")
    elif not (work(_rest_left) or (purge and work(_made))):
        raise NotRunning(
            "the mesh is not installed in this cluster", "type `ambit install`, or check --kubeconfig"
        )
    left = work(_agents_ended)
    if not left:
        progress.done("nodes")
    work(_remove_rest)
    progress.done("certificates")
    if purge:
        work(_purge)
        progress.done("kinds")
    if left:
        raise AmbitError(
            f"the node agent has not ended on {', '.join(left)}, everything else is removed",
            "what such a node may keep: docs/kubernetes.md#uninstall",
        )


async def _none_captured(client: Client) -> None:
    captured = [
        pod["metadata"]["namespace"]
        for pod in await client.list(PODS)
        if (pod["metadata"].get("annotations") or {}).get(REDIRECTION_ANNOTATION) == REDIRECTION_ENABLED
    ]
    if captured:
        names = sorted(set(captured))
        many = "1 pod" if len(captured) == 1 else f"{len(captured)} pods"
        verb = "is" if len(captured) == 1 else "are"
        raise AmbitError(
            f"{many} in {', '.join(names)} {verb} captured, and without the node proxy would be cut off",
            f"type `kubectl label namespace {' '.join(names)} istio.io/dataplane-mode-` (and so for single pods), wait "
            "until the annotation ambient.istio.io/redirection is gone, and try again",
        )


async def _agents_ended(client: Client) -> list[str]:
    """Waits for the agents, which clear their nodes when they end; the nodes of those that have not."""
    deadline = time.monotonic() + AGENTS_END
    while pods := await system_pods(client, NODE_PROXIES):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(LOOK_AGAIN)
    return sorted(set(map(node_of, pods)))


async def _rest_left(client: Client) -> bool:
    """Whether an uninstallation was broken off after its first step."""
    try:
        namespace = await client.get(NAMESPACES, SYSTEM_NAMESPACE)
    except NotFound:
        return False
    if "deletionTimestamp" in namespace["metadata"]:
        return False
    return is_ours(namespace) or any([await _exists(client, kind, name) for kind, name in WRITTEN])


async def _remove_rest(client: Client) -> None:
    """What the control plane wrote, with our namespace if we made it. By the copies in that one others' objects are
    told from ours, so they go last: what is broken off can go on."""
    for each in await _classes(client):
        await _delete(client, GATEWAY_CLASSES, each)
    copies = [
        (each, each["metadata"]["namespace"] == SYSTEM_NAMESPACE)
        for name in PUBLISHED
        for each in await client.list(CONFIG_MAPS, field_selector=f"metadata.name={name}")
    ]
    ours = [each.get("data") for each, is_original in copies if is_original]
    for each, is_original in copies:
        if not is_original and each.get("data") in ours:
            await _delete(client, CONFIG_MAPS, each)
    try:
        namespace = await client.get(NAMESPACES, SYSTEM_NAMESPACE)
    except NotFound:
        return
    if is_ours(namespace):
        await _delete(client, NAMESPACES, namespace)
        return
    for kind, name in WRITTEN:
        await _delete(client, kind, {"metadata": {"name": name, "namespace": SYSTEM_NAMESPACE}})


async def _classes(client: Client) -> list[dict[str, Any]]:
    """GatewayClasses whose Gateways would be ours; none where the Gateway API is not installed."""
    try:
        found = await client.list(GATEWAY_CLASSES)
    except NotFound:
        return []
    ours = (WAYPOINT_CONTROLLER, GATEWAY_CONTROLLER)
    return [each for each in found if each["spec"].get("controllerName") in ours]


async def _purge(client: Client) -> None:
    for kind, each in await _made(client):
        await _delete(client, kind, each)


async def _made(client: Client) -> list[tuple[Resource, dict[str, Any]]]:
    """Kinds and namespaces that the installation made and that nobody has deleted yet."""
    return [
        (kind, each)
        for kind in (CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES)
        for each in await client.list(kind)
        if (is_of_release(each) or is_ours(each)) and "deletionTimestamp" not in each["metadata"]
    ]


async def _exists(client: Client, kind: Resource, name: str) -> bool:
    try:
        await client.get(kind, name, SYSTEM_NAMESPACE)
    except NotFound:
        return False
    return True


async def _delete(client: Client, kind: Resource, value: dict[str, Any]) -> None:
    metadata = value["metadata"]
    try:
        await client.delete(kind, metadata["name"], metadata.get("namespace"))
    except NotFound:
        return
