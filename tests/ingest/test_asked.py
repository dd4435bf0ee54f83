"""Whom a policy with the action CUSTOM asks, and what is said when there is nobody."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.provider import Authorizer, ProviderService
from ambit.model.request_policy import Asked, Attribute
from ambit.model.status import ObjectStatus
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import bound, waypoint
from tests.ingest.test_mesh import change

HOST = "authz.default.svc.cluster.local"
BOUND = bound(service("web", {"app": "web"}), "waypoint")
AUTHZ = service("authz", {"app": "authz"})
OUTSIDE = "authz.example.com"


def entry(namespace: str) -> Given:
    spec = {"hosts": [OUTSIDE], "ports": [{"number": 443, "name": "http"}], "resolution": "DNS"}
    metadata = {"name": "outside", "namespace": namespace}
    return "serviceentries.networking.istio.io", {"metadata": metadata, "spec": spec}


def policy(provider: str = "a", **spec: Any) -> Given:
    spec = {
        "action": "CUSTOM",
        "provider": {"name": provider},
        "targetRefs": [{"kind": "Service", "name": "web"}],
        "rules": [{}],
        **spec,
    }
    metadata = {"name": "p", "namespace": "default"}
    return "authorizationpolicies.security.istio.io", {"metadata": metadata, "spec": spec}


def mesh(*given: Given, hostname: str = HOST, port: int = 80, namespace: str = "") -> MeshCompiler:
    """With one provider, `a`."""
    authorizer = Authorizer("a", ProviderService(hostname, port, namespace))
    made = MeshCompiler(MeshSettings(authorizers=(authorizer,)))
    made.apply(map(change, (BOUND, waypoint(), *given)))
    return made


def asked(made: MeshCompiler) -> str:
    """The key of the service where it asks; empty for nobody, and then that is said."""
    found = made.request_policies["default/p"].asked
    status = made.statuses["AuthorizationPolicy default/p"]
    assert isinstance(status, ObjectStatus)
    (condition,) = status.conditions
    codes = [each.code for each in made.findings]
    expected = ("False", "ProviderNotFound", ["AMB0218"]) if found is None else ("True", "Accepted", [])
    assert (condition.status, condition.reason, codes) == expected
    return found.service if found is not None else ""


def said(made: MeshCompiler) -> str:
    assert not asked(made)
    return made.findings[0].text


def test_a_service_by_its_host_name() -> None:
    made = mesh(policy(), AUTHZ)
    assert asked(made) == f"default/{HOST}"
    assert made.request_policies["default/p"].asked == Asked(
        Authorizer("a", ProviderService(HOST, 80)), f"default/{HOST}"
    )


def test_it_comes_and_goes_with_its_service() -> None:
    made = mesh(policy())
    assert f"there is no service {HOST}" in said(made)
    delta = made.apply([change(AUTHZ)])
    assert delta.request_policies.upserts["default/p"].asked is not None
    assert asked(made)
    made.apply([Change(AUTHZ[0], "default/authz")])
    assert not asked(made)


def test_what_is_wrong_is_said_by_name() -> None:
    assert "no provider 'b' is among extensionProviders of the mesh's settings (there are: a)" in said(
        mesh(policy("b"), AUTHZ)
    )
    assert "no provider is among" in said(mesh(policy(""), AUTHZ))
    assert f"service {HOST} has no port 81" in said(mesh(policy(), AUTHZ, port=81))


def test_a_host_outside() -> None:
    assert asked(mesh(policy(), entry("one"), hostname=OUTSIDE, port=443)) == f"one/{OUTSIDE}"
    both = (policy(), entry("one"), entry("two"))
    text = said(mesh(*both, hostname=OUTSIDE, port=443))
    assert f"is in several namespaces (one, two); write <namespace>/{OUTSIDE}" in text
    assert asked(mesh(*both, hostname=OUTSIDE, port=443, namespace="two")) == f"two/{OUTSIDE}"


def test_tokens_are_not_seen_yet() -> None:
    rules = [
        {"from": [{"source": {"notRequestPrincipals": ["*"]}}]},
        {"when": [{"key": "request.auth.claims[group]", "values": ["a"]}]},
        {"to": [{"operation": {"methods": ["GET"]}}]},
    ]
    made = mesh(policy(rules=rules), AUTHZ)
    found = [
        condition.attribute
        for rule in made.request_policies["default/p"].rules
        for clause in rule.clauses
        for match in clause.matches
        for condition in match.conditions
    ]
    assert found == [Attribute.UNSEEN, Attribute.UNSEEN, Attribute.METHOD]
    assert [(each.code, each.path) for each in made.findings] == [
        ("AMB0207", "spec.rules[0].from[0].source"),
        ("AMB0207", "spec.rules[1].when[0]"),
    ]


@pytest.mark.parametrize("action", ["ALLOW", "DENY", "AUDIT"])
def test_others_ask_nobody(action: str) -> None:
    made = mesh(policy("b", action=action), AUTHZ)
    assert made.request_policies["default/p"].asked is None
    assert not made.findings
