"""XBackendTrafficPolicies: what becomes of each, and how services are called."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.http import SessionPersistence
from ambit.model.service import RetryBudget
from ambit.model.status import PolicyStatus
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import bound, edge, route, to, to_edge, waypoint
from tests.ingest.test_mesh import change, compiler

POLICIES = "xbackendtrafficpolicies.gateway.networking.x-k8s.io"
WEB, OTHER = "default/web.default.svc.cluster.local", "default/other.default.svc.cluster.local"
STICKY = {"sessionPersistence": {"sessionName": "s", "type": "Header"}}
SESSION = SessionPersistence("s", is_cookie=False)


def policy(
    name: str = "traffic", *, target: str = "web", kind: str = "Service", created: str = "2026", **spec: Any
) -> Given:
    group = "" if kind == "Service" else "networking.istio.io"
    return POLICIES, {
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": created},
        "spec": {"targetRefs": [{"group": group, "kind": kind, "name": target}], **spec},
    }


def budget(percent: int = 20, count: int = 10, interval: str = "1s") -> dict[str, Any]:
    rate = {"count": count, "interval": interval}
    return {"retryConstraint": {"budget": {"percent": percent, "interval": "10s"}, "minRetryRate": rate}}


def made(*given: Given) -> MeshCompiler:
    services = [bound(service("web", {"app": "web"}), "waypoint"), service("other", {"app": "other"})]
    return compiler(*services, waypoint(), *given)


def accepted(compiled: MeshCompiler, name: str = "traffic") -> dict[str, tuple[str, str]]:
    """What it says to each Gateway."""
    status = compiled.statuses[f"XBackendTrafficPolicy default/{name}"]
    assert isinstance(status, PolicyStatus)
    return {
        each.parent.name: (condition.status, condition.reason)
        for each in status.ancestors
        for condition in each.conditions
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (budget(), RetryBudget(20, 10)),
        (budget(0, 3, "1m"), RetryBudget(0, 1)),
        (budget(50, 5, "500ms"), RetryBudget(50, 10)),
        ({"retryConstraint": {}}, RetryBudget(20, 10)),
    ],
)
def test_a_budget_of_retries(given: dict[str, Any], expected: RetryBudget) -> None:
    compiled = made(policy(**given))
    assert compiled.services[WEB].retry_budget == expected and compiled.services[OTHER].retry_budget is None
    assert accepted(compiled) == {"waypoint": ("True", "Accepted")} and not compiled.findings
    compiled.apply([Change(POLICIES, "default/traffic")])
    assert compiled.services[WEB].retry_budget is None


def test_of_two_the_older_counts_as_a_whole() -> None:
    older = policy("older", created="2025", **STICKY)
    compiled = made(policy(**budget()), older)
    found = compiled.services[WEB]
    assert (found.retry_budget, found.session) == (None, SESSION)
    assert accepted(compiled) == {"waypoint": ("False", "Conflicted")}
    assert accepted(compiled, "older") == {"waypoint": ("True", "Accepted")}
    assert [each.code for each in compiled.findings] == ["AMB0406"]


@pytest.mark.parametrize(
    "given",
    [
        {"sessionPersistence": {"type": "Other"}},
        {"sessionPersistence": {"absoluteTimeout": "1h"}},
        {"sessionPersistence": {"sessionName": "a b"}},
        budget(101),
        budget(count=0),
        budget(interval="soon"),
        {**STICKY, **budget(-1)},
    ],
)
def test_what_cannot_be_carried_out_changes_nothing(given: dict[str, Any]) -> None:
    compiled = made(policy(**given))
    found = compiled.services[WEB]
    assert (found.retry_budget, found.session) == (None, None)
    assert accepted(compiled) == {"waypoint": ("False", "Invalid")}


def sessions(compiled: MeshCompiler) -> list[SessionPersistence | None]:
    (table,) = compiled.routes.values()
    return [each.action.session for host in table.hosts for each in host.entries]


def test_a_session_is_that_of_what_routes_lead_to() -> None:
    own = {"backendRefs": [to("web")], "sessionPersistence": {"sessionName": "mine"}}
    both = {"backendRefs": [to("web"), to("other")]}
    compiled = made(
        route({"backendRefs": [to("web")]}, own, both, {"backendRefs": [to("other")]}), policy(**STICKY)
    )
    assert sessions(compiled) == [SESSION, SessionPersistence("mine"), None, None]
    compiled.apply([change(policy("others", target="other", **STICKY))])
    assert sessions(compiled) == [SESSION, SessionPersistence("mine"), SESSION, SESSION]


def test_a_service_without_own_routes_has_its_session_beside_those_of_others() -> None:
    consumers = route({"backendRefs": [to("web", namespace="default")]}, namespace="shop", parents=(PARENT,))
    assert sessions(made(consumers, policy(**STICKY)))[-1] == SESSION


PARENT = {"group": "", "kind": "Service", "name": "web", "namespace": "default"}


def test_gateways_with_routes_to_the_service_are_told_of() -> None:
    compiled = made(policy(**STICKY), edge(), to_edge({"backendRefs": [to("web")]}))
    assert accepted(compiled) == dict.fromkeys(("waypoint", "edge"), ("True", "Accepted"))
    (routes,) = compiled.listener_routes.values()
    assert [each.action.session for host in routes.hosts for each in host.entries] == [SESSION]


def test_a_policy_for_something_else_changes_nothing() -> None:
    compiled = made(policy(kind="ServiceEntry", **budget()))
    assert compiled.services[WEB].retry_budget is None and accepted(compiled) == {}
