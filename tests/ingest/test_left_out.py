"""A ServiceEntry, and a policy for it, are called in force only for what the mesh has of the entry."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.status import Condition, ObjectStatus
from ambit.model.view import Snapshot
from ambit.plan.l7 import waypoint as plan
from ambit.plan.l7.waypoint import Bound
from tests.ingest import build
from tests.ingest.build import Given
from tests.ingest.gateway.build import bound, waypoint
from tests.ingest.test_mesh import compiler
from tests.soak import fuzz

CLUSTER_IP, OWN, SECOND = "10.96.0.9", "198.51.100.1", "198.51.100.2"
OTHERS = build.service("victim", {"app": "web"}, namespace="default", ip=CLUSTER_IP)
ENTRY, POLICY = "ServiceEntry default/x", "AuthorizationPolicy default/deny"


def entry(*addresses: str, hosts: tuple[str, ...] = ("x.test",), name: str = "x", **spec: Any) -> Given:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    given = {
        "hosts": list(hosts),
        "ports": ports,
        "resolution": "STATIC",
        "addresses": list(addresses),
        **spec,
    }
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": given}
    return bound(("serviceentries.networking.istio.io", body), "waypoint")


def deny(name: str = "x") -> Given:
    reference = {"group": "networking.istio.io", "kind": "ServiceEntry", "name": name}
    rules = [{"to": [{"operation": {"paths": ["/admin"]}}]}]
    return "authorizationpolicies.security.istio.io", {
        "metadata": {"name": "deny", "namespace": "default"},
        "spec": {"targetRefs": [reference], "action": "DENY", "rules": rules},
    }


def conditions(made: MeshCompiler) -> tuple[Condition, Condition]:
    """Of the entry, and of the policy."""
    found = []
    for key in (ENTRY, POLICY):
        status = made.statuses[key]
        assert isinstance(status, ObjectStatus)
        found.append(status.conditions[0])
    return found[0], found[1]


@pytest.mark.parametrize(
    ("given", "status", "reasons", "text"),
    [
        (entry(OWN), "True", ("WaypointAccepted", "Accepted"), ""),
        (
            entry(CLUSTER_IP),
            "False",
            ("Invalid", "AncestorNotBound"),
            "the address of Service default/victim",
        ),
        (entry(OWN, CLUSTER_IP), "True", ("PartiallyInvalid",) * 2, "the address of Service default/victim"),
        (
            entry(OWN, hosts=("x.test", "victim.default.svc.cluster.local")),
            "True",
            ("PartiallyInvalid",) * 2,
            "victim.default.svc.cluster.local is a name of Service default/victim",
        ),
        (
            entry(OWN, hosts=("victim.default.svc.cluster.local",)),
            "False",
            ("Invalid", "AncestorNotBound"),
            "is a name of Service default/victim",
        ),
        (
            entry(OWN, hosts=("*.x.test",), resolution="DYNAMIC_DNS"),
            "False",
            ("Invalid", "AncestorNotBound"),
            "DYNAMIC_DNS is off",
        ),
    ],
)
def test_what_is_left_out_is_not_called_bound(
    given: Given, status: str, reasons: tuple[str, str], text: str
) -> None:
    of_entry, of_policy = conditions(compiler(OTHERS, given, deny(), waypoint()))
    assert (of_entry.status, of_entry.reason) == (status, reasons[0])
    assert (of_policy.status, of_policy.reason) == (status, reasons[1])
    assert text in of_entry.message and text in of_policy.message


def test_what_is_left_out_counts_again_when_its_owner_is_gone() -> None:
    made = compiler(OTHERS, entry(CLUSTER_IP), deny(), waypoint())
    assert [each.status for each in conditions(made)] == ["False", "False"]
    made.apply([Change("services", "default/victim", None)])
    assert [each.reason for each in conditions(made)] == ["WaypointAccepted", "Accepted"]


ADDRESSES = st.lists(
    st.sampled_from((CLUSTER_IP, OWN, SECOND, "no address")), min_size=1, max_size=3, unique=True
)
HOSTS = st.lists(
    st.sampled_from(("x.test", "y.test", "victim.default", "*.svc", "no name!")),
    min_size=1,
    max_size=3,
    unique=True,
)


@fuzz(60)
@given(ADDRESSES, HOSTS, ADDRESSES, HOSTS, st.booleans())
def test_a_policy_is_accepted_without_restriction_only_where_each_address_leads_to_its_waypoint(
    addresses: list[str], hosts: list[str], others: list[str], other_hosts: list[str], has_waypoint: bool
) -> None:
    objects = [
        OTHERS,
        entry(*addresses, hosts=tuple(hosts)),
        entry(*others, hosts=tuple(other_hosts), name="older"),
        deny(),
        *([waypoint()] if has_waypoint else ()),
    ]
    made = compiler(*objects)
    of_entry, of_policy = conditions(made)
    if (of_entry.reason, of_policy.reason) != ("WaypointAccepted", "Accepted"):
        return
    own = [each for each in made.services.values() if each.name == "x"]
    assert {each.hostname for each in own} == set(hosts)
    view = Snapshot(services=made.services.values())
    (proxy,) = made.proxies.values()
    policies = tuple(made.request_policies.values())
    services = tuple(each for each in made.services.values() if each.waypoint is not None)
    ways = plan._ways(Bound(services, authorization=policies), proxy, view)
    led = {authority for (key, _), found in ways.items() for authority in found if key.startswith("default/")}
    for text in addresses:
        assert ipaddress.ip_address(text).version == 4
        assert f"{text}:80" in led
        assert text != CLUSTER_IP
