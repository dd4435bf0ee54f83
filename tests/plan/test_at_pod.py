"""Whose rules are enforced where a pod is."""

import msgspec
import pytest

from ambit.model.backend_tls import BackendTls
from ambit.model.inline_rules import InlineRules
from ambit.model.request_policy import RequestAction, RequestPolicy
from ambit.model.service import AppProtocol, Service
from ambit.model.view import Snapshot
from ambit.plan.node import at_pod
from tests.plan.read_pod import ASKING, READ, WORKLOAD

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


def test_nodes_that_ask_nobody_leave_a_pod_closed_whose_rules_ask() -> None:
    """Nodes of before know the other name only. Whichever a pod has for the moment is lifted where rules hold."""
    before, now = READ.closing(WORKLOAD), ASKING.closing(WORKLOAD)
    assert before is not None and now is not None and before.key != now.key
    assert READ.lifted(WORKLOAD) == ASKING.lifted(WORKLOAD) == {before.key, now.key}
    for closing in (before, now):
        pod = msgspec.structs.replace(WORKLOAD, policies=(closing.key,))
        for service in (READ, ASKING):
            assert at_pod.policies_for(pod, Snapshot([pod], [service], [closing])) == ((), ())


def test_it_takes_nothing_away_from_what_closes_a_pod() -> None:
    closing = READ.closing(WORKLOAD)
    assert closing is not None
    view = Snapshot([POD], [_FOREIGN], [closing])
    policies, _ = at_pod.policies_for(POD, view)
    assert closing in policies


AUDITED = msgspec.structs.replace(
    READ, rules=InlineRules((RequestPolicy("a", "default", RequestAction.AUDIT, ()),))
)
_BESIDE = msgspec.structs.replace(READ, name="beside", hostname="beside.default.svc", inline=None, rules=None)


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        ({}, True),
        ({"app_protocols": {80: AppProtocol.TCP}}, False),
        ({"app_protocols": {}}, False),
        ({"backend_tls": {80: BackendTls("beside.example")}}, False),
    ],
)
def test_what_refuses_nothing_has_no_port_read_that_is_called_by_anything_but_requests(
    beside: dict[str, object], *, told: bool
) -> None:
    other: Service = msgspec.structs.replace(_BESIDE, **beside)
    pod = msgspec.structs.replace(WORKLOAD, services={READ.key: READ.ports, other.key: other.ports})
    port = at_pod.ports_of(pod, Snapshot([pod], [AUDITED, other]))[8080]
    assert (port.is_told, port.is_read) == (told, False)


def test_where_something_may_be_refused_that_is_no_question() -> None:
    other = msgspec.structs.replace(_BESIDE, app_protocols={80: AppProtocol.TCP})
    pod = msgspec.structs.replace(WORKLOAD, services={READ.key: READ.ports, other.key: other.ports})
    port = at_pod.ports_of(pod, Snapshot([pod], [READ, other]))[8080]
    assert (port.is_told, port.is_read) == (False, True)


def test_a_service_that_refuses_nothing_has_no_say_about_tokens() -> None:
    other = msgspec.structs.replace(AUDITED, name="other", hostname="other.default.svc")
    pod = msgspec.structs.replace(WORKLOAD, services={READ.key: READ.ports, other.key: other.ports})
    port = at_pod.ports_of(pod, Snapshot([pod], [READ, other]))[8080]
    assert not port.is_closed
    assert READ.rules is not None and port.tokens == READ.rules.tokens
    assert {each.service for each in port.judges} == {READ.key, other.key}
