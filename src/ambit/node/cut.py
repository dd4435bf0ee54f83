"""Ends open connections that policy no longer allows.

Envoy decides when a connection opens; after a policy change the agent looks at what is open in each
concerned pod, decides again with `ambit.policy.decide`, and destroys exactly the sockets that are denied.
Who opened what came through the mesh follows from its source address, which the mesh preserves: whoever has it has
its identity, also if it left the mesh since. Who is not found there had one when the connection was accepted: it gets
the strictest answer that any identity would get. Nobody has one on a connection in plain text, be it redirected or
older than the pod's enrolment.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from ambit.core.address import Address, host_port, parse_host_port
from ambit.core.identity import Identity
from ambit.core.names import HBONE_PORT
from ambit.model.view import MeshView
from ambit.node.connections import Connection, Open, look
from ambit.node.netns import sockets
from ambit.plan.node import at_pod, node_proxy
from ambit.plan.values import LocalPod, LocalPods, NodeSettings
from ambit.policy.decide import ConnectionFacts, decide, rule_name
from ambit.policy.unidentified import decide_unidentified

_log = logging.getLogger("ambit.policy")
NOT_READ = "opened before requests were read"
UNIDENTIFIED = "of nobody known"
"""Stand for rules in records."""


class Refused(msgspec.Struct, frozen=True):
    """An open connection that may not be. `policy` is the rule as records name it; `plain`: nobody has an identity."""

    connection: Connection
    policy: str
    plain: bool = False


def denied(
    pod: LocalPod, open_now: Open, view: MeshView, pods: LocalPods, settings: NodeSettings
) -> list[Refused]:
    """The connections into `pod` that may not be, with the policy that says so."""
    workload = node_proxy.workload_of(pod, view, settings)
    if workload is None:
        return []
    policies, unknown = at_pod.policies_for(workload, view)
    ports = at_pod.ports_of(workload, view)
    older = frozenset(open_now.pre_mesh_inbound)
    found: list[Refused] = []
    delivered = [(each, False) for each in open_now.delivered]
    plain = [(each, True) for each in (*open_now.plaintext, *open_now.pre_mesh_inbound)]
    for connection, is_plain in (*delivered, *plain):
        identity = None if is_plain else _identity(connection.client, view, pods, settings)
        facts = ConnectionFacts(
            source=connection.client,
            destination=connection.destination,
            destination_port=connection.destination_port,
            identity=identity,
        )
        ask = decide if is_plain or identity is not None else decide_unidentified
        decision = ask(policies, facts, unknown)
        ruled = ports.get(connection.destination_port)
        if decision.allowed and ruled is not None:
            if ruled.is_read and connection in older:
                found.append(Refused(connection, NOT_READ, is_plain))
                continue
            decision = at_pod.decide_connection(ruled, connection.client, identity)
            if decision.allowed and not is_plain and identity is None and ruled.of_connections:
                found.append(Refused(connection, UNIDENTIFIED, is_plain))
                continue
        if not decision.allowed:
            found.append(Refused(connection, rule_name(decision), is_plain))
    return found


def unread(open_now: Open, ports: Collection[int]) -> list[Refused]:
    """The connections to these ports, which were opened before anybody read what comes there."""
    tunnelled = [(each, False) for each in open_now.delivered]
    plain = [(each, True) for each in (*open_now.plaintext, *open_now.pre_mesh_inbound)]
    return [
        Refused(each, NOT_READ, is_plain)
        for each, is_plain in (*tunnelled, *plain)
        if each.destination_port in ports
    ]


async def cut_denied(
    concerned: Iterable[LocalPod],
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
    before: Callable[[LocalPod], Collection[int]] = lambda _: (),
    note: Callable[[Refused], object] = lambda _: None,
) -> int:
    """Ends what is denied now in these pods; how many connections that were. `before`: see `connections.look`; `note`
    is told of each connection before it ends."""
    return await _cut(
        concerned, lambda pod, open_now: denied(pod, open_now, view, pods, settings), before, note
    )


async def cut_unread(
    ports: Mapping[str, Collection[int]],
    pods: LocalPods,
    before: Callable[[LocalPod], Collection[int]] = lambda _: (),
    note: Callable[[Refused], object] = lambda _: None,
) -> int:
    """As `cut_denied`, of all that is open to these ports (by the keys of pods)."""
    there = [pod for key in sorted(ports) if (pod := pods.by_key(key)) is not None]
    return await _cut(there, lambda pod, open_now: unread(open_now, ports[pod.key]), before, note)


async def _cut(
    concerned: Iterable[LocalPod],
    doom: Callable[[LocalPod, Open], list[Refused]],
    before: Callable[[LocalPod], Collection[int]],
    note: Callable[[Refused], object],
) -> int:
    ended = 0
    for pod in concerned:
        try:
            open_now = await asyncio.to_thread(look, pod, before(pod))
            refused = doom(pod, open_now)
            for each in refused:
                note(each)
            doomed = [each.connection.socket for each in refused]
            ended += await asyncio.to_thread(sockets.destroy, pod.netns, doomed)
        except OSError as problem:
            _log.warning("open connections of %s cannot be checked: %s", pod.key, problem.strerror or problem)
            continue
        for each in refused:
            connection = each.connection
            _log.warning(
                "cut %s -> %s%s: denied by %s",
                host_port(connection.client, connection.client_port),
                host_port(connection.destination, connection.destination_port),
                " (older than its enrolment)" if connection in open_now.pre_mesh_inbound else "",
                each.policy,
            )
    return ended


async def cut_tunnels(pods: Iterable[LocalPod]) -> int:
    """Ends all tunnels from and to these pods; how many those were."""
    ended = 0
    for pod in pods:
        try:
            found = await asyncio.to_thread(sockets.listing, pod.netns)
            tunnels = [each for each in found if HBONE_PORT in (each.local_port, each.peer_port)]
            ended += await asyncio.to_thread(sockets.destroy, pod.netns, tunnels)
        except OSError as problem:
            _log.warning("tunnels of %s cannot be cut: %s", pod.key, problem.strerror or problem)
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
    return workload.identity if workload is not None else None
