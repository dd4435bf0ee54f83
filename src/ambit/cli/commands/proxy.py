"""`ambit proxy`: the agent of an L7 proxy."""

from pathlib import Path

import click

from ambit.cli.daemon_options import (
    Duration,
    Threads,
    certificate_lifetime_option,
    given,
    log_options,
    trust_options,
)
from ambit.cli.first_process import become_keeper
from ambit.cli.groups import Group
from ambit.core import names

_PATH = click.Path(path_type=Path)


@click.group("proxy", cls=Group)
def command() -> None:
    """Proxies of waypoints and gateways."""


@command.command("run")
@click.option("--gateway", required=True, envvar="GATEWAY_NAME", help="The Gateway whose proxy this is.")
@click.option(
    "--namespace", envvar="POD_NAMESPACE", required=True, help="Namespace of the Gateway and of this pod."
)
@click.option("--pod-name", envvar="POD_NAME", default="", hidden=True)
@click.option("--node-name", envvar="NODE_NAME", default="", hidden=True)
@click.option(
    "--service-account", envvar="SERVICE_ACCOUNT", help="Account of this pod.  [default: the Gateway's name]"
)
@click.option(
    "--control",
    envvar=["AMBIT_XDS_ADDRESS", "CA_ADDRESS", "CONTROL_ADDRESS"],
    default=f"istiod.{names.SYSTEM_NAMESPACE}.svc:{names.CONTROL_TLS_PORT}",
    show_default=True,
    help="The control plane: HOST:PORT or https://HOST:PORT.",
)
@trust_options
@click.option(
    "--run-dir", type=_PATH, envvar="AMBIT_RUN_DIR", help="Sockets.  [default: a new temporary directory]"
)
@certificate_lifetime_option
@click.option(
    "--cluster-id",
    envvar="CLUSTER_ID",
    default=names.DEFAULT_CLUSTER_ID,
    show_default=True,
    help="Name of this cluster.",
)
@click.option(
    "--trust-domain",
    envvar="TRUST_DOMAIN",
    default=names.DEFAULT_TRUST_DOMAIN,
    show_default=True,
    help="Trust domain of this proxy's identity.",
)
@click.option(
    "--concurrency",
    type=Threads(),
    envvar="ENVOY_CONCURRENCY",
    default=2,
    show_default=True,
    help="Envoy's worker threads.",
)
@click.option(
    "--drain",
    type=Duration(),
    envvar="TERMINATION_DRAIN_DURATION",
    default="20s",
    show_default=True,
    help="What requests under way get when the pod ends.",
)
@click.option(
    "--least-drain",
    type=Duration(),
    default="0s",
    show_default=True,
    help="What clients get at the least to go elsewhere when the pod ends.",
)
@log_options
def run(
    gateway: str,
    namespace: str,
    pod_name: str,
    node_name: str,
    service_account: str | None,
    control: str,
    root_cert: Path | None,
    token_file: Path | None,
    server_name: str,
    run_dir: Path | None,
    certificate_lifetime: float,
    cluster_id: str,
    trust_domain: str,
    concurrency: int,
    drain: float,
    least_drain: float,
    log_level: str,
    log_format: str,
) -> None:
    """Serve a waypoint or gateway in its pod, until SIGTERM."""
    import asyncio
    import tempfile

    from ambit.agent.channel import control_address
    from ambit.daemon.logs import set_up
    from ambit.proxy.main import main
    from ambit.proxy.settings import ProxySettings

    set_up(log_level, as_json=log_format == "json")
    settings = ProxySettings(
        gateway=gateway,
        namespace=namespace,
        pod=pod_name,
        node_name=node_name,
        service_account=service_account or gateway,
        run=run_dir or Path(tempfile.mkdtemp(prefix="ambit-proxy-")),
        control=control_address(control),
        root_cert=given(root_cert),
        token=given(token_file),
        server_name=server_name,
        certificate_lifetime=certificate_lifetime,
        cluster_id=cluster_id,
        trust_domain=trust_domain,
        concurrency=concurrency,
        drain=drain,
        least_drain=least_drain,
    )
    asyncio.run(main(settings))


@command.command(
    "keep",
    context_settings={"ignore_unknown_options": True},
    short_help="Run `ambit proxy run` again whenever it ends: the first process of the proxy's container.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def keep(options: tuple[str, ...]) -> None:
    """Run `ambit proxy run OPTIONS` again whenever it ends, until SIGTERM: the first process of the proxy's container.
    Envoy goes on when the agent dies."""
    become_keeper("proxy", options)
