"""Of random services, waypoints, routes and policies: each way to a protected service's pods on which a policy is not
asked is a finding, and no finding is about nothing. What may be reached `ambit.policy.decide` says."""

import ipaddress
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.core.names import BYPASS_INBOUND_ANNOTATION
from ambit.ingest.mesh import MeshCompiler
from ambit.ingest.waypoints.only_by_waypoint import gateways_of
from ambit.model.service import Service
from ambit.model.view import Snapshot
from ambit.policy.decide import ConnectionFacts, decide
from tests.ingest import build
from tests.ingest.build import Given
from tests.ingest.gateway.build import bound, parent, route, to, waypoint
from tests.ingest.gateway.test_canary import with_canary
from tests.ingest.test_mesh import compiler
from tests.ingest.test_only_by_waypoint import labelled
from tests.ingest.test_unenforced import GATEWAY
from tests.ingest.test_unenforced import policy as policy_for
from tests.soak import fuzz

NAMES, WAYPOINTS = ("one", "two", "three"), ("a", "b")
CLIENT = Identity("cluster.local", "default", "client")


class Wanted(msgspec.Struct, frozen=True):
    """A service of the pods of one app, at a port, behind a waypoint and perhaps a second one."""

    name: str
    app: str
    port: int
    waypoint: str
    canary: str
    open: bool
    route: str
    """The service that its route leads to, if any."""

    def objects(self, number: int) -> Iterator[Given]:
        made = build.service(self.name, {"app": self.app}, ip=f"10.96.0.{number}", target=self.port)
        made = bound(made, self.waypoint) if self.waypoint else made
        made = with_canary(made, self.canary, weight="50") if self.canary else made
        yield labelled(made) if self.open else made
        if self.route:
            rule = {"backendRefs": [to(self.route)]}
            yield route(rule, name=self.name, parents=(parent(self.name),))


class Policy(msgspec.Struct, frozen=True):
    target: tuple[str, str]

    def object(self, name: str) -> Given:
        kind, named = self.target
        target = {**GATEWAY, "name": named} if kind == "Gateway" else {"kind": "Service", "name": named}
        resource, body = policy_for(target)
        return resource, {**body, "metadata": {**body["metadata"], "name": name}}


services = st.tuples(
    *(
        st.builds(
            Wanted,
            st.just(name),
            st.sampled_from(["x", "y"]),
            st.sampled_from([8080, 9090]),
            st.sampled_from(["", *WAYPOINTS, *WAYPOINTS]),
            st.sampled_from(["", "", *WAYPOINTS]),
            st.sampled_from([False] * 7 + [True]),
            st.sampled_from(["", *NAMES]),
        )
        for name in NAMES
    )
)
targets = st.sampled_from(
    [*(("Service", each) for each in NAMES), *(("Gateway", each) for each in WAYPOINTS)]
)
policies = st.lists(st.builds(Policy, targets), min_size=1, max_size=2)
pods = st.fixed_dictionaries(
    {app: st.sampled_from(["captured", "captured", "captured", "open", "outside"]) for app in "xy"}
)


class Case(msgspec.Struct, frozen=True):
    """`pods` are by app: captured, open on the way in, or outside of the mesh."""

    services: tuple[Wanted, ...]
    policies: list[Policy]
    pods: dict[str, str]
    made: MeshCompiler

    def service(self, name: str) -> Service:
        return self.made.services[f"default/{name}.default.svc.cluster.local"]

    def waypoints(self, name: str) -> set[str]:
        """Those of a service, by name; of one that is closed none."""
        addresses = gateways_of(self.service(name))
        return {each.hostname.partition(".")[0] for each in addresses} & set(WAYPOINTS)

    def asked(self, service: str, waypoints: set[str]) -> set[int]:
        """Policies about what is for a service at these waypoints."""
        asked = {("Service", service), *(("Gateway", each) for each in waypoints)}
        return {index for index, each in enumerate(self.policies) if each.target in asked}

    def leads(self, service: Wanted, app: str, port: int) -> bool:
        """By itself, or by its route."""
        by_name = {each.name: each for each in self.services}
        backends = {service.name, *((service.route,) if service.route else ())}
        return any((by_name[each].app, by_name[each].port) == (app, port) for each in backends)

    def reached(self, app: str, port: int, caller: Identity | None) -> bool:
        """Whether a port of a pod takes connections of this caller; None is plain text."""
        made = self.made
        values = (made.workloads.values(), made.services.values(), made.authorizations.values())
        workload = next(each for each in made.workloads.values() if each.name == app)
        found, unknown = Snapshot(*map(list, values)).policies_for(workload)
        facts = ConnectionFacts(ipaddress.ip_address("10.244.1.99"), workload.addresses[0], port, caller)
        return self.pods[app] != "captured" or decide(found, facts, unknown).allowed

    def around(self, given: Wanted) -> Iterator[str]:
        """Ways to a service on which a policy that protects it is not asked."""
        protecting = self.asked(given.name, self.waypoints(given.name))
        if not protecting:
            return
        for caller in (CLIENT, None):
            if self.reached(given.app, given.port, caller):
                yield f"called by {caller}"
        for other in self.services:
            for name in self.waypoints(other.name) if self.leads(other, given.app, given.port) else ():
                caller = Identity("cluster.local", "default", name)
                is_asked = protecting <= self.asked(other.name, {name})
                if not is_asked and self.reached(given.app, given.port, caller):
                    yield f"{other.name} by {name}"


@pytest.mark.soak
@given(services, policies, pods)
@fuzz(60)
def test_every_way_is_told(
    services: tuple[Wanted, ...], policies: list[Policy], pods: dict[str, str]
) -> None:
    case = Case(services, policies, pods, _compiled(services, policies, pods))
    told = {
        str(each.origin).rpartition("/")[2]: each.text
        for each in case.made.findings
        if each.code == "AMB0410"
    }
    for each in services:
        around = list(case.around(each))
        assert each.name in told or not around, (each.name, around)
        # The written exception is told, also where another service of the same pods closes them.
        assert around or each.open or each.name not in told, told


def _compiled(services: tuple[Wanted, ...], policies: list[Policy], pods: dict[str, str]) -> MeshCompiler:
    given = [waypoint(each) for each in WAYPOINTS]
    for number, each in enumerate(WAYPOINTS, 1):
        labels = {"gateway.networking.k8s.io/gateway-name": each}
        given.append(build.pod(f"{each}-1", f"10.244.2.{number}", labels=labels))
    given += [one for number, each in enumerate(services, 1) for one in each.objects(number)]
    given += [each.object(f"p{index}") for index, each in enumerate(policies)]
    for number, (app, how) in enumerate(pods.items(), 1):
        made = build.pod(app, f"10.244.1.{number}", labels={"app": app}, redirected=how != "outside")
        if how == "open":
            made[1]["metadata"]["annotations"][BYPASS_INBOUND_ANNOTATION] = "true"
        given.append(made)
    return compiler(*given)
