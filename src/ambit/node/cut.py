"""Ends open connections that policy no longer allows.

Envoy decides when a connection opens; after a policy change the agent looks at what is open in each
concerned pod, decides again with `ambit.policy.decide`, and destroys exactly the sockets that are denied.
Who opened a connection follows from its source address, which the mesh preserves: a captured pod of this
node or an HBONE workload has its identity, anybody else has none.
"""

import asyncio
import logging
from collections.abc import Iterable

from ambit.core.address import Address, parse_host_port
from ambit.core.identity import Identity
from ambit.model.view import MeshView
from ambit.model.workload import TunnelProtocol
from ambit.node.netns import sockets
from ambit.plan import node_proxy
from ambit.plan.values import LocalPod, LocalPods, NodeSettings
from ambit.policy.decide import ConnectionFacts, decide

_log = logging.getLogger("ambit.policy")


def denied(
    pod: LocalPod,
    connections: Iterable[sockets.Connection],
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> list[tuple[sockets.Connection, str]]:
    """The connections into `pod` that may not be, with the policy that says so."""
    workload = node_proxy.workload_of(pod, view, settings)
    if workload is None:
        return []
    policies, unknown = view.policies_for(workload)
    found: list[tuple[sockets.Connection, str]] = []
    for connection in connections:
        facts = ConnectionFacts(
            source=connection.client,
            destination=connection.destination,
            destination_port=connection.destination_port,
            identity=_identity(connection.client, view, pods, settings),
        )
        decision = decide(policies, facts, unknown)
        if not decision.allowed:
            found.append((connection, decision.policy or decision.reason.value))
    return found


async def cut_denied(
    concerned: Iterable[LocalPod], view: MeshView, pods: LocalPods, settings: NodeSettings
) -> int:
    """Ends what is denied now in these pods; how many connections that were."""
    ended = 0
    for pod in concerned:
        try:
            open_now = await asyncio.to_thread(sockets.inbound, pod.netns, pod.addresses)
            refused = denied(pod, open_now, view, pods, settings)
            ended += await asyncio.to_thread(sockets.destroy, pod.netns, [each for each, _ in refused])
        except OSError as problem:
            _log.warning("open connections of %s cannot be checked: %s", pod.key, problem.strerror or problem)
            continue
        for connection, policy in refused:
            _log.warning(
                "cut %s:%d -> %s:%d: denied by %s",
                connection.client,
                connection.client_port,
                connection.destination,
                connection.destination_port,
                policy,
            )
    return ended


def cut_short(client: str, server: str, pods: LocalPods) -> bool:
    """Resets the connection of a local pod from `client` (address:port), whose tunnel to `server` ended before all
    bytes were through: an ordinary end would make a part look like the whole. Blocks for a millisecond."""
    if not client:
        return False
    address, port = parse_host_port(client)
    pod = pods.by_address(address)
    if pod is None:
        return False
    try:
        ended = sockets.reset_outbound(pod.netns, address, port)
    except OSError as problem:
        _log.warning("%s cannot be reset: %s", client, problem.strerror or problem)
        return False
    _log.warning(
        "the tunnel of %s (%s) through %s was cut short; %s",
        client,
        pod.key,
        server,
        "its connection is reset"
        if ended
        else "it has ended already, and may have taken a part for the whole",
    )
    return ended


def _identity(client: Address, view: MeshView, pods: LocalPods, settings: NodeSettings) -> Identity | None:
    local = pods.by_address(client)
    if local is not None:
        return local.identity
    workload = view.workload_by_address(settings.network, client)
    return workload.identity if workload is not None and workload.tunnel is TunnelProtocol.HBONE else None
