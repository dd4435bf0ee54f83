"""`ambit local …`: the laptop cluster itself."""

import click

from ambit.cli.access import asked_state, instance_state, name_option, run, running_state
from ambit.cli.commands.local_forward import forward
from ambit.cli.commands.local_image import image
from ambit.cli.commands.local_node import node
from ambit.cli.groups import Group
from ambit.cli.render.output import emit, output_option
from ambit.core.errors import BadInput
from ambit.local.instance.record import read_record


@click.group("local", cls=Group)
def command() -> None:
    """Look into a laptop cluster."""


command.add_command(forward)
command.add_command(image)
command.add_command(node)


@command.command("kubeconfig")
@name_option
@click.option("--path", "only_path", is_flag=True, help="Print where the file is instead.")
def kubeconfig(name: str | None, only_path: bool) -> None:
    """Print the kubeconfig of the cluster's administrator."""
    state = running_state(name)
    click.echo(str(state.kubeconfig) if only_path else state.kubeconfig.read_text(), nl=only_path)


@command.command("status")
@name_option
@output_option
def status(name: str | None, output: str) -> None:
    """Processes of the instance, with their memory."""
    from ambit.local.instance.processes import instance_processes

    state = running_state(name)
    record = read_record(state)
    assert record is not None
    processes = instance_processes(record)
    rows = [
        [
            process.part,
            str(process.pid),
            f"{process.rss // 1024} MiB",
            f"{process.pss // 1024} MiB",
            process.command,
        ]
        for process in processes
    ]
    emit(["PART", "PID", "RSS", "PSS", "COMMAND"], rows, processes, output)


@command.command("logs")
@name_option
@click.argument("component", default="cluster")
@click.option("-f", "--follow", is_flag=True, help="Wait for more.")
@click.option("--tail", "last", default=-1, metavar="N", help="Only the last N lines; all when negative.")
def logs(name: str | None, component: str, follow: bool, last: int) -> None:
    """Print the log of a part: cluster, supervisor, or a file name from the logs directory.

    Logs of pods, the mesh's own included, are read with `kubectl logs`.
    """
    from ambit.cli.render.tail import tail

    state = asked_state(name)
    path = state.logs / f"{component}.log"
    if not path.is_file():
        known = sorted(file.stem for file in state.logs.glob("*.log"))
        raise BadInput(f"no log of {component!r}", f"there are: {', '.join(known) or 'none'}")
    tail(path, follow=follow, last=last)


@command.command("run", hidden=True)
@name_option
def run_cluster_process(name: str | None) -> None:
    """The cluster process. Started by the supervisor of an instance, inside its namespaces."""
    from ambit.local.cluster import run_cluster

    run(run_cluster(instance_state(name)))
