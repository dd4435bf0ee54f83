"""Waypoints without pods: `ambit.ingest.waypoints.inline`, and what their Gateways say."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.ingest.waypoints.inline import MOST_IN_NAMESPACE
from ambit.model.policy import Action, Exact, Prefix, Suffix
from ambit.model.provider import Authorizer, Others, OverHttp, ProviderService
from ambit.model.proxy import ProxyKind
from ambit.model.status import Condition, GatewayStatus, ObjectStatus, PolicyStatus, RouteStatus
from ambit.model.telemetry import LogService, MeshLogs, Printer
from ambit.xds import rules
from tests.ingest.build import Given, pod, service
from tests.ingest.gateway import test_backend_tls as backend_tls
from tests.ingest.gateway.build import bound, gateway_class, namespace, route, to, waypoint
from tests.ingest.test_mesh import change, compiler
from tests.ingest.test_policy_targets import tokens
from tests.ingest.test_unenforced import WEB_SERVICE, policy

KEY = "default/web.default.svc.cluster.local"
BOUND = bound(service("web", {"app": "web"}), "waypoint")
INLINE = waypoint(of_class="ambit-inline")


def test_a_bound_service_has_its_tables_instead_of_a_waypoint() -> None:
    made = compiler(BOUND, INLINE, route({"backendRefs": [to("web")]}))
    found = made.services[KEY]
    assert found.waypoint is None
    assert found.inline == (made.routes[f"{KEY}:80"],)
    status = made.statuses["HTTPRoute default/route"]
    assert isinstance(status, RouteStatus)
    assert all(each.holds for parent in status.parents for each in parent.conditions)


def test_what_may_go_past_a_waypoint_is_routed_nevertheless() -> None:
    """There is no waypoint that might not be ready."""
    resource, body = BOUND
    labels = {**body["metadata"]["labels"], "ambit.io/fail-open": "true"}
    lenient = resource, {**body, "metadata": {**body["metadata"], "labels": labels}}
    assert compiler(lenient, INLINE).services[KEY].inline == ()


def test_its_gateway_is_programmed_without_pods_and_address() -> None:
    made = compiler(INLINE)
    assert made.proxies["default/waypoint"].kind is ProxyKind.INLINE
    status = made.statuses["Gateway default/waypoint"]
    assert isinstance(status, GatewayStatus)
    assert {each.type: each.holds for each in status.conditions} == {"Accepted": True, "Programmed": True}
    assert status.addresses == ()


def test_a_route_that_goes_takes_its_table_with_it() -> None:
    given = route({"backendRefs": [to("web")]})
    made = compiler(BOUND, INLINE, given)
    made.apply([Change(given[0], "default/route")])
    assert made.services[KEY].inline == ()
    made.apply([Change(INLINE[0], "default/waypoint")])
    found = made.services[KEY]
    assert found.inline is None and found.waypoint is not None


@pytest.mark.parametrize("takes", ["workload", "all"])
def test_pods_by_their_own_addresses_have_no_inline_waypoint(takes: str) -> None:
    """What asks for it nevertheless has a waypoint that is nowhere."""
    made = compiler(BOUND, waypoint(of_class="ambit-inline", takes=takes))
    assert not made.proxies
    found = made.services[KEY]
    assert found.inline is None and found.waypoint is not None


def test_routes_of_bytes_are_not_for_it() -> None:
    """A Gateway class that cannot do what a route says does not say that it does."""
    ports = [{"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    web = bound(service("web", {"app": "web"}, ports=ports), "waypoint")
    made = compiler(web, INLINE, route({"backendRefs": [to("web")]}, kind="tcproutes"))
    status = made.statuses["TCPRoute default/route"]
    assert isinstance(status, RouteStatus)
    (accepted,) = [each for each in status.parents[0].conditions if each.type == "Accepted"]
    assert not accepted.holds and "inline" in accepted.message
    assert not made.routes


WEB_POD = pod("web", "10.1.0.1", labels={"app": "web"})
ADMIN = {"to": [{"operation": {"paths": ["/admin"], "methods": ["GET"]}}]}
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
CLASS = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "ambit-inline"}


def test_policies_go_with_the_service_and_close_its_pods_to_who_does_not_know_of_them() -> None:
    made = compiler(BOUND, INLINE, WEB_POD, policy(WEB_SERVICE))
    found = made.services[KEY]
    assert found.waypoint is None and found.inline == ()
    assert found.rules is not None and [each.key for each in found.rules.policies] == ["default/p"]
    (workload,) = (each for each in made.workloads.values() if each.name == "web")
    assert workload.policies == ("default/read_at_pod_web_8080",)
    closing = made.authorizations["default/read_at_pod_web_8080"]
    assert closing == found.closing(workload)
    assert closing.action is Action.DENY
    made.apply([Change("authorizationpolicies.security.istio.io", "default/p")])
    assert made.services[KEY].rules is None
    assert not made.authorizations
    assert made.workloads[workload.uid].policies == ()


@pytest.mark.parametrize("target", [WEB_SERVICE, GATEWAY])
def test_so_do_rules_about_tokens(target: dict[str, str]) -> None:
    made = compiler(BOUND, INLINE, tokens(target))
    rules = made.services[KEY].rules
    assert rules is not None and [each.key for each in rules.tokens] == ["default/tokens"]


@pytest.mark.parametrize("large", [True, False])
def test_one_object_does_not_fill_what_all_nodes_are_told(*, large: bool) -> None:
    """A policy for a Gateway is said of each of its services again, to every node."""
    paths = [f"/{'p' * 1000}/{number}" for number in range(1000 if large else 10)]
    services = [bound(service(f"web{number}", {"app": "web"}), "waypoint") for number in range(20)]
    given = policy(GATEWAY, rules=[{"to": [{"operation": {"paths": paths}}]}])
    made = compiler(INLINE, namespace("default"), *services, given)
    sizes = [
        len(rules.encode(each.rules)) if each.rules is not None else 0
        for each in sorted(made.services.values(), key=lambda each: each.key)
    ]
    if not large:
        assert all(sizes)
        return
    told = [each for each in sizes if each]
    assert sum(told) <= MOST_IN_NAMESPACE * 1.2 and len(told) >= 5
    assert sizes[len(told) :] == [0] * (20 - len(told))
    closed = sorted(made.services.values(), key=lambda each: each.key)[len(told) :]
    assert all(each.waypoint is not None and each.inline is None for each in closed)
    (told_of,) = {
        each.message for each in _conditions(made, "AuthorizationPolicy default/p") if "MiB" in each.message
    }
    assert "web9" in told_of or "web8" in told_of
    made.apply([Change("authorizationpolicies.security.istio.io", "default/p")])
    assert all(each.inline is not None for each in made.services.values())


def test_a_policy_for_the_class_is_for_all_that_is_inline() -> None:
    made = compiler(BOUND, INLINE, policy(CLASS, namespace="istio-system"))
    assert made.services[KEY].rules is not None
    other = {**CLASS, "name": "ambit-waypoint"}
    assert compiler(BOUND, INLINE, policy(other, namespace="istio-system")).services[KEY].rules is None


@pytest.mark.parametrize("how", [{"action": "AUDIT"}, {"annotations": {"istio.io/dry-run": "true"}}])
def test_what_forbids_nothing_closes_no_pods(how: dict[str, Any]) -> None:
    """It goes with the service, to be told of."""
    made = compiler(BOUND, INLINE, WEB_POD, policy(WEB_SERVICE, **how))
    found = made.services[KEY]
    assert found.rules is not None and [each.key for each in found.rules.policies] == ["default/p"]
    assert found.enforced is None
    assert found.inline == ()
    assert not made.authorizations


def _changing(**said: Any) -> Given:
    return route({"filters": [said], "backendRefs": [to("web")]})


_REWRITES = _changing(
    type="URLRewrite", urlRewrite={"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}}
)
_RENAMES = _changing(type="URLRewrite", urlRewrite={"hostname": "other"})
_SETS = _changing(
    type="RequestHeaderModifier", requestHeaderModifier={"set": [{"name": "X-Role", "value": "admin"}]}
)
_ABOUT_HOST = {"to": [{"operation": {"hosts": ["web"]}}]}
_ABOUT_ROLE = {"when": [{"key": "request.headers[x-role]", "values": ["admin"]}]}


@pytest.mark.parametrize(
    ("rule", "changing", "word"),
    [(ADMIN, _REWRITES, ":path"), (_ABOUT_HOST, _RENAMES, ":authority"), (_ABOUT_ROLE, _SETS, "x-role")],
)
def test_what_looks_at_what_routes_change_closes_the_service(
    rule: dict[str, Any], changing: Given, word: str
) -> None:
    """Its pods would see another request than a waypoint does."""
    made = compiler(BOUND, INLINE, changing, policy(WEB_SERVICE, rules=[rule]))
    found = made.services[KEY]
    assert found.inline is None and found.rules is None and found.waypoint is not None
    (condition,) = _conditions(made, "AuthorizationPolicy default/p")
    assert (condition.status, condition.reason) == ("False", "NotEnforced")
    assert word in condition.message


@pytest.mark.parametrize(
    ("rule", "changing"),
    [(ADMIN, _RENAMES), (ADMIN, _SETS), (_ABOUT_HOST, _REWRITES), (_ABOUT_ROLE, _REWRITES)],
)
def test_other_changes_are_nothing_to_it(rule: dict[str, Any], changing: Given) -> None:
    made = compiler(BOUND, INLINE, changing, policy(WEB_SERVICE, rules=[rule]))
    assert made.services[KEY].rules is not None
    (condition,) = _conditions(made, "AuthorizationPolicy default/p")
    assert (condition.status, condition.reason) == ("True", "Accepted")


def _asking(*given: Given, **over: Any) -> MeshCompiler:
    """With a policy that has a provider, whom the service `authz` is, asked about all that is deleted."""
    whom = Authorizer("a", ProviderService("authz.default.svc.cluster.local", 80), **over)
    made = MeshCompiler(MeshSettings(authorizers=(whom,)))
    rule = {"to": [{"operation": {"methods": ["DELETE"]}}]}
    asks = policy(WEB_SERVICE, action="CUSTOM", provider={"name": "a"}, rules=[rule])
    made.apply(map(change, (BOUND, INLINE, asks, service("authz", {"app": "authz"}), *given)))
    return made


def test_a_policy_that_asks_somebody_goes_with_whom_it_asks() -> None:
    made = _asking(WEB_POD)
    rules = made.services[KEY].rules
    assert rules is not None
    [asked] = [each.asked for each in rules.policies]
    assert asked is not None and asked.service == "default/authz.default.svc.cluster.local"
    [workload] = (each for each in made.workloads.values() if each.name == "web")
    assert workload.policies == ("default/read_at_pod.asking_web_8080",)
    nobody = compiler(BOUND, INLINE, policy(WEB_SERVICE, action="CUSTOM")).services[KEY].rules
    assert nobody is not None and nobody.policies[0].asked is None


@pytest.mark.parametrize(
    ("over", "changing", "word"),
    [
        ({"http": OverHttp()}, _REWRITES, ":path"),
        ({"http": OverHttp()}, _RENAMES, ":authority"),
        ({"http": OverHttp()}, _SETS, ""),
        ({"http": OverHttp(check=(Exact("x-role"),))}, _SETS, "x-role"),
        ({"http": OverHttp(check=(Exact("x-"),))}, _SETS, ""),
        ({"http": OverHttp(check=(Prefix("x-"),))}, _SETS, "x-role"),
        ({"http": OverHttp(check=(Prefix("role"),))}, _SETS, ""),
        ({"http": OverHttp(check=(Suffix("-role"),))}, _SETS, "x-role"),
        ({"http": OverHttp(check=(Suffix("x-"),))}, _SETS, ""),
        ({"http": OverHttp(check=(Others(("x-user",)),))}, _SETS, "x-role"),
        ({"http": OverHttp(check=(Others(("x-role",)),))}, _SETS, ""),
        ({}, _SETS, "x-role"),
    ],
)
def test_so_does_what_a_provider_is_shown(over: dict[str, Any], changing: Given, word: str) -> None:
    made = _asking(changing, **over)
    assert (made.services[KEY].rules is None) is bool(word)
    (condition,) = _conditions(made, "AuthorizationPolicy default/p")
    assert (condition.reason == "NotEnforced") is bool(word)
    assert word in condition.message


def _conditions(made: MeshCompiler, name: str) -> tuple[Condition, ...]:
    status = made.statuses[name]
    assert isinstance(status, ObjectStatus)
    return status.conditions


@pytest.mark.parametrize(("backend", "port"), [("web", 80), ("db", 5432)])
def test_tls_to_a_backend_closes_what_has_rules(backend: str, port: int) -> None:
    """Callers' nodes speak it, so pods' nodes could read nothing."""
    db = service("db", {"app": "db"}, ip="10.96.0.8", port=5432)
    to_backend = route({"backendRefs": [to(backend, port)]})
    given = (BOUND, db, to_backend, INLINE, backend_tls.roots(), backend_tls.policy(target={"name": backend}))
    found = compiler(*given).services[KEY]
    assert found.inline is not None and found.waypoint is None
    made = compiler(*given, policy(WEB_SERVICE), tokens(WEB_SERVICE))
    found = made.services[KEY]
    assert found.inline is None and found.rules is None and found.waypoint is not None
    (condition,) = _conditions(made, "AuthorizationPolicy default/p")
    assert (condition.status, condition.reason) == ("False", "NotEnforced")
    assert "default/p, default/tokens" in condition.message and "BackendTLSPolicy" in condition.message
    (condition,) = _conditions(made, "RequestAuthentication default/tokens")
    assert (condition.status, condition.reason) == ("False", "NotEnforced")


def test_tls_for_bytes_closes_it() -> None:
    """Nobody would speak it."""
    ports = [{"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    web = bound(service("web", {"app": "web"}, ports=ports), "waypoint")
    given = (web, INLINE, backend_tls.roots(), backend_tls.policy())
    assert compiler(*given, route({"backendRefs": [to("web")]})).services[KEY].inline is not None
    made = compiler(*given)
    assert made.services[KEY].inline is None
    assert "port 80" in made.closed[KEY]
    assert [(each.code, str(each.origin)) for each in made.findings] == [("AMB0411", "Service default/web")]


def test_a_policy_for_tls_tells_of_the_inline_gateway() -> None:
    given = (BOUND, INLINE, backend_tls.roots(), backend_tls.policy(), route({"backendRefs": [to("web")]}))
    status = compiler(*given).statuses["BackendTLSPolicy default/tls"]
    assert isinstance(status, PolicyStatus)
    assert [each.parent.name for each in status.ancestors] == ["waypoint"]


def telemetry(namespace: str, **spec: Any) -> Given:
    said = {"accessLogging": [{"providers": [{"name": "envoy"}]}], **spec}
    return "telemetries.telemetry.istio.io", {
        "metadata": {"name": "t", "namespace": namespace, "uid": namespace},
        "spec": said,
    }


def test_what_is_to_be_told_goes_with_the_service() -> None:
    """All that may be about its requests: of the mesh, of its Gateway's namespace, for it and for others."""
    assert compiler(BOUND, INLINE).services[KEY].telemetry is None
    mesh, own, other = (telemetry(each) for each in ("istio-system", "default", "elsewhere"))
    told = compiler(BOUND, INLINE, mesh, own, other).services[KEY].telemetry
    assert told is not None and told.proxy.key == "default/waypoint"
    assert [each.key for each in told.policies] == ["default/t", "istio-system/t"]
    for target, holds in ((WEB_SERVICE, True), (GATEWAY, True), ({**WEB_SERVICE, "name": "db"}, False)):
        aimed = telemetry("default", targetRefs=[target])
        assert (compiler(BOUND, INLINE, aimed).services[KEY].telemetry is not None) is holds
    assert compiler(BOUND, waypoint(), own).services[KEY].telemetry is None


OTLP = Printer("otlp", to=LogService(ProviderService("otel.obs.svc.cluster.local", 4317), "mine"))


def test_services_that_are_told_go_with_it_and_nothing_else_is_wrong() -> None:
    given = telemetry("default", accessLogging=[{"providers": [{"name": "otlp"}]}])
    made = MeshCompiler(MeshSettings(logs=MeshLogs((Printer(), OTLP))))
    made.apply(map(change, (BOUND, INLINE, given)))
    told = made.services[KEY].telemetry
    assert told is not None
    assert [rule.printers for policy in told.policies for rule in policy.logs] == [(OTLP,)]
    assert [each.code for each in made.findings] == ["AMB0244"], "there is no collector"


def test_a_class_is_inline_by_its_controller() -> None:
    mine = gateway_class("mine", "ambit.io/inline-controller")
    assert compiler(waypoint(of_class="mine"), mine).proxies["default/waypoint"].kind is ProxyKind.INLINE
    other = gateway_class("ambit-inline", "someone.else/controller")
    assert not compiler(INLINE, other).proxies
