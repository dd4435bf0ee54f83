"""The routing that gives captured replies back to the proxy: marked packets are local (table 100).

The proxy delivers to a pod from the client's address; the pod's replies to that address carry the
connection's mark and must not leave the namespace. Numbers are istio-cni's.
"""

from collections.abc import Callable
from pathlib import Path

from ambit.core.errors import EnvironmentProblem
from ambit.core.names import CONNECTION_MARK, MARK_MASK
from ambit.node.netns import routing
from ambit.node.netns.enter import in_namespace

TABLE = 100
PRIORITY = 32764
RULE = routing.Rule(PRIORITY, TABLE, mark=(CONNECTION_MARK, MARK_MASK))


def ensure(netns: str) -> None:
    """Rule and route exist, once, for both families. Raises EnvironmentProblem."""

    def add() -> None:
        for family in routing.FAMILIES:
            routing.add_local_route(family, TABLE)
        routing.add_rule(RULE)

    change_in(netns, add)


def remove(netns: str) -> None:
    """Rule and route are gone. Raises EnvironmentProblem."""

    def drop() -> None:
        routing.remove_rule(RULE)
        for family in routing.FAMILIES:
            routing.remove_local_route(family, TABLE)

    change_in(netns, drop)


def change_in(netns: str, change: Callable[[], None]) -> None:
    """Changes routing in a namespace. Raises EnvironmentProblem."""
    try:
        in_namespace(Path(netns), change)
    except OSError as error:
        raise EnvironmentProblem(
            f"routing of captured traffic in {netns} cannot be changed: {error.strerror}",
            "the namespace must exist with its loopback interface up, and the agent needs CAP_NET_ADMIN",
        ) from error
