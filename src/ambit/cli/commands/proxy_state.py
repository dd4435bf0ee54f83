"""What node proxies know: `ambit workloads|services|policies|connections`.

Columns are those of `istioctl ztunnel-config`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import click

from ambit.cli.access import all_namespaces, cluster_options, open_client, run, with_client
from ambit.cli.mesh import ask_all, node_of, node_pods, note_missing_namespace
from ambit.cli.render.output import emit, output_option
from ambit.core.names import HBONE_PORT
from ambit.kube.client import Client
from ambit.model.workload import GatewayAddress

Row = list[str]
Dump = dict[str, Any]
Rows = Callable[[Dump], Iterable[Row]]


def _view(
    name: str, text: str, key: str, columns: list[str], rows: Rows, *, every_node: bool = False
) -> click.Command:
    """A command that prints one section of the node proxies' dump.

    What the control plane sent is the same on every node, so one is asked unless `every_node` or `--node` say more.
    """

    @click.command(name, help=text)
    @cluster_options
    @click.option("--node", default=None, metavar="NODE", help="Ask the proxy of this node.")
    @click.option("-n", "--namespace", default=None, metavar="NAME", help="Only of this namespace.")
    @all_namespaces
    @output_option
    def view(
        name: str | None,
        kubeconfig: str | None,
        context: str | None,
        node: str | None,
        namespace: str | None,
        everywhere: bool,
        output: str,
    ) -> None:
        namespace = None if everywhere else namespace

        async def work(client: Client) -> list[tuple[dict[str, Any], Any]]:
            pods = await node_pods(client, node)
            answers = await ask_all(client, pods if every_node or node else pods[:1], "/config_dump")
            chosen = [(pod, {key: in_words(only(dump[key], namespace))}) for pod, dump in answers]
            if not any(section[key] for _, section in chosen):
                await note_missing_namespace(client, namespace)
            return chosen

        answers = run(with_client(open_client(name, kubeconfig, context), work))
        if every_node:
            found = [[node_of(pod), *row] for pod, dump in answers for row in rows(dump)]
            emit(
                ["NODE", *columns], sorted(found), {node_of(pod): dump[key] for pod, dump in answers}, output
            )
        else:
            emit(columns, sorted(rows(answers[0][1])), answers[0][1][key], output)

    return view


def only(section: Any, namespace: str | None) -> Any:
    """A section of the dump, of one namespace when one is named."""
    if namespace is None:
        return section
    if isinstance(section, dict):
        return {key: state for key, state in section.items() if state["info"]["namespace"] == namespace}
    return [each for each in section if each["namespace"] == namespace]


def in_words(section: Any) -> Any:
    """A section without the names that nobody has: a waypoint that leads nowhere says in `refused` why."""
    if not isinstance(section, list):
        return section
    return [
        {**each, "waypoint": _in_words(each["waypoint"])} if each.get("waypoint") else each
        for each in section
    ]


def _in_words(waypoint: Dump) -> Dump:
    namespace, _, hostname = waypoint["destination"].partition("/")
    found = GatewayAddress(HBONE_PORT, namespace, hostname).refusal
    if found is None:
        return waypoint
    meant, why = found
    return {**waypoint, "destination": meant, "refused": why} if meant else {"refused": why}


def _waypoint(given: Dump) -> str:
    waypoint = given.get("waypoint") or {}
    refused = f" ({waypoint['refused']})" if "refused" in waypoint else ""
    return f"{waypoint.get('destination', 'None')}{refused}"


def _workload_rows(dump: Dump) -> Iterable[Row]:
    for workload in dump["workloads"]:
        addresses = workload.get("workloadIps") or [workload.get("hostname", "")]
        protocol = str(workload.get("protocol", "TCP"))
        yield [
            workload["namespace"], workload["name"], addresses[0], workload.get("node", ""), _waypoint(workload),
            protocol,
        ]  # fmt: skip


def _service_rows(dump: Dump) -> Iterable[Row]:
    for service in dump["services"]:
        endpoints = (service.get("endpoints") or {}).values()
        healthy = [endpoint for endpoint in endpoints if endpoint.get("status", "Healthy") == "Healthy"]
        addresses = ",".join(address.partition("/")[2] for address in service.get("vips") or ())
        yield [
            service["namespace"], service["name"], addresses, _waypoint(service), f"{len(healthy)}/{len(endpoints)}"
        ]  # fmt: skip


def _policy_rows(dump: Dump) -> Iterable[Row]:
    for policy in dump["policies"]:
        trial = " (dry run)" if policy.get("dryRun") else ""
        yield [policy["namespace"], policy["name"], policy["action"] + trial, policy["scope"]]


def _connection_rows(dump: Dump) -> Iterable[Row]:
    for state in dump["workloadState"].values():
        info = state["info"]
        workload = f"{info['name']}.{info['namespace']}"
        for direction in ("inbound", "outbound"):
            for connection in state.get("connections", {}).get(direction, ()):
                yield [
                    workload, direction.capitalize(), connection["src"], connection["originalDst"],
                    connection["actualDst"] or "-", connection["protocol"],
                ]  # fmt: skip


workloads = _view(
    "workloads",
    "Workloads that node proxies know, and how they are reached.",
    "workloads",
    ["NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL"],
    _workload_rows,
)
services = _view(
    "services",
    "Services that node proxies know, with healthy and all endpoints.",
    "services",
    ["NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"],
    _service_rows,
)
policies = _view(
    "policies",
    "Authorization policies as node proxies enforce them.",
    "policies",
    ["NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"],
    _policy_rows,
)
connections = _view(
    "connections",
    "Open connections of enrolled pods. Protocol pre-mesh: older than the enrolment, in plain text.",
    "workloadState",
    ["WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL"],
    _connection_rows,
    every_node=True,
)
