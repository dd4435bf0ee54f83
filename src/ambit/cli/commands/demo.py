"""`ambit demo`."""

import os
import sys
import time
from collections.abc import Awaitable, Callable

import click

from ambit.cli.access import DEFAULT_NAME, instance_state, name_option, run
from ambit.cli.commands.local_forward import add_forward, free_port
from ambit.cli.demo.steps import NAMESPACE, Demo, Outcome
from ambit.cli.render.progress import Progress
from ambit.core.errors import AmbitError, BadInput
from ambit.kube.client import Client
from ambit.local.config import ClusterConfig, read_config
from ambit.local.instance.processes import Process, instance_processes
from ambit.local.instance.ready import wait_ready
from ambit.local.instance.record import InstanceRecord, read_record
from ambit.local.instance.start import start_instance
from ambit.local.instance.stop import stop_instance, undo
from ambit.local.layout import StateDirectory

Step = tuple[str, Callable[[], Awaitable[Outcome]]]


@click.command("demo")
@name_option
@click.option(
    "--once", is_flag=True, help="Take everything down at the end; exit with 1 when a claim did not hold."
)
def command(name: str | None, once: bool) -> None:
    """Two nodes with bookinfo under mutual TLS, each claim measured. A former demo is replaced."""
    state = instance_state(name)
    _make_room(state, name)
    holds = False
    try:
        holds = run(_demo(state, name or DEFAULT_NAME, once))
    finally:
        if once or sys.exc_info()[0] is not None:
            undo(state)
            click.echo("Everything the demo started is gone again", err=True)
    if not holds:
        click.echo("× not every claim held", err=True)
        sys.exit(1)


def _make_room(state: StateDirectory, name: str | None) -> None:
    """End a former demo. Raises BadInput when somebody's own instance runs under that name."""
    record = read_record(state)
    if record is not None and record.is_running() and not read_config(state).is_demo:
        flag = f" --name {name}" if name else ""
        raise BadInput(
            f"instance {name or DEFAULT_NAME!r} is running, and it is not a demo",
            f"type `ambit down{flag}` when you no longer need it, or give the demo another --name",
        )
    if stop_instance(state):
        click.echo(f"A former demo {name or DEFAULT_NAME!r} was there; it is replaced", err=True)


async def _demo(state: StateDirectory, name: str, once: bool) -> bool:
    progress = Progress()
    record = start_instance(state, ClusterConfig(name=name, is_demo=True))
    await wait_ready(state, record, 60.0, progress.done)
    async with Client.from_kubeconfig(state.kubeconfig) as client:
        demo = Demo(client, record)
        steps: tuple[Step, ...] = (
            ("bookinfo", demo.bookinfo),
            ("wire before enrolment", demo.wire_in_the_clear),
            ("enrolment", demo.enrol),
            ("traffic", demo.traffic),
            ("identities", demo.identities),
            ("wire after enrolment", demo.wire_encrypted),
            ("policy", demo.policy),
            ("no control plane", demo.without_control_plane),
        )
        outcomes = [await _run(label, step) for label, step in steps]
        _print_processes(instance_processes(record))
        click.echo(f"\nTook {progress.elapsed:.1f} s in all")
        if not once:
            port = free_port()
            await add_forward(client, NAMESPACE, "productpage", 9080, port)
            _print_farewell(record, name, port)
    return all(outcome.holds for outcome in outcomes)


async def _run(label: str, step: Callable[[], Awaitable[Outcome]]) -> Outcome:
    started = time.monotonic()
    try:
        outcome = await step()
    except AmbitError as problem:
        outcome = Outcome(False, (problem.message,))
    sign = click.style("✔", fg="green") if outcome.holds else click.style("×", fg="red")
    first, *rest = outcome.lines
    click.echo(f" {sign} {label:<22} {first}  ({time.monotonic() - started:.1f} s)")
    for line in rest:
        click.echo(f"   {'':<22} {line}")
    return outcome


def _print_processes(processes: tuple[Process, ...]) -> None:
    """Memory of the mesh's own processes, in MiB; applications are summed up."""
    click.echo(f"\n{'PROCESS':<16}{'PID':>8}{'PSS':>9}{'RSS':>9}{'ANONYMOUS':>11}   MiB")
    ours = [process for process in processes if process.part not in ("application", "shim")]
    for process in ours:
        sizes = (process.pss / 1024, process.rss / 1024, process.anonymous / 1024)
        click.echo(f"{process.part:<16}{process.pid:>8}{sizes[0]:>9.1f}{sizes[1]:>9.1f}{sizes[2]:>11.1f}")
    for part in ("shim", "application"):
        several = [process for process in processes if process.part == part]
        total = sum(process.pss for process in several) / 1024
        click.echo(f"{part + 's':<16}{len(several):>8}{total:>9.1f}")
    mesh = sum(process.pss for process in processes if process.part != "application") / 1024
    click.echo(f"{'without applications':<24}{mesh:>9.1f}")


def _print_farewell(record: InstanceRecord, name: str, port: int) -> None:
    flag = "" if name == DEFAULT_NAME else f" --name {name}"
    if activate := os.environ.get("AMBIT_ACTIVATE"):
        click.echo(f"\nThe command:   {activate}", nl=False)
    click.echo(f"\nThe page:      http://127.0.0.1:{port}/productpage")
    click.echo(f"Look around:   ambit flows -f{flag}    ambit workloads{flag}    ambit check{flag}")
    click.echo(
        f"               export KUBECONFIG=$(ambit local kubeconfig --path{flag}); kubectl get pods -A"
    )
    click.echo(f"Stop:          ambit down{flag}")
