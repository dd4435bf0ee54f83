"""Routes whose parents nobody has: nobody writes a status for them, so findings tell."""

from typing import Any

import pytest

from ambit.core.finding import Level
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.status import ObjectStatus
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import (
    GROUP,
    SERVICE,
    bound,
    edge,
    namespace,
    parent,
    route,
    to,
    to_edge,
    waypoint,
)
from tests.ingest.test_mesh import change, compiler
from tests.ingest.test_unenforced import policy

WEB = service("web", {"app": "web"})
RULE = {"backendRefs": [to("web")]}


def told(made: MeshCompiler) -> list[tuple[str, Level, str, str]]:
    return [(each.code, each.level, each.path, each.text) for each in made.findings]


@pytest.mark.parametrize(
    ("parent", "text"),
    [
        ({"name": "egde"}, "Gateway default/egde does not exist (NoMatchingParent)"),
        (
            {"name": "edge", "namespace": "infra"},
            "Gateway infra/edge does not exist (NoMatchingParent)",
        ),
        (
            {"name": "more", "kind": "ListenerSet"},
            "ListenerSet default/more does not exist (NoMatchingParent)",
        ),
        (
            {"name": "web", "kind": "Service"},
            f'group {GROUP} has no parents of kind Service: write group: ""',
        ),
        (
            {"name": "bank", "kind": "ServiceEntry"},
            f'group {GROUP} has no parents of kind ServiceEntry: write group: "networking.istio.io"',
        ),
        (
            {"name": "web", "kind": "Gatewy"},
            f"group {GROUP} has no parents of kind Gatewy: name a Gateway or ListenerSet",
        ),
        (
            {"name": "web", "kind": "Pod", "group": ""},
            'group "" has no parents of kind Pod: write kind: Service',
        ),
    ],
)
@pytest.mark.parametrize("kind", ["httproutes", "grpcroutes", "tcproutes"])
def test_a_parent_that_nobody_has_is_told(parent: dict[str, Any], text: str, kind: str) -> None:
    made = compiler(WEB, edge(), route(RULE, parents=({"name": "edge"}, parent), kind=kind))
    found = [each for each in told(made) if each[2] == "spec.parentRefs[1]"]
    assert found == [("AMB0401", Level.ERROR, "spec.parentRefs[1]", text)]


@pytest.mark.parametrize(
    "somebodys", [{"group": "example.com", "kind": "Tunnel", "name": "x"}, {"name": "theirs"}]
)
def test_what_is_somebody_elses_is_theirs_to_tell(somebodys: dict[str, Any]) -> None:
    made = compiler(WEB, edge(name="theirs", of_class="other"), route(RULE, parents=(somebodys,)))
    assert told(made) == []


def test_it_follows_the_gateway() -> None:
    made = compiler(WEB, to_edge(RULE))
    assert [each[0] for each in told(made)] == ["AMB0401"]
    made.apply([change(edge())])
    assert told(made) == []
    made.apply([Change(f"gateways.{GROUP}", "default/edge")])
    assert [each[0] for each in told(made)] == ["AMB0401"]


def test_a_service_that_does_not_exist_is_told_by_its_status_alone() -> None:
    """Once, not twice."""
    made = compiler(WEB, waypoint(), route(RULE, parents=(parent("wbe"),)))
    assert [(each[0], each[2]) for each in told(made)] == [("AMB0401", "spec.parentRefs[0]")]
    assert SERVICE["group"] == ""


def test_a_listener_without_its_certificate_is_told() -> None:
    listener = {"name": "https", "port": 443, "protocol": "HTTPS"}
    made = compiler(edge({**listener, "tls": {"certificateRefs": [{"name": "missing"}]}}))
    ((code, level, path, text),) = told(made)
    assert (code, level, path) == ("AMB0408", Level.ERROR, "spec.listeners[0]")
    assert "missing" in text and "InvalidCertificateRef" in text


def test_kinds_that_a_listener_does_not_carry_are_a_warning() -> None:
    given = {"name": "http", "port": 80, "protocol": "HTTP"}
    kinds = [{"kind": "HTTPRoute"}, {"kind": "TCPRoute"}]
    made = compiler(edge({**given, "allowedRoutes": {"kinds": kinds}}))
    assert [each[:3] for each in told(made)] == [("AMB0408", Level.WARNING, "spec.listeners[0]")]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({"group": "", "kind": "Service", "name": "wbe"}, "TargetNotFound"),
        ({"group": "", "kind": "Service", "name": "web"}, "AncestorNotBound"),
        ({"group": GROUP, "kind": "Gateway", "name": "nobody"}, "TargetNotFound"),
    ],
)
def test_a_policy_that_no_proxy_enforces_is_told(target: dict[str, Any], reason: str) -> None:
    policy = (
        "authorizationpolicies.security.istio.io",
        {
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"targetRefs": [target]},
        },
    )
    ((code, level, path, text),) = told(compiler(WEB, policy))
    assert (code, level, path) == ("AMB0236", Level.WARNING, "spec.targetRefs")
    assert text.endswith(f"({reason})")
    good = (
        "authorizationpolicies.security.istio.io",
        {
            **policy[1],
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}]},
        },
    )
    assert told(compiler(bound(WEB, "waypoint"), waypoint(), good)) == []


def of_policy(made: MeshCompiler) -> tuple[str, str]:
    status = made.statuses["AuthorizationPolicy default/p"]
    assert isinstance(status, ObjectStatus)
    (condition,) = status.conditions
    return condition.status, condition.reason


BOUND = bound(WEB, "waypoint")
FOR_WEB = policy({"kind": "Service", "name": "web"})
ELSEWHERE = bound(WEB, "waypoint", "other")


@pytest.mark.parametrize(
    "given",
    [
        [BOUND],
        [BOUND, edge(name="waypoint")],
        [BOUND, waypoint(listeners=({"name": "mesh", "port": 80, "protocol": "HTTP"},))],
        [ELSEWHERE],
        [ELSEWHERE, waypoint(namespace="other"), namespace("other"), namespace("default")],
        [BOUND, edge(name="waypoint", of_class="acme")],
    ],
)
def test_a_waypoint_that_cannot_be_used_enforces_nothing(given: list[Given]) -> None:
    made = compiler(FOR_WEB, *given)
    assert of_policy(made) == ("False", "AncestorNotBound")
    (text,) = (each[3] for each in told(made) if each[0] == "AMB0236")
    assert text.startswith("the waypoint of Service default/web cannot be used"), text


def test_it_follows_the_waypoint() -> None:
    made = compiler(FOR_WEB, BOUND)
    made.apply([change(waypoint())])
    assert of_policy(made) == ("True", "Accepted") and told(made) == []
    made.apply([Change(f"gateways.{GROUP}", "default/waypoint")])
    assert of_policy(made)[1] == "AncestorNotBound"
