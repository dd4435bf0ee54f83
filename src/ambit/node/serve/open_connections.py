"""Open connections as `/connections` and the dump show them. Pure.

Fields are ztunnel's. What the proxy carries and how is known from its reports, which come after a connection has
lasted some seconds; before, a connection to a service shows no target, and the protocol `unknown`.
"""

from collections.abc import Iterable, Iterator, Mapping

from ambit.core.address import Address, host_port
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.model.workload import TunnelProtocol
from ambit.node.connections import Connection, Open
from ambit.node.flows.collector import Ongoing
from ambit.node.flows.entry import TUNNEL, About
from ambit.plan.values import LocalPod, LocalPods, NodeSettings

HBONE, TCP, UNKNOWN, PRE_MESH = "HBONE", "TCP", "unknown", "pre-mesh"
"""Values of `protocol`. A pre-mesh connection is older than the pod's enrolment, in plain text, past the proxy."""

OpenConnections = dict[str, list[dict[str, str]]]
"""Rows by direction, `inbound` and `outbound`."""
Reported = Mapping[tuple[str, str], About]


def reported(ongoing: Iterable[Ongoing]) -> Reported:
    """Reports about what pods opened, by pod key and client."""
    return {
        (each.about.pod, f"{each.about.client}:{each.port}"): each.about
        for each in ongoing
        if each.about.kind == names.LOG_OUTBOUND
    }


def open_connections(
    pod: LocalPod,
    open_now: Open,
    known: Reported,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> OpenConnections:
    """The rows of one pod."""

    def protocol(other: Address) -> str:
        if pods.by_address(other) is not None and not settings.same_node_tls:
            return TCP
        workload = view.workload_by_address(settings.network, other)
        return HBONE if workload is not None and workload.tunnel is TunnelProtocol.HBONE else TCP

    def outbound() -> Iterator[dict[str, str]]:
        for each in open_now.outbound:
            about = known.get((pod.key, host_port(each.client, each.client_port)))
            if about is not None:
                target = about.target or about.destination
                yield _row(each, HBONE if about.route == TUNNEL else TCP, target)
            elif view.service_by_address(settings.network, each.destination, client_namespace=pod.namespace):
                yield _row(each, UNKNOWN, "")
            else:
                yield _row(each, protocol(each.destination))

    return {
        "inbound": [
            *(_row(each, protocol(each.client)) for each in open_now.delivered),
            *(_row(each, TCP) for each in open_now.plaintext),
            *(_row(each, PRE_MESH) for each in open_now.pre_mesh_inbound),
        ],
        "outbound": [*outbound(), *(_row(each, PRE_MESH) for each in open_now.pre_mesh_outbound)],
    }


def _row(connection: Connection, protocol: str, target: str | None = None) -> dict[str, str]:
    destination = host_port(connection.destination, connection.destination_port)
    return {
        "src": host_port(connection.client, connection.client_port),
        "originalDst": destination,
        "actualDst": destination if target is None else target,
        "protocol": protocol,
    }
