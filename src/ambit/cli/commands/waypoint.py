"""`ambit waypoint …`: Gateways of the class of waypoints, with the options and columns of `istioctl waypoint`."""

import asyncio
import difflib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from ambit.cli.access import open_client, run, with_client
from ambit.cli.groups import Group
from ambit.cli.mesh import note_missing_namespace
from ambit.cli.render.output import emit, output_option
from ambit.cli.since import Duration
from ambit.cli.waypoints import (
    DEFAULT,
    Object,
    condition,
    enrolled_in,
    gateway,
    is_inline,
    is_programmed,
    row,
    status_row,
    users,
    waypoints_of,
)
from ambit.core.errors import AmbitError, BadInput
from ambit.core.names import DATAPLANE_MODE_AMBIENT as AMBIENT
from ambit.core.names import (
    DATAPLANE_MODE_LABEL,
    INLINE_CLASS,
    REVISION_LABEL,
    USE_WAYPOINT_LABEL,
    USE_WAYPOINT_NAMESPACE_LABEL,
    WAYPOINT_CLASSES,
    WAYPOINT_FOR_LABEL,
)
from ambit.kube.client import Client
from ambit.kube.errors import Conflict, NotFound
from ambit.kube.resource import (
    GATEWAY_CLASSES,
    GATEWAYS,
    NAMESPACES,
    PODS,
    SERVICE_ENTRIES,
    SERVICES,
    WORKLOAD_ENTRIES,
    Resource,
)
from ambit.model.proxy import WaypointFor

_MANAGER = "ambit-cli"
_LOOK_AGAIN = 0.2
_TIMEOUT = "90s"
_NO_API = "the Gateway API is not installed: apply its definitions, or `ambit install`"


def _options(*more: Any) -> Callable[[Any], Any]:
    """Which cluster and namespace; `--name` is the waypoint's, as in istioctl."""
    given = (
        click.option("--instance", default=None, metavar="NAME", help="Laptop instance.  [default: ambit]"),
        click.option(
            "--kubeconfig", default=None, metavar="FILE", help="Ask the cluster of this kubeconfig."
        ),
        click.option("--context", default=None, metavar="NAME", help="Context of the kubeconfig."),
        click.option(
            "-n", "--namespace", default=None, metavar="NAME", help="Namespace; else the context's."
        ),
    )

    def decorate(function: Any) -> Any:
        for option in reversed((*more, *given)):
            function = option(function)
        return function

    return decorate


_TRAFFIC = click.option(
    "--for",
    "traffic",
    type=click.Choice([each.value for each in WaypointFor]),
    default=None,
    help="What it takes.  [default: its class says, else service]",
)
_NAME = click.option("--name", "waypoint", default=DEFAULT, show_default=True, help="Name of the waypoint.")
_REVISION = click.option("-r", "--revision", default="", metavar="NAME", help="Label `istio.io/rev`.")
_INLINE = click.option(
    "--inline",
    "of_class",
    flag_value=INLINE_CLASS,
    default=WAYPOINT_CLASSES[0],
    help="Without pods of its own.",
)
_EVERYWHERE = click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
_PATIENCE = click.option(
    "--waypoint-timeout",
    "patience",
    type=Duration(),
    default=_TIMEOUT,
    show_default=True,
    help="How long to wait.",
)


@click.group("waypoint", cls=Group)
def command() -> None:
    """Make, list and delete waypoints."""


@command.command("generate")
@click.option("-n", "--namespace", default="", metavar="NAME", help="Its namespace; else none is written.")
@_NAME
@_TRAFFIC
@_REVISION
@_INLINE
def generate(namespace: str, waypoint: str, traffic: str | None, revision: str, of_class: str) -> None:
    """Print a waypoint as YAML."""
    import yaml

    made = gateway(waypoint, namespace, traffic or "", revision, of_class)
    click.echo(yaml.safe_dump(made, sort_keys=False), nl=False)


@command.command("apply")
@_options(_NAME, _TRAFFIC, _REVISION, _INLINE, _PATIENCE)
@click.option("-w", "--wait", is_flag=True, help="Wait until it is programmed.")
@click.option(
    "--enroll-namespace", "enroll", is_flag=True, help="Label the namespace with it, once it is programmed."
)
@click.option(
    "--overwrite", is_flag=True, help="With --enroll-namespace: also where it has another waypoint."
)
def apply(
    instance: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    waypoint: str,
    traffic: str | None,
    revision: str,
    of_class: str,
    patience: float,
    wait: bool,
    enroll: bool,
    overwrite: bool,
) -> None:
    """Make a waypoint, or change what it takes.

    With --enroll-namespace the namespace's services and pods go through it from then on. Nobody is sent past a waypoint
    that is not ready, so the label is set when the waypoint is programmed, whether or not --wait is given.

    With --inline it has no pods: callers' nodes route requests, and the nodes of the pods that serve enforce policies.
    """

    async def work(client: Client) -> None:
        place = namespace or client.namespace
        made = gateway(waypoint, place, traffic or "", revision, of_class)
        name = made["metadata"]["name"]
        found = await _namespace(client, place)
        if enroll:
            _check_namespace(found, name, overwrite=overwrite)
        await _note_change(client, made)
        _note_revision(revision)
        await _apply(client, made)
        click.echo(f"waypoint {place}/{name} applied")
        if wait or enroll:
            await _programmed(client, name, place, patience)
            click.echo(f"waypoint {place}/{name} is ready")
        if enroll:
            labels = {USE_WAYPOINT_LABEL: name, USE_WAYPOINT_NAMESPACE_LABEL: None}
            await client.patch(NAMESPACES, place, {"metadata": {"labels": labels}}, field_manager=_MANAGER)
            click.echo(f"namespace {place} labelled {USE_WAYPOINT_LABEL}={name}")

    run(with_client(open_client(instance, kubeconfig, context), work))


async def _namespace(client: Client, name: str) -> Object:
    """Raises BadInput when there is none of this name."""
    try:
        return await client.get(NAMESPACES, name)
    except NotFound as problem:
        known = [each["metadata"]["name"] for each in await client.list(NAMESPACES)]
        close = difflib.get_close_matches(name, known, 1)
        meant = f"did you mean -n {close[0]}? Else " if close else ""
        raise BadInput(
            f"there is no namespace {name}", f"{meant}type `kubectl create namespace {name}`"
        ) from problem


def _check_namespace(found: Object, name: str, *, overwrite: bool) -> None:
    """Raises BadInput when it has another waypoint."""
    namespace = found["metadata"]["name"]
    labels = found["metadata"].get("labels") or {}
    former = enrolled_in(labels, namespace)
    if former not in ("", f"{namespace}/{name}") and not overwrite:
        raise BadInput(f"namespace {namespace} has the waypoint {former}", "type --overwrite to replace it")
    if labels.get(DATAPLANE_MODE_LABEL) != AMBIENT:
        click.echo(
            f"note: namespace {namespace} is not in the mesh: "
            f"`kubectl label namespace {namespace} {DATAPLANE_MODE_LABEL}={AMBIENT}`",
            err=True,
        )


def _note_revision(revision: str) -> None:
    """What `--revision` does not do here, for those who know it from istioctl."""
    if revision:
        click.echo(
            f"note: there is one control plane, which serves waypoints of every revision: {REVISION_LABEL}={revision} "
            f"only chooses in `ambit waypoint list` and `ambit waypoint delete --revision {revision}`",
            err=True,
        )


async def _note_change(client: Client, made: Object) -> None:
    """What an option that was given before and is left out now comes to."""
    metadata = made["metadata"]
    try:
        former = await client.get(GATEWAYS, metadata["name"], metadata["namespace"])
    except NotFound:
        return
    title = f"note: waypoint {metadata['namespace']}/{metadata['name']}"
    if is_inline(former) and not is_inline(made):
        click.echo(
            f"{title} was inline and gets pods, until one is ready nobody gets through: --inline leaves it as it was. "
            "Without that gap: `ambit waypoint apply --name ANOTHER --wait`, and then change the labels",
            err=True,
        )
    took, takes = (each["metadata"].get("labels", {}).get(WAYPOINT_FOR_LABEL) for each in (former, made))
    if took and not takes:
        click.echo(f"{title} took {took}, which is left to its class now: --for {took} leaves it", err=True)


async def _apply(client: Client, made: Object) -> None:
    """Raises AmbitError with what is in the way."""
    try:
        await client.apply(GATEWAYS, made, field_manager=_MANAGER)
    except NotFound as problem:
        raise AmbitError(problem.message, _NO_API) from problem
    except Conflict as problem:
        hint = "choose another --name, or change the Gateway with the tool that made it"
        raise AmbitError(problem.message, hint) from problem


async def _programmed(client: Client, name: str, namespace: str, patience: float) -> None:
    """Raises AmbitError when it is not within `patience` seconds."""
    until = time.monotonic() + patience
    while not is_programmed(found := await client.get(GATEWAYS, name, namespace)):
        if time.monotonic() > until:
            said = condition(found)
            reason = f"{said.get('reason', '')}: {said.get('message', '')}"
            raise AmbitError(
                f"waypoint {namespace}/{name} is not programmed after {patience:g} s; {reason}",
                f"`kubectl -n {namespace} describe gateway {name}`",
            )
        await asyncio.sleep(_LOOK_AGAIN)


@command.command("list")
@_options(_EVERYWHERE)
@output_option
def list_waypoints(
    instance: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    everywhere: bool,
    output: str,
) -> None:
    """List waypoints, what they take and whether they are programmed."""

    async def work(client: Client) -> tuple[list[Object], dict[str, Object]]:
        place = None if everywhere else namespace or client.namespace
        found = await _waypoints(client, place)
        if not found:
            await _note_none(client, place)
        return found, {
            each["metadata"]["name"]: each for each in await client.list(GATEWAY_CLASSES)
        } if found else {}

    found, classes = run(with_client(open_client(instance, kubeconfig, context), work))
    columns = ["NAME", "REVISION", "TRAFFIC TYPE", "PROGRAMMED"]
    _show(columns, [row(each, classes) for each in found], found, output, everywhere=everywhere)


@command.command("status")
@_options(_EVERYWHERE, _PATIENCE)
@click.option(
    "-w",
    "--wait",
    type=bool,
    is_flag=False,
    flag_value="true",
    default="true",
    show_default=True,
    metavar="true|false",
    help="Wait until all are programmed.",
)
@output_option
def status(
    instance: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    everywhere: bool,
    patience: float,
    wait: bool,
    output: str,
) -> None:
    """What waypoints say of themselves. Exits with 1 when one is not programmed in time."""

    async def work(client: Client) -> list[Object]:
        until = time.monotonic() + patience
        while True:
            place = None if everywhere else namespace or client.namespace
            found = await _waypoints(client, place)
            if not found:
                await _note_none(client, place)
            if not wait or all(map(is_programmed, found)) or time.monotonic() > until:
                return found
            await asyncio.sleep(_LOOK_AGAIN)

    found = run(with_client(open_client(instance, kubeconfig, context), work))
    columns = ["NAME", "STATUS", "TYPE", "REASON", "PLACEMENT", "MESSAGE"]
    _show(columns, list(map(status_row, found)), found, output, everywhere=everywhere)
    if wait and not all(map(is_programmed, found)):
        raise click.exceptions.Exit(1)


async def _note_none(client: Client, namespace: str | None) -> None:
    """On standard error, with where there are some, if anywhere."""
    if namespace is None:
        click.echo("No waypoints found.", err=True)
        return
    click.echo(f"No waypoints found in namespace {namespace}.", err=True)
    await note_missing_namespace(client, namespace)
    if places := sorted({each["metadata"]["namespace"] for each in await _waypoints(client, None)}):
        click.echo(f"note: there are some in {', '.join(places)}: -n NAMESPACE, or -A", err=True)


async def _waypoints(client: Client, namespace: str | None) -> list[Object]:
    try:
        return waypoints_of(await client.list(GATEWAYS, namespace))
    except NotFound as problem:
        raise AmbitError(problem.message, _NO_API) from problem


def _show(
    columns: Sequence[str], rows: Iterable[Sequence[str]], data: Any, output: str, *, everywhere: bool
) -> None:
    """Each row begins with the namespace, which is shown when there may be several."""
    if output == "table" and not data:
        return
    if everywhere:
        emit(["NAMESPACE", *columns], list(rows), data, output)
    else:
        emit(columns, [each[1:] for each in rows], data, output)


@command.command("delete")
@_options(click.option("-r", "--revision", default="", metavar="NAME", help="All of this revision."))
@click.option("--all", "every", is_flag=True, help="All of the namespace.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def delete(
    instance: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    revision: str,
    every: bool,
    names: tuple[str, ...],
) -> None:
    """Delete waypoints by name, or all of a namespace.

    What is labelled with one that is gone refuses connections until the label is gone, too: a note says what is.
    """
    chosen = every or bool(revision)
    if chosen and names:
        raise BadInput("names and --all or --revision exclude each other", "give one of them")
    if not chosen and not names:
        raise BadInput("no waypoint is named", "name some, or type --all or --revision NAME")

    async def work(client: Client) -> None:
        place = namespace or client.namespace
        there = {each["metadata"]["name"]: each for each in await _waypoints(client, place)}
        wanted = names or [
            name for name, each in there.items() if not revision or _revision(each) == revision
        ]
        await _note_users(client, [f"{place}/{name}" for name in wanted if name in there])
        for name in wanted:
            if name in there:
                await client.delete(GATEWAYS, name, place)
                click.echo(f"waypoint {place}/{name} deleted")
        if not wanted:
            await _note_none(client, place)
        missing = [name for name in wanted if name not in there]
        if missing:
            hint = f"type `ambit waypoint list -n {place}`"
            for each in await _waypoints(client, None):
                metadata = each["metadata"]
                if metadata["name"] in missing:
                    hint = f"there is one in namespace {metadata['namespace']}: -n {metadata['namespace']}"
            known = ", ".join(f"{place}/{name}" for name in missing)
            raise AmbitError(f"there is no waypoint {known}", hint)

    run(with_client(open_client(instance, kubeconfig, context), work))


def _revision(waypoint: Object) -> str:
    return str((waypoint["metadata"].get("labels") or {}).get(REVISION_LABEL, ""))


async def _note_users(client: Client, keys: list[str]) -> None:
    labelled = [
        each
        for kind in (NAMESPACES, SERVICES, SERVICE_ENTRIES, WORKLOAD_ENTRIES, PODS)
        for each in await _labelled(client, kind)
    ]
    for what, key in users(labelled, keys):
        click.echo(
            f"note: {what} is labelled with {key} and refuses connections without it: "
            f"`kubectl label {what} {USE_WAYPOINT_LABEL}-`",
            err=True,
        )


async def _labelled(client: Client, kind: Resource) -> list[Object]:
    """None of a kind that is not installed."""
    try:
        return await client.list(kind, label_selector=USE_WAYPOINT_LABEL)
    except NotFound:
        return []
