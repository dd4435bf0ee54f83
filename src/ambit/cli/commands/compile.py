"""`ambit compile`: the pipeline offline, from files of API objects to what nodes and their Envoys would be told."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ambit.cli.manifests import read_manifests
from ambit.cli.mesh_config import mesh_config_option, read_mesh_config
from ambit.cli.render.output import printable
from ambit.cli.trust_domain import trust_domain_aliases
from ambit.core.errors import BadInput
from ambit.core.finding import Level
from ambit.core.names import DEFAULT_CLUSTER_ID, DEFAULT_TRUST_DOMAIN, ROOT_NAMESPACE
from ambit.ingest.settings import MeshSettings
from ambit.insight.manifests import Compiled, compile_objects
from ambit.model.policy import Authorization
from ambit.model.service import Service
from ambit.model.workload import Workload

WORKLOADS, MODEL, ENVOY = "workloads", "model", "envoy"
MISTAKE = BadInput.exit_code
Value = Authorization | Service | Workload
Document = tuple[str, Any]
"""What a document shows, for its comment, and its content."""


@click.command("compile")
@click.argument("more", nargs=-1, metavar="[FILE]...")
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE",
    help="YAML or JSON of API objects, a folder of such files, or - for standard input; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice((WORKLOADS, MODEL, ENVOY)),
    default=WORKLOADS,
    show_default=True,
    help="Messages of the workload API, values of the mesh model, or resources of each node's Envoy.",
)
@click.option(
    "-n",
    "--namespace",
    default="default",
    show_default=True,
    metavar="NAME",
    help="Of objects that name none.",
)
@click.option("--pod", default="", metavar="NAMESPACE/NAME", help="With -o envoy: only this pod's resources.")
@click.option("--trust-domain", default=DEFAULT_TRUST_DOMAIN, show_default=True, help="Of all identities.")
@trust_domain_aliases
@click.option(
    "--root-namespace",
    default=ROOT_NAMESPACE,
    show_default=True,
    help="Namespace whose policies hold for the whole mesh.",
)
@click.option(
    "--cluster-id", default=DEFAULT_CLUSTER_ID, show_default=True, help="Name of the pods' cluster."
)
@click.option("--network", default="", help="Network that the pods share.")
@mesh_config_option
def command(
    more: tuple[str, ...],
    files: tuple[str, ...],
    output: str,
    namespace: str,
    pod: str,
    trust_domain: str,
    trust_domain_aliases: tuple[str, ...],
    root_namespace: str,
    cluster_id: str,
    network: str,
    mesh_config_file: Path | None,
) -> None:
    """What files of API objects come to: what nodes would be told, without a cluster.

    Reads what the control plane reads, as `kubectl get -o yaml` prints it: Namespaces, Nodes, Pods, Services,
    EndpointSlices, ConfigMaps, Secrets of listeners, Istio's policies, ServiceEntries, WorkloadEntries and Telemetries,
    and the kinds of the Gateway API. L7 proxies, their routes and rules about requests and tokens are shown
    with -o model. Findings go to standard error; with one of level error the exit code is 2.
    """
    if not files and not more:
        raise BadInput("no file to compile", "type `ambit compile -f FILE`")
    settings = MeshSettings(
        trust_domain=trust_domain,
        trust_domain_aliases=trust_domain_aliases,
        cluster_id=cluster_id,
        root_namespace=root_namespace,
        network=network,
    )
    settings = read_mesh_config(mesh_config_file).applied(settings)
    given = list(read_manifests((*files, *more)))
    if not given:
        click.echo(f"note: no object is in {', '.join((*files, *more))}", err=True)
    compiled = compile_objects(given, settings, namespace)
    if pod and pod not in {f"{each.namespace}/{each.name}" for each in compiled.workloads}:
        raise BadInput(
            f"no pod {pod} with an address is in what was given", "type its name as NAMESPACE/NAME"
        )
    written = 0
    for document in documents(compiled, output, pod):
        written += sys.stdout.write(as_yaml(*document))
    if given and not written and output == ENVOY:
        click.echo("note: no pod with a node is in what was given, so no Envoy is told anything", err=True)
    report(compiled)


def report(compiled: Compiled) -> None:
    """Notes and findings to standard error; exits with 2 when something could not be enforced as written."""
    for note in compiled.notes:
        click.echo(f"note: {printable(note)}", err=True)
    for finding in compiled.findings:
        click.echo(printable(str(finding)), err=True)
    if any(finding.level is Level.ERROR for finding in compiled.findings):
        sys.exit(MISTAKE)


def documents(compiled: Compiled, output: str, pod: str = "") -> Iterator[Document]:
    """In the order in which nodes must get them: policies, then services and workloads that name them."""
    values: tuple[Value, ...] = (*compiled.authorizations, *compiled.services, *compiled.workloads)
    match output:
        case "model":
            from ambit.core.plain import plain

            rules: tuple[Any, ...] = (*compiled.tokens, *compiled.request_policies)
            for value in (*values, *compiled.proxies, *compiled.routes, *rules):
                yield f"{type(value).__name__} {value.key}", plain(value)
        case "envoy":
            from ambit.insight.node_resources import node_resources
            from ambit.plan.readable import as_json as envoy_json

            for node, resource in node_resources(compiled, pod):
                yield f"{node}: {resource.name}", envoy_json(resource)
        case _:
            from ambit.xds.readable import as_json, message_name

            for value in values:
                yield f"{message_name(value)} {value.key}{_addresses(value)}", as_json(value)


def _addresses(value: Value) -> str:
    """Readable: the message has them as bytes."""
    found: list[str] = []
    if isinstance(value, Service):
        found = [str(each.address) for each in value.addresses]
    elif isinstance(value, Workload):
        found = [str(each) for each in value.addresses]
    return f" ({', '.join(found)})" if found else ""


def as_yaml(comment: str, content: Any) -> str:
    """One YAML document under a comment of one line."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    text = yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
    return f"---\n# {printable(comment)}\n{text}"
