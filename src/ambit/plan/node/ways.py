"""Ways that a pod's connection can take: to one of several endpoints, into a tunnel, or nowhere."""

import msgspec

from ambit.core.address import host_port
from ambit.core.names import HBONE_PORT
from ambit.envoy import clusters, names
from ambit.envoy.logs import access_log
from ambit.envoy.words import AnyMessage
from ambit.plan.endpoints import Choice
from ambit.plan.node import networks

TUNNEL, SAME_NODE, DIRECT, REFUSED = networks.TUNNEL, "same-node", "direct", "refused"
INLINE = "inline"
"""Values of the access log's `route` tag."""


class Balanced(msgspec.Struct, frozen=True):
    """A connection goes to one of `endpoints`, by weight."""

    endpoints: tuple[clusters.Endpoint, ...]
    tags: dict[str, str]

    def tunnelled(self, family: int) -> tuple[clusters.Endpoint, ...]:
        """Those that a connection of this family can reach straight through a tunnel: it is made from the
        client's address, so the other family needs the hop."""
        return tuple(
            each
            for each in self.endpoints
            if each.listener == names.CONNECT_ORIGINATE and each.hop[0].version == family
        )

    def announcing(self, tags: dict[str, str]) -> tuple[clusters.Endpoint, ...]:
        """All endpoints; those reached through a tunnel say this in its request."""
        return tuple(
            msgspec.structs.replace(each, tags={**each.tags, **tags})
            if each.listener in {names.CONNECT_ORIGINATE, names.NETWORK_ORIGINATE}
            else each
            for each in self.endpoints
        )


def tunnel(choice: Choice, cluster: str) -> clusters.Endpoint:
    """Into the tunnel of this cluster, to the choice."""
    return clusters.Endpoint(
        listener=names.CONNECT_ORIGINATE,
        hop=(choice.address, HBONE_PORT),
        cluster=cluster,
        authority=host_port(choice.address, choice.port),
        weight=choice.workload.capacity,
        tags=tags_of(choice, TUNNEL),
    )


def tags_of(choice: Choice, route: str) -> dict[str, str]:
    """What logs say of a connection to the choice by this route."""
    return {
        access_log.ROUTE: route,
        access_log.WORKLOAD: choice.workload.uid,
        access_log.IDENTITY: choice.workload.identity.uri,
        access_log.TARGET: host_port(choice.address, choice.port),
    }


def refused(name: str, reason: str, tags: dict[str, str] | None = None) -> AnyMessage:
    """A cluster that resets connections at once, and why."""
    return clusters.refused(name, {**(tags or {}), access_log.ROUTE: REFUSED, access_log.REASON: reason})
