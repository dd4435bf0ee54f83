"""Whose rules are enforced where a pod is."""

import msgspec

from ambit.model.view import Snapshot
from ambit.plan import at_pod
from tests.plan.read_pod import READ, WORKLOAD

_FOREIGN = msgspec.structs.replace(READ, namespace="strangers", hostname="read.strangers.svc.cluster.local")
"""Of another namespace, with an EndpointSlice that names the pod."""
POD = msgspec.structs.replace(WORKLOAD, services={READ.key: READ.ports, _FOREIGN.key: _FOREIGN.ports})


def test_who_puts_somebody_elses_pod_behind_a_service_decides_nothing_there() -> None:
    alone = Snapshot([WORKLOAD], [READ])
    both = Snapshot([POD], [READ, _FOREIGN])
    assert at_pod.ports_of(POD, both) == at_pod.ports_of(WORKLOAD, alone)
    assert set(at_pod.ports_of(POD, both)) == {8080, 8081}
    only = msgspec.structs.replace(POD, services={_FOREIGN.key: _FOREIGN.ports})
    assert not at_pod.ports_of(only, both)


def test_what_such_a_service_is_sent_goes_to_no_pod_that_does_not_enforce_its_rules() -> None:
    assert at_pod.enforces(POD, READ, 8080)
    assert not at_pod.enforces(POD, _FOREIGN, 8080)


def test_it_takes_nothing_away_from_what_closes_a_pod() -> None:
    closing = READ.closing(WORKLOAD)
    assert closing is not None
    view = Snapshot([POD], [_FOREIGN], [closing])
    policies, _ = at_pod.policies_for(POD, view)
    assert closing in policies
