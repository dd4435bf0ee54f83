"""Which connections were cut by a new policy, so that their records say so.

Policy decides by the ends of a connection, not by its ports: of those with the same ends and in the same way (with
identities or in plain text) all that are open at a moment are cut, or none is. So what began before the moment and
ended after it was cut.

The server of a tunnel is on another node, which does the cutting. But the policies are here as well: what was open
when they changed, ended since, and would be denied now, was cut. A server's node that is quicker than this one to hear
of a policy cuts before that, which is then not told here, but by `ambit flows`, which has the records of both sides
(`ambit.cli.both_sides`).
"""

from collections import OrderedDict, deque

import msgspec

from ambit.agent.record import Flow
from ambit.core.address import Address, host_port
from ambit.envoy import names
from ambit.node.flows.entry import SAME_NODE, TUNNEL, About

_KEPT = 2_000
_CHANGES = 32
_Ends = tuple[bool, str, str]
"""Whether in plain text, the client's address and the server's with port."""


class Cuts:
    """The newest cuts of a node. Times are in seconds since 1970."""

    def __init__(self) -> None:
        self._cuts: OrderedDict[_Ends, tuple[float, str]] = OrderedDict()
        self._changes: deque[float] = deque(maxlen=_CHANGES)

    def policies_changed(self, moment: float) -> None:
        """What policies say may be different from `moment` on."""
        self._changes.append(moment)

    def may_be_elsewhere(self, about: About, began: float, ended: float) -> bool:
        """Whether another node may have cut such a connection."""
        return (
            about.kind == names.LOG_OUTBOUND
            and about.route == TUNNEL
            and not about.denied
            and any(began < moment <= ended for moment in self._changes)
        )

    def __bool__(self) -> bool:
        return bool(self._cuts)

    def note(
        self, moment: float, client: Address, server: Address, port: int, policy: str, *, plain: bool
    ) -> None:
        """Connections with these ends are cut from `moment` on."""
        ends = plain, host_port(client, 0).rpartition(":")[0], host_port(server, port)
        self._cuts[ends] = moment, policy
        self._cuts.move_to_end(ends)
        if len(self._cuts) > _KEPT:
            self._cuts.popitem(last=False)

    def policy(self, about: About, began: float, ended: float) -> str | None:
        """The policy that cut such a connection; None for one that ended otherwise."""
        if about.denied:
            return None
        if about.kind == names.LOG_OUTBOUND:
            if about.route != SAME_NODE:
                return None
            ends = False, about.client, about.target or about.destination
        else:
            ends = about.kind == names.LOG_PLAINTEXT, about.client, about.destination
        moment, policy = self._cuts.get(ends, (0.0, ""))
        return policy if began < moment <= ended else None


def as_cut(flows: tuple[Flow, ...], policy: str) -> tuple[Flow, ...]:
    """Records that say it."""
    return tuple(
        msgspec.structs.replace(each, decision="deny", policy=policy, cut=True, error="", dry_run="")
        for each in flows
    )
