"""Conditions of ServiceEntries of which a part is left out: what is not in the mesh is not bound to a waypoint."""

from collections.abc import Iterable, Sequence

import msgspec

from ambit.core.finding import Finding, Level
from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.ingest.gateway.conditions import PARTIALLY_INVALID, WAYPOINT_BOUND, no, yes
from ambit.model.service import Service
from ambit.model.status import Condition, ObjectStatus, Status

KIND = "ServiceEntry"
_OF_HOSTS = ("AMB0303", "AMB0307")
"""Warnings that leave a host, or its address, out."""


class LeftOut:
    """What is left out of ServiceEntries. `services` are theirs, `findings` are by the text of their object."""

    def __init__(self, services: Collection[Service], findings: Collection[tuple[Finding, ...]]) -> None:
        self._by_entry = services.index(lambda each: [f"{each.namespace}/{each.name}"])
        self._findings = findings

    def of(self, context: Context, key: str) -> tuple[bool, str]:
        """Whether nothing of an entry is reached by its addresses, and what is left out, in words; empty when nothing
        is."""
        found = context.get(self._findings, f"{KIND} {key}") or ()
        text = _texts(each for each in found if each.level is Level.ERROR or each.code in _OF_HOSTS)
        if not text:
            return False, ""
        services: Sequence[Service] = context.lookup(self._by_entry, key)
        return not any(each.addresses for each in services), text

    def status(self, context: Context, status: Status) -> Status:
        """The status, where an entry is called bound with what is left out."""
        origin = status.version.origin
        if origin.kind != KIND or not isinstance(status, ObjectStatus):
            return status
        if not any(each.type == WAYPOINT_BOUND and each.holds for each in status.conditions):
            return status
        nothing, text = self.of(context, f"{origin.namespace}/{origin.name}")
        if not text:
            return status

        def amended(condition: Condition) -> Condition:
            if condition.type != WAYPOINT_BOUND:
                return condition
            if nothing:
                return no(WAYPOINT_BOUND, "Invalid", f"no connection comes to the waypoint: {text}")
            return yes(WAYPOINT_BOUND, PARTIALLY_INVALID, f"{condition.message}; left out: {text}")

        return msgspec.structs.replace(status, conditions=tuple(map(amended, status.conditions)))


def _texts(findings: Iterable[Finding]) -> str:
    return "; ".join(f"{each.code} {each.path}: {each.text}" for each in findings)
