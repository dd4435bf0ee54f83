"""`ambit node`: the agent of one node: run it, look at it, hand its Envoy over."""

from pathlib import Path
from typing import Any

import click

from ambit.cli import access
from ambit.cli.daemon_options import (
    Duration,
    Ranges,
    Threads,
    certificate_lifetime_option,
    given,
    log_options,
    trust_options,
)
from ambit.cli.first_process import become_keeper
from ambit.cli.groups import Group
from ambit.cli.mesh import Pod, ask, ask_all, node_of, node_pods
from ambit.cli.render.output import emit, emit_data, output_option
from ambit.cli.trust_domain import trust_domain_aliases
from ambit.core import names
from ambit.core.errors import AmbitError
from ambit.kube.client import Client

_PATH = click.Path(path_type=Path)
_force = click.option(
    "--force", is_flag=True, help="Also when an older Envoy still has connections: they are cut."
)


@click.group("node", cls=Group)
def command() -> None:
    """Node agents and their Envoys."""


@command.command("run")
@click.option("--node", envvar="NODE_NAME", required=True, help="Name of this node.")
@click.option(
    "--kubeconfig", type=_PATH, envvar="KUBECONFIG", help="API server; without it, the pod's cluster."
)
@click.option("--context", help="Context of the kubeconfig.")
@click.option(
    "--control",
    envvar=["AMBIT_XDS_ADDRESS", "CONTROL_ADDRESS"],
    default=f"istiod.{names.SYSTEM_NAMESPACE}.svc:{names.CONTROL_TLS_PORT}",
    show_default=True,
    help="The control plane, ambit's or another that speaks the workload API: HOST:PORT or https://HOST:PORT.",
)
@trust_options
@click.option(
    "--run-dir", type=_PATH, envvar="AMBIT_RUN_DIR", help="Sockets.  [default: /run/ambit/nodes/NODE]"
)
@click.option(
    "--state-dir",
    type=_PATH,
    envvar="AMBIT_STATE_DIR",
    default="/var/lib/ambit/node",
    show_default=True,
    help="State that survives a reboot.",
)
@click.option(
    "--netns-dir", type=_PATH, default="/run/ambit/netns", show_default=True, help="Pinned pod namespaces."
)
@click.option(
    "--host-proc",
    type=_PATH,
    envvar="AMBIT_HOST_PROC",
    help="The host's /proc, on Kubernetes: pods are a kubelet's, --netns-dir is the host's /var/run/netns.",
)
@click.option(
    "--cni-bin-dir",
    type=_PATH,
    help="On Kubernetes: folder of CNI plugins, to keep ambit's there.  [default: none]",
)
@click.option(
    "--cni-conf-dir",
    type=_PATH,
    default="/etc/cni/net.d",
    show_default=True,
    help="Folder of CNI configurations, with --cni-bin-dir.",
)
@click.option(
    "--cni-system-namespace",
    "cni_system_namespaces",
    multiple=True,
    default=["kube-system"],
    show_default=True,
    help="Namespace whose pods start also while the agent is away; repeatable.",
)
@click.option(
    "--sandbox-dir", type=_PATH, default="/run/ambit/sandboxes", show_default=True, help="Pod sandboxes."
)
@click.option(
    "--resolv-conf", type=_PATH, default="/etc/resolv.conf", show_default=True, help="Nameservers for pods."
)
@click.option(
    "--exclude-namespace",
    "excluded_namespaces",
    multiple=True,
    default=["kube-system"],
    show_default=True,
    help="Namespace whose pods are never captured, whatever labels say; repeatable, '' for none.",
)
@click.option(
    "--cluster-range",
    "cluster_ranges",
    multiple=True,
    type=Ranges(),
    default=["services"],
    show_default=True,
    help="CIDR whose addresses only pods and Services of this cluster have, repeatable: an unknown one is held, then "
    "refused. services: those of the ServiceCIDR objects; '' for none.",
)
@click.option(
    "--dns-capture/--no-dns-capture",
    envvar="AMBIENT_DNS_CAPTURE",
    default=True,
    show_default=True,
    help="Answer DNS questions of pods whose annotation says nothing about it.",
)
@click.option(
    "--dns-timeout",
    type=Duration(),
    envvar="DNS_FORWARD_TIMEOUT",
    default="5s",
    show_default=True,
    help="For all nameservers of a pod together to answer one question.",
)
@click.option(
    "--reconcile/--no-reconcile",
    envvar="AMBIENT_RECONCILE_POD_RULES_ON_STARTUP",
    default=True,
    show_default=True,
    help="At start, make the rules in captured pods what they should be now.",
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
    "--cluster-domain",
    envvar="CLUSTER_DOMAIN",
    default=names.CLUSTER_DOMAIN,
    show_default=True,
    help="Domain of service names.",
)
@click.option("--network", envvar="NETWORK", default="", help="Network that this node's pods are in.")
@click.option(
    "--trust-domain",
    envvar="TRUST_DOMAIN",
    default=names.DEFAULT_TRUST_DOMAIN,
    show_default=True,
    help="Trust domain of all identities.",
)
@trust_domain_aliases
@click.option("--pod-name", envvar="POD_NAME", default="", hidden=True)
@click.option("--pod-namespace", envvar="POD_NAMESPACE", default=names.SYSTEM_NAMESPACE, hidden=True)
@click.option("--pod-ip", envvar="INSTANCE_IP", default="", hidden=True)
@click.option(
    "--concurrency",
    type=Threads(),
    envvar="AMBIT_CONCURRENCY",
    default="1",
    show_default=True,
    help="Envoy's worker threads; auto: as many as the CPU limit, or else the node, gives processors, at most 8.",
)
@click.option(
    "--max-drain",
    type=click.IntRange(min=1),
    envvar="AMBIT_MAX_DRAIN",
    default=3600,
    show_default=True,
    help="Seconds an old Envoy may keep its connections.",
)
@click.option(
    "--capture",
    type=click.Choice(["auto", "nat", "tproxy"]),
    envvar="AMBIT_CAPTURE",
    default="auto",
    show_default=True,
    help="How pods are captured that start: by NAT, without it, or without it where the kernel can.",
)
@click.option(
    "--same-node-tls",
    is_flag=True,
    envvar="AMBIT_SAME_NODE_TLS",
    help="Tunnel also between pods of this node.",
)
@click.option(
    "--access-log/--no-access-log",
    envvar="AMBIT_ACCESS_LOG",
    default=True,
    show_default=True,
    help="Log each connection.",
)
@click.option("--admin-port", default=names.NODE_ADMIN_PORT, hidden=True)
@click.option("--metrics-port", default=names.METRICS_PORT, hidden=True)
@click.option("--readiness-port", default=names.READINESS_PORT, hidden=True)
@log_options
def run(
    node: str,
    control: str,
    run_dir: Path | None,
    state_dir: Path,
    root_cert: Path,
    token_file: Path,
    netns_dir: Path,
    sandbox_dir: Path,
    cni_bin_dir: Path | None,
    cni_conf_dir: Path,
    log_level: str,
    log_format: str,
    **others: object,
) -> None:
    """Capture this node's pods and serve its Envoy, until SIGTERM. Envoy outlives the agent."""
    import asyncio
    import os

    import msgspec

    from ambit.agent.channel import control_address
    from ambit.daemon.logs import set_up
    from ambit.node.main import main
    from ambit.node.settings import AgentSettings

    settings = msgspec.convert(
        {
            **others,
            "node": node,
            "control": control_address(control),
            "run": run_dir or Path("/run/ambit/nodes") / node,
            "state": state_dir,
            "root_cert": given(root_cert),
            "token": given(token_file),
            "namespaces": netns_dir,
            "sandboxes": sandbox_dir,
            "cni_programs": cni_bin_dir,
            "cni_configurations": cni_conf_dir,
            "log_as_json": log_format == "json",
        },
        AgentSettings,
    )
    set_up(log_level, as_json=log_format == "json")
    status = asyncio.run(main(settings))
    if status:
        # The successor waits for the end of this process: nothing is left to do for the interpreter.
        os._exit(status)


@command.command(
    "keep",
    context_settings={"ignore_unknown_options": True},
    short_help="Run `ambit node run` again whenever it ends: the first process of the node's container.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def keep(options: tuple[str, ...]) -> None:
    """Run `ambit node run OPTIONS` again whenever it ends, until SIGTERM: the first process of the node's container.
    Envoy goes on when the agent dies."""
    become_keeper("node", options)


@command.command("status")
@click.argument("node", required=False)
@access.cluster_options
@output_option
def status(
    node: str | None, name: str | None, kubeconfig: str | None, context: str | None, output: str
) -> None:
    """Agents, their Envoys, what an older Envoy still carries, and UDP packets of pods, sent/received, which pass
    beside the mesh (by pod with `-o json`)."""

    async def work(client: Client) -> list[dict[str, Any]]:
        answers = await ask_all(client, await node_pods(client, node), "/status")
        return [answer for _, answer in answers]

    found = access.run(access.with_client(access.open_client(name, kubeconfig, context), work))
    rows = [
        [
            each["node"],
            "yes" if each["ready"] else "; ".join(each["missing"]),
            _state(each["envoy"]),
            str(each["envoy"]["pid"] or ""),
            _older(each["envoy"]),
            str(len(each["pods"])),
            "/".join(str(_packets(each["pods"], direction)) for direction in ("sent", "received")),
            "yes" if each["connected"] else each["problem"] or "no",
        ]
        for each in found
    ]
    emit(["NODE", "READY", "ENVOY", "PID", "OLDER", "PODS", "UDP", "CONTROL PLANE"], rows, found, output)


@command.command("restart")
@click.argument("node")
@_force
@access.cluster_options
@output_option
def restart(
    node: str, force: bool, name: str | None, kubeconfig: str | None, context: str | None, output: str
) -> None:
    """Hand over to a new Envoy on NODE: no new connection is refused, open ones end in the old one."""

    async def work(client: Client) -> dict[str, Any]:
        (pod,) = await node_pods(client, node)
        return await _handed_over(client, pod, force=force)

    answer = access.run(access.with_client(access.open_client(name, kubeconfig, context), work))
    if output == "table":
        click.echo(_successor(answer))
    else:
        emit_data(answer, output)


@command.command("upgrade")
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@_force
@access.cluster_options
@output_option
def upgrade(
    nodes: tuple[str, ...],
    force: bool,
    name: str | None,
    kubeconfig: str | None,
    context: str | None,
    output: str,
) -> None:
    """Hand over to the Envoy that is installed now, one node after the other, where another one runs (`outdated` in
    `ambit node status`). Nothing is refused or cut. On Kubernetes a new image does it: `ambit install`."""

    async def work(client: Client) -> list[dict[str, Any]]:
        pods = [pod for node in nodes for pod in await node_pods(client, node)] or await node_pods(client)
        answers = []
        for pod in pods:
            before = await ask(client, pod, "/status")
            is_outdated = before["envoy"]["outdated"]
            answer = await _handed_over(client, pod, force=force) if is_outdated else before
            answers.append(answer)
            if output == "table":
                said = f"{answer['node']} runs the Envoy that is installed, pid {answer['envoy']['pid']}"
                click.echo(_successor(answer) if is_outdated else said)
        return answers

    answers = access.run(access.with_client(access.open_client(name, kubeconfig, context), work))
    if output != "table":
        emit_data(answers, output)


async def _handed_over(client: Client, pod: Pod, *, force: bool) -> dict[str, Any]:
    """The node's status afterwards. Raises AmbitError."""
    path = "/restart?force=1" if force else "/restart"
    answer: dict[str, Any] = await ask(client, pod, path, method="POST")
    if "error" in answer:
        raise AmbitError(f"{node_of(pod)}: {answer['error']}", str(answer.get("hint", "")))
    return answer


def _successor(answer: dict[str, Any]) -> str:
    envoy = answer["envoy"]
    older = "; the former one ends with its last connection" if envoy["state"] == "draining" else ""
    return f"A new Envoy serves {answer['node']}, pid {envoy['pid']}{older}"


def _packets(pods: list[dict[str, Any]], direction: str) -> int:
    return sum(pod["udp"][direction]["packets"] for pod in pods)


def _older(envoy: dict[str, Any]) -> str:
    if envoy["olderPid"] is None:
        return ""
    held = envoy["olderConnections"]
    count = "? connections" if held is None else "1 connection" if held == 1 else f"{held} connections"
    return f"pid {envoy['olderPid']}: {count}"


def _state(envoy: dict[str, Any]) -> str:
    """Of the Envoy whose number is beside it: while an older one drains, the newest serves."""
    state = "serving" if envoy["state"] == "draining" else str(envoy["state"])
    return f"{state}, outdated" if envoy["outdated"] else state
