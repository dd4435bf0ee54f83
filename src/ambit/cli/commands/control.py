"""`ambit control`: the control plane."""

import datetime as dt
import ipaddress
from pathlib import Path

import click

from ambit import __version__
from ambit.cli.daemon_options import log_options
from ambit.cli.groups import Group
from ambit.cli.mesh_config import mesh_config_option, read_mesh_config
from ambit.cli.trust_domain import trust_domain_aliases
from ambit.core import names
from ambit.core.address import Network
from ambit.core.errors import BadInput
from ambit.ingest.patch_limits import MOST_REPLICAS, PatchLimits, annotation_problem

LEAST_LIFETIME, MOST_LIFETIME = 10, 30 * 86_400
"""Seconds: shorter ones could not be renewed in time; longer ones should not exist, for nothing cuts them off."""


@click.group("control", cls=Group)
def command() -> None:
    """Run the control plane."""


@command.command("run")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    envvar="KUBECONFIG",
    help="API server to use; without it, the cluster this pod runs in.",
)
@click.option("--context", help="Context of the kubeconfig.")
@click.option(
    "--trust-domain",
    default=names.DEFAULT_TRUST_DOMAIN,
    show_default=True,
    help="Trust domain of all identities.",
)
@trust_domain_aliases
@click.option(
    "--root-namespace",
    default=names.ROOT_NAMESPACE,
    show_default=True,
    help="Namespace whose policies hold for the whole mesh.",
)
@mesh_config_option
@click.option(
    "--system-namespace",
    default=names.SYSTEM_NAMESPACE,
    show_default=True,
    envvar="POD_NAMESPACE",
    help="Namespace of the control plane and of its root key.",
)
@click.option(
    "--cluster-id",
    default=names.DEFAULT_CLUSTER_ID,
    show_default=True,
    envvar="CLUSTER_ID",
    help="Name of this cluster.",
)
@click.option("--network", default="", help="Network that this cluster's pods share.")
@click.option(
    "--node-account",
    "node_accounts",
    multiple=True,
    metavar="NAMESPACE/NAME",
    help="Service account of node agents; may be repeated.",
)
@click.option(
    "--certificate-lifetime",
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="How long certificates of workloads live at most, as 90s, 30m or 12h.",
)
@click.option(
    "--proxy-image",
    default=f"ambit/ambit:{__version__}",
    show_default="of this version",
    help="Image of the pods of waypoints.",
)
@click.option(
    "--proxy-image-pull-policy",
    type=click.Choice(("Always", "IfNotPresent", "Never")),
    default="IfNotPresent",
    show_default=True,
    help="When that image is pulled.",
)
@click.option(
    "--jwks-network",
    "jwks_networks",
    multiple=True,
    metavar="CIDR",
    help="Network that is not public and has key servers of RequestAuthentications; may be repeated.",
)
@click.option(
    "--patch-annotation",
    "patch_annotations",
    multiple=True,
    metavar="KEY",
    help="Annotation, or PREFIX/*, that Gateways and their patches may set on pods, Deployments and service"
    " accounts beside harmless ones; may be repeated.",
)
@click.option(
    "--patch-replicas",
    type=click.IntRange(min=1),
    default=MOST_REPLICAS,
    show_default=True,
    help="How many pods patches of a Gateway may want at most.",
)
@click.option("--instance", default="ambit-control", envvar="POD_NAME", help="Name of this replica.")
@click.option("--port", default=names.CONTROL_TLS_PORT, show_default=True, help="Port for nodes (TLS).")
@click.option(
    "--plain-port", default=names.CONTROL_PLAIN_PORT, show_default=True, help="Port on loopback without TLS."
)
@click.option(
    "--debug-port",
    default=names.CONTROL_DEBUG_PORT,
    show_default=True,
    help="Port on loopback for metrics and debugging.",
)
@click.option(
    "--metrics-address",
    "metrics_addresses",
    envvar="POD_IPS",
    default="",
    metavar="ADDRESS[,ADDRESS]",
    help="Addresses on which the debug port serves /metrics, and nothing else, to the pod network.",
)
@click.option(
    "--readiness-port",
    type=int,
    default=None,
    help="Port on all addresses: /ready says whether it serves, /live whether it answers at all.",
)
@click.option(
    "--memory-limit",
    type=click.IntRange(min=0),
    default=0,
    envvar="AMBIT_MEMORY_LIMIT",
    metavar="BYTES",
    help="Memory that this process may have: from 80 % of it on, it serves node agents only.",
)
@log_options
def run(
    kubeconfig: Path | None,
    context: str | None,
    trust_domain: str,
    trust_domain_aliases: tuple[str, ...],
    root_namespace: str,
    mesh_config_file: Path | None,
    system_namespace: str,
    cluster_id: str,
    network: str,
    node_accounts: tuple[str, ...],
    certificate_lifetime: str,
    proxy_image: str,
    proxy_image_pull_policy: str,
    jwks_networks: tuple[str, ...],
    patch_annotations: tuple[str, ...],
    patch_replicas: int,
    instance: str,
    port: int,
    plain_port: int,
    debug_port: int,
    metrics_addresses: str,
    readiness_port: int | None,
    memory_limit: int,
    log_level: str,
    log_format: str,
) -> None:
    """Serve the workload API and certificates to nodes, until SIGTERM."""
    import asyncio
    import logging

    from ambit.control.main import main
    from ambit.control.settings import Settings
    from ambit.daemon.logs import event, set_up

    mesh_config = read_mesh_config(mesh_config_file)
    settings = Settings(
        trust_domain=trust_domain,
        trust_domain_aliases=trust_domain_aliases,
        root_namespace=root_namespace,
        entry_visibility=mesh_config.entry_visibility,
        logs=mesh_config.logs,
        authorizers=mesh_config.authorizers,
        tracing=mesh_config.tracing,
        trusted_proxies=mesh_config.trusted_proxies,
        by_server_name=mesh_config.server_names,
        system_namespace=system_namespace,
        cluster_id=cluster_id,
        network=network,
        instance=instance,
        leaf_lifetime=_lifetime(certificate_lifetime),
        proxy_image=proxy_image,
        proxy_image_pull_policy=proxy_image_pull_policy,
        key_networks=tuple(_network(each) for each in jwks_networks),
        patches=PatchLimits(tuple(map(_annotation, patch_annotations)), patch_replicas),
        tls_port=port,
        plain_port=plain_port,
        debug_port=debug_port,
        metrics_addresses=tuple(filter(None, metrics_addresses.split(","))),
        readiness_port=readiness_port,
        memory_limit=memory_limit,
    )
    if node_accounts:
        settings = settings.with_accounts(_account(each) for each in node_accounts)
    set_up(log_level, as_json=log_format == "json")
    for each in mesh_config.ignored:
        event(logging.getLogger("ambit.control"), logging.WARNING, f"ignored: {each}")
    asyncio.run(main(settings, kubeconfig, context))


def _lifetime(text: str) -> dt.timedelta:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = text[:-1], text[-1:]
    if not number.isascii() or not number.isdecimal() or unit not in units:
        raise BadInput(f"{text!r} is no duration", "write a number and s, m or h: 90s, 30m, 12h")
    seconds = int(number) * units[unit]
    if not LEAST_LIFETIME <= seconds <= MOST_LIFETIME:
        raise BadInput(f"certificates cannot live for {text}", "choose between 10s and 720h")
    return dt.timedelta(seconds=seconds)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as problem:
        raise BadInput(f"{text!r} is no network: {problem}", "write --jwks-network 10.20.0.0/16") from problem


def _annotation(text: str) -> str:
    problem = annotation_problem(text)
    if problem:
        hint = "write --patch-annotation eks.amazonaws.com/role-arn"
        raise BadInput(f"{text!r} cannot be admitted: {problem}", hint)
    return text


def _account(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        raise BadInput(f"{text!r} is no service account", "write --node-account NAMESPACE/NAME")
    return namespace, name
