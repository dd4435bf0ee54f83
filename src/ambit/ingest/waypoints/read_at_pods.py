"""Pods whose node is to enforce rules about requests: closed where it does not (`ambit.model.inline_rules`).

Every pod of the mesh that serves such a service gets a policy that denies its ports to everybody. Nodes that enforce
the rules lift it; the others, stock ztunnels among them, do what it says.
"""

from collections.abc import Mapping

import msgspec

from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.model.inline_rules import READ_AT_POD
from ambit.model.policy import Authorization
from ambit.model.service import Service
from ambit.model.workload import TunnelProtocol, Workload


class ReadAtPods:
    """`workload` gives a pod the names of the policies that `authorizations` makes for it."""

    def __init__(self, graph: Graph, services: Collection[Service]) -> None:
        ruled = graph.derive(
            "services with rules for their pods",
            services,
            lambda _, given: given if given.enforced is not None else None,
        )
        self._ruled = ruled.index(lambda each: [each.namespace])

    def workload(self, context: Context, given: Workload) -> Workload:
        """The same pod, with the policies of what it serves."""
        made = self._of(context, given)
        if not made:
            return given
        return msgspec.structs.replace(given, policies=tuple(sorted({*given.policies, *made})))

    def authorizations(self, context: Context, given: Workload) -> Mapping[str, Authorization]:
        """The policies that `workload` has named."""
        if not any(f"/{READ_AT_POD}" in each for each in given.policies):
            return {}  # nearly all of them
        return self._of(context, given)

    def _of(self, context: Context, given: Workload) -> dict[str, Authorization]:
        if given.tunnel is not TunnelProtocol.HBONE:
            return {}
        found = (each.closing(given) for each in context.lookup(self._ruled, given.namespace))
        return {each.key: each for each in found if each is not None}
