"""`ambit install`."""

import asyncio
import json
import time
from typing import Any

import click

from ambit.cli import access
from ambit.cli.checks import CHECKS, Outcome, run_checks
from ambit.cli.helm import (
    ADMISSION_POLICIES,
    FIELD_MANAGER,
    OURS,
    RELEASE,
    find_helm,
    helm,
    is_ours,
    kubeconfig_file,
    umbrella_chart,
)
from ambit.cli.kinds import EXPERIMENTAL, apply_experimental_kinds, experimental_kinds
from ambit.cli.mesh import in_charge
from ambit.cli.preflight import PRE_CHECKS
from ambit.cli.render.outcomes import print_outcomes
from ambit.cli.render.progress import Progress
from ambit.core.errors import AmbitError, BadInput
from ambit.core.names import SYSTEM_NAMESPACE
from ambit.kube.client import Client
from ambit.kube.conditions import has_condition
from ambit.kube.errors import NotFound
from ambit.kube.resource import CONTROLLER_REVISIONS, DAEMON_SETS, DEPLOYMENTS, NAMESPACES, PODS

READY = ("control-ready", "proxies-ready")
LOOK_AGAIN = 0.5
# Node agents enter the namespaces of pods, which no lesser level allows.
PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}
_REVISION = "controller-revision-hash"
Object = dict[str, Any]


def _refuse_revision(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Raises BadInput: istioctl's option for a second control plane does not exist here."""
    if value is not None:
        raise BadInput(
            f"--revision {value}: ambit has one control plane and no revisions, so nothing is installed",
            "leave out --revision: `ambit install` upgrades the mesh in place, see docs/kubernetes.md",
        )


@click.command("install")
@click.option(
    "-r",
    "--revision",
    default=None,
    hidden=True,
    expose_value=False,
    is_eager=True,
    callback=_refuse_revision,
)
@click.option(
    "--set", "values", multiple=True, metavar="KEY=VALUE", help="A value of the charts; may be repeated."
)
@click.option(
    "--set-string",
    "texts",
    multiple=True,
    metavar="KEY=VALUE",
    help="The same, always a text: a label `true`, a tag `1`.",
)
@click.option(
    "-f",
    "--values",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="A file of values; may be repeated.",
)
@click.option(
    "--gateway-api",
    type=click.Choice(["standard", EXPERIMENTAL]),
    default="standard",
    show_default=True,
    help="Which channel of the Gateway API's kinds to install. Experimental ones that are there stay.",
)
@click.option("--dry-run", is_flag=True, help="Print the objects and change nothing.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until all parts are ready.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait.")
@click.option("--force", is_flag=True, help="Also when `ambit check --pre` finds something wrong.")
@click.option(
    "--kubeconfig", default=None, metavar="FILE", help="Install into the cluster of this kubeconfig."
)
@click.option("--context", default=None, metavar="NAME", help="Context of the kubeconfig.")
def command(
    values: tuple[str, ...],
    texts: tuple[str, ...],
    files: tuple[str, ...],
    gateway_api: str,
    dry_run: bool,
    wait: bool,
    timeout: float,
    force: bool,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Install the mesh into a Kubernetes cluster, or upgrade it. Uses Helm.

    An upgrade sets every value anew: name all those that should differ from the charts' own each time.
    """
    options = [
        *(part for value in values for part in ("--set", value)),
        *(part for text in texts for part in ("--set-string", text)),
        *(part for file in files for part in ("--values", file)),
    ]
    with umbrella_chart() as chart:
        if dry_run:
            if gateway_api == EXPERIMENTAL:
                options += ["--set", "base.crds.gatewayAPI=false"]
                for kind in experimental_kinds():
                    click.echo(f"---\n{json.dumps(kind, separators=(',', ':'), ensure_ascii=False)}")
            template = ["template", RELEASE, str(chart), "-n", SYSTEM_NAMESPACE, *options]
            click.echo(helm([*template, "--api-versions", ADMISSION_POLICIES]), nl=False)
            return
        find_helm()
        progress = Progress()
        file = kubeconfig_file(kubeconfig)
        _prepare(Client.from_kubeconfig(file, context), force)
        progress.done("checks")
        if gateway_api == EXPERIMENTAL:
            access.run(access.with_client(Client.from_kubeconfig(file, context), apply_experimental_kinds))
            progress.done("kinds of the Gateway API")
        helm(
            ["upgrade", "--install", RELEASE, str(chart), "-n", SYSTEM_NAMESPACE, *options],
            kubeconfig=file,
            context=context,
        )
        progress.done("objects")
    if wait:
        access.run(access.with_client(Client.from_kubeconfig(file, context), lambda c: _ready(c, timeout)))
        progress.done("all parts ready")
    progress.note("To enrol a namespace, type `kubectl label namespace NAME istio.io/dataplane-mode=ambient`")


def _prepare(client: Client, force: bool) -> None:
    async def work(client: Client) -> list[Outcome]:
        outcomes = await run_checks(client, PRE_CHECKS)
        if force or all(outcome.result != "error" for outcome in outcomes):
            await _namespace(client)
        return outcomes

    outcomes = access.run(access.with_client(client, work))
    print_outcomes(outcomes, only_trouble=True, err=True)
    if not force and any(outcome.result == "error" for outcome in outcomes):
        raise AmbitError("the mesh was not installed", "see above; --force installs it nevertheless")


async def _namespace(client: Client) -> None:
    """Make the namespace; one that somebody made before stays theirs, also when the mesh is uninstalled."""
    try:
        found = await client.get(NAMESPACES, SYSTEM_NAMESPACE)
    except NotFound:
        labels = {**OURS, **PRIVILEGED}
    else:
        labels = {**OURS, **PRIVILEGED} if is_ours(found) else PRIVILEGED
    value = {"metadata": {"name": SYSTEM_NAMESPACE, "labels": labels}}
    await client.apply(NAMESPACES, value, field_manager=FIELD_MANAGER, force=True)


async def _ready(client: Client, timeout: float) -> None:
    """Raises AmbitError with what is missing."""
    wanted = [check for check in CHECKS if check.id in READY]
    deadline = time.monotonic() + timeout
    while True:
        missing = [each for each in await run_checks(client, wanted) if each.result != "success"]
        old = [] if missing else await _not_rolled_out(client)
        if not missing and not old:
            return
        if time.monotonic() > deadline:
            told = missing[0].error.splitlines() if missing else old
            hint = missing[0].hint if missing else f"type `kubectl -n {SYSTEM_NAMESPACE} get pods`"
            raise AmbitError("; ".join(told), hint)
        await asyncio.sleep(LOOK_AGAIN)


async def _not_rolled_out(client: Client) -> list[str]:
    """Parts of which pods of an older version are still in charge: those may be ready as well."""
    problems = []
    for each in await client.list(DEPLOYMENTS, SYSTEM_NAMESPACE):
        status = each.get("status") or {}
        wanted = each["spec"].get("replicas", 1)
        fresh, every = status.get("updatedReplicas", 0), status.get("replicas", 0)
        ready = status.get("availableReplicas", 0)
        if not _is_seen(each) or not wanted == fresh == every == ready:
            problems.append(_progress(each, DEPLOYMENTS.kind, fresh, wanted, ready))
    for each in await client.list(DAEMON_SETS, SYSTEM_NAMESPACE):
        # Not its status, which counts a node's oldest pod: that may keep connections long after it was replaced.
        wanted = (each.get("status") or {}).get("desiredNumberScheduled", 0)
        pods = in_charge(
            pod for pod in await client.list(PODS, SYSTEM_NAMESPACE) if _owner(pod) == _uid(each)
        )
        newest = await _newest_revision(client, each)
        fresh = sum(pod["metadata"].get("labels", {}).get(_REVISION) == newest for pod in pods)
        ready = sum(has_condition(pod, "Ready") for pod in pods)
        if not _is_seen(each) or not wanted == fresh == ready:
            problems.append(_progress(each, DAEMON_SETS.kind, fresh, wanted, ready))
    return problems


def _is_seen(part: Object) -> bool:
    observed = (part.get("status") or {}).get("observedGeneration")
    return bool(observed == part["metadata"]["generation"])


def _progress(part: Object, kind: str, fresh: int, wanted: int, ready: int) -> str:
    return f"{kind} {part['metadata']['name']}: {fresh} of {wanted} pods are new, {ready} are available"


def _uid(part: Object) -> str:
    return str(part["metadata"]["uid"])


def _owner(part: Object) -> str:
    owners = part["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


async def _newest_revision(client: Client, daemon_set: Object) -> str:
    """The label that pods of the present template have."""
    revisions = await client.list(CONTROLLER_REVISIONS, SYSTEM_NAMESPACE)
    ours = [each for each in revisions if _owner(each) == _uid(daemon_set)]
    newest = max(ours, key=lambda each: int(each["revision"]), default=None)
    return str(newest["metadata"]["labels"][_REVISION]) if newest is not None else ""
