"""`ambit up`."""

import re
from pathlib import Path

import click

from ambit.cli.access import DEFAULT_NAME, instance_state, name_option, run
from ambit.cli.mesh_config import mesh_config_option, read_mesh_config, read_text
from ambit.cli.render.progress import Progress
from ambit.core.errors import BadInput
from ambit.local.config import ClusterConfig
from ambit.local.instance.ready import wait_ready
from ambit.local.instance.start import start_instance
from ambit.local.instance.stop import undo

_LABEL_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")


@click.command("up")
@name_option
@click.option("--nodes", default=2, show_default=True, type=click.IntRange(1, 32), help="Number of nodes.")
@click.option(
    "--gateway-api",
    default="experimental",
    show_default=True,
    type=click.Choice(["standard", "experimental"]),
    help="Which channel of the Gateway API's CRDs to install.",
)
@click.option("--region", "regions", multiple=True, help="Region of each node, in order (repeatable).")
@click.option("--zone", "zones", multiple=True, help="Zone of each node, in order (repeatable).")
@click.option(
    "--api-port", default=0, type=click.IntRange(0, 65535), help="Port of the API server on 127.0.0.1."
)
@mesh_config_option
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait until all is ready.",
)
def command(
    name: str | None,
    nodes: int,
    gateway_api: str,
    regions: tuple[str, ...],
    zones: tuple[str, ...],
    api_port: int,
    mesh_config_file: Path | None,
    timeout: float,
) -> None:
    """Start a laptop cluster with the mesh in it."""
    check_places("--region", regions, nodes)
    check_places("--zone", zones, nodes)
    read_mesh_config(mesh_config_file)
    state = instance_state(name)
    config = ClusterConfig(
        name=name or DEFAULT_NAME,
        nodes=nodes,
        gateway_api="standard" if gateway_api == "standard" else "experimental",
        regions=regions,
        zones=zones,
        mesh_config=read_text(mesh_config_file) if mesh_config_file is not None else "",
    )
    progress = Progress()
    record = start_instance(state, config, api_port)
    progress.done("namespaces")
    try:
        run(wait_ready(state, record, timeout, progress.done))
    except BaseException:
        progress.note("undoing: every process and namespace of the instance ends")
        undo(state)
        raise
    flag = f" --name {name}" if name else ""
    progress.note(f"Ready in {progress.elapsed:.1f} s. To look around:")
    progress.note(f"  export KUBECONFIG=$(ambit local kubeconfig --path{flag})")
    progress.note("  kubectl get pods -A")
    progress.note(f"  ambit check{flag}")
    progress.note(f"  ambit down{flag}")


def check_places(option: str, values: tuple[str, ...], nodes: int) -> None:
    """Raises BadInput unless these can be labels of so many nodes."""
    for value in values:
        if len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
            raise BadInput(
                f"{option} {value!r} cannot be a node's label",
                "use at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends",
            )
    if len(values) > nodes:
        raise BadInput(
            f"{option} is given {len(values)} times for {nodes} node{'s' if nodes > 1 else ''}",
            f"give it once for each node, or `--nodes {len(values)}`",
        )
