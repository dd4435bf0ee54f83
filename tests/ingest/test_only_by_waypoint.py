"""What a policy for a waypoint protects takes connections from that waypoint only:
`ambit.ingest.waypoints.only_by_waypoint`."""

import ipaddress
from typing import Any

import pytest

from ambit.core.identity import Identity
from ambit.core.names import ONLY_BY_WAYPOINT
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.view import Snapshot
from ambit.policy.decide import ConnectionFacts, decide
from tests.ingest.build import Given, pod, service
from tests.ingest.gateway.build import bound, namespace, waypoint
from tests.ingest.test_mesh import WEB, change, compiler
from tests.ingest.test_unenforced import GATEWAY, GATEWAY_CLASS, WEB_SERVICE, policy

CLIENT = Identity("cluster.local", "default", "client")
WAYPOINT = Identity("cluster.local", "default", "waypoint")
OTHER = Identity("cluster.local", "infra", "other")
SERVICE = bound(service("web", {"app": "web"}), "waypoint")
POD = pod("web-1", "10.244.1.2", labels={"app": "web"})
PORT = 8080


def admitted(made: MeshCompiler, port: int = PORT) -> set[Identity | None]:
    """Who may open a connection to the pod; None is plain text."""
    view = Snapshot(
        list(made.workloads.values()), list(made.services.values()), list(made.authorizations.values())
    )
    policies, unknown = view.policies_for(made.workloads[WEB])
    assert not unknown
    address = ipaddress.ip_address("10.244.1.2")
    everybody = (CLIENT, WAYPOINT, OTHER, None)
    facts = ((each, ConnectionFacts(address, address, port, each)) for each in everybody)
    return {each for each, asked in facts if decide(policies, asked, unknown).allowed}


def labelled(given: Given, value: str = "true") -> Given:
    resource, body = given
    labels = {**body["metadata"].get("labels", {}), "ambit.io/fail-open": value}
    return resource, {**body, "metadata": {**body["metadata"], "labels": labels}}


EVERYBODY = {CLIENT, WAYPOINT, OTHER, None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (policy(WEB_SERVICE), {WAYPOINT}),
        (policy(GATEWAY), {WAYPOINT}),
        (policy(GATEWAY_CLASS, namespace="istio-system"), {WAYPOINT}),
        (policy(WEB_SERVICE, action="CUSTOM", provider={"name": "x"}), {WAYPOINT}),
        (policy(WEB_SERVICE, action="AUDIT"), EVERYBODY),
        (policy(WEB_SERVICE, annotations={"istio.io/dry-run": "true"}), EVERYBODY),
        (policy(GATEWAY_CLASS), EVERYBODY),
        (policy(WEB_SERVICE, namespace="elsewhere"), EVERYBODY),
        (policy({"kind": "Service", "name": "other"}), EVERYBODY),
        (policy({"kind": "ServiceEntry", "name": "web"}), EVERYBODY),
    ],
)
def test_the_ports_of_a_protected_service(given: Given, expected: set[Identity | None]) -> None:
    made = compiler(SERVICE, POD, waypoint(), given)
    assert admitted(made) == expected
    assert admitted(made, PORT + 1) == EVERYBODY


def test_without_a_policy_nothing_is_closed() -> None:
    made = compiler(SERVICE, POD, waypoint())
    assert admitted(made) == EVERYBODY
    assert not made.authorizations


def test_without_a_waypoint_nobody_may() -> None:
    assert not admitted(compiler(service("web", {"app": "web"}), POD, policy(WEB_SERVICE)))


@pytest.mark.parametrize("gone", [(), (waypoint(namespace="infra"),)])
def test_a_waypoint_that_cannot_be_had_is_nobody(gone: tuple[Given, ...]) -> None:
    """It does not exist; it lets the namespace not in."""
    given = bound(service("web", {"app": "web"}), "waypoint", "infra")
    made = compiler(given, POD, policy(WEB_SERVICE), *gone)
    infra = Identity("cluster.local", "infra", "waypoint")
    assert CLIENT not in admitted(made) and None not in admitted(made) and infra not in admitted(made)


def test_services_that_share_a_pod_share_their_waypoints() -> None:
    others = (
        bound(service("more", {"app": "web"}), "other", "infra"),
        waypoint("other", namespace="infra", allowed={"from": "All"}),
    )
    made = compiler(SERVICE, POD, waypoint(), policy(WEB_SERVICE), *others)
    assert admitted(made) == {WAYPOINT}, "nobody protects the second"
    both = policy(WEB_SERVICE, {"kind": "Service", "name": "more"})
    assert admitted(compiler(SERVICE, POD, waypoint(), both, *others)) == {WAYPOINT, OTHER}


@pytest.mark.parametrize(("target", "expected"), [(GATEWAY, {WAYPOINT}), (WEB_SERVICE, EVERYBODY)])
def test_a_pod_that_is_bound_by_its_addresses(target: dict[str, Any], expected: set[Identity | None]) -> None:
    made = compiler(bound(POD, "waypoint"), waypoint(takes="all"), policy(target))
    assert admitted(made) == admitted(made, 1) == expected


def test_it_opens_when_the_policy_goes_and_closes_when_it_comes() -> None:
    given = policy(WEB_SERVICE)
    made = compiler(SERVICE, POD, waypoint())
    delta = made.apply([change(given)])
    (key,) = delta.authorizations.upserts
    assert key == f"default/{ONLY_BY_WAYPOINT}_default.waypoint_{PORT}"
    assert delta.workloads.upserts[WEB].policies == (key,)
    delta = made.apply([Change(given[0], "default/p")])
    assert delta.authorizations.removals == (key,)
    assert delta.workloads.upserts[WEB].policies == ()


@pytest.mark.parametrize(
    "given",
    [
        (labelled(SERVICE),),
        (SERVICE, namespace("default", **{"ambit.io/fail-open": "true"})),
    ],
)
def test_what_lets_past_takes_everybody(given: tuple[Given, ...]) -> None:
    assert admitted(compiler(*given, POD, waypoint(), policy(WEB_SERVICE))) == EVERYBODY


def test_a_label_of_its_own_goes_before_the_namespace_s() -> None:
    given = labelled(SERVICE, "false"), namespace("default", **{"ambit.io/fail-open": "true"})
    assert admitted(compiler(*given, POD, waypoint(), policy(WEB_SERVICE))) == {WAYPOINT}


READY = pod(
    "waypoint-1",
    "10.244.1.9",
    labels={"gateway.networking.k8s.io/gateway-name": "waypoint"},
    account="waypoint",
)


@pytest.mark.parametrize("lets_past", [labelled(SERVICE), labelled(namespace("default"))])
def test_what_lets_past_goes_past_a_waypoint_that_cannot_be_used(lets_past: Given) -> None:
    given = (SERVICE, lets_past)
    key = "default/web.default.svc.cluster.local"

    def leads_through(*more: Given) -> bool:
        made = compiler(*given, *more)
        said = made.statuses["Service default/web"].conditions
        assert [each.reason for each in said] == [
            "WaypointAccepted" if made.services[key].waypoint else "WaypointNotReady"
        ]
        return made.services[key].waypoint is not None

    assert leads_through(waypoint(), READY)
    assert not leads_through(waypoint())
    assert not leads_through()
    assert not leads_through(waypoint(of_class="other"), READY)
    assert compiler(SERVICE).services[key].waypoint is not None, "without the label nobody goes past"


def test_all_names_of_the_trust_domain_are_the_waypoint_s() -> None:
    made = MeshCompiler(MeshSettings(trust_domain="new", trust_domain_aliases=("old",)))
    made.apply(map(change, (SERVICE, POD, waypoint(), policy(WEB_SERVICE))))
    ((made_policy),) = made.authorizations.values()
    (rule,) = made_policy.rules
    assert {each.value for each in rule.clauses[0].matches[0].not_principals} == {
        f"{domain}/ns/default/sa/waypoint" for domain in ("new", "old")
    }


def test_a_long_name_is_cut() -> None:
    ports = [{"name": f"p{index}", "port": index, "targetPort": 20_000 + index} for index in range(1, 60)]
    given = bound(service("web", {"app": "web"}, ports=ports), "waypoint")
    made = compiler(given, POD, waypoint(), policy(WEB_SERVICE))
    (key,) = made.authorizations
    assert len(key) < 64
    assert admitted(made, 20_059) == {WAYPOINT}
