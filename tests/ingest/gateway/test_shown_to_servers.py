"""What a gateway shows to servers that ask for a certificate: `spec.tls.backend.clientCertificateRef`."""

from typing import Any

import pytest

from ambit.ingest.mesh import Change, MeshCompiler
from tests.ingest.build import Given
from tests.ingest.gateway.build import edge, grant, waypoint
from tests.ingest.gateway.pairs import Authority, Pair, https, secret
from tests.ingest.gateway.test_edge import said, status
from tests.ingest.gateway.test_gateways import status as waypoint_status
from tests.ingest.test_mesh import change, compiler

PAIR, OTHER = Authority().pair("edge"), Authority().pair("edge")


def showing(name: str = "mine", **more: Any) -> dict[str, Any]:
    return {"backend": {"clientCertificateRef": {"name": name, **more}}}


def names(made: MeshCompiler) -> list[str]:
    found = made.certificates.get("default/edge")
    return [each.name for each in found.pairs] if found is not None else []


def resolved(made: MeshCompiler) -> tuple[str, str] | None:
    return said(status(made).conditions).get("ResolvedRefs")


def test_a_gateway_shows_its_certificate_and_follows_it() -> None:
    made = compiler(edge(tls=showing()), secret("mine", PAIR))
    assert made.proxies["default/edge"].client_certificate == "default/mine" and names(made) == [
        "default/mine"
    ]
    assert resolved(made) == ("True", "ResolvedRefs") and not made.findings
    delta = made.apply([change(secret("mine", OTHER))])
    assert delta.certificates and not delta.proxies
    made.apply([Change("secrets", "default/mine")])
    assert made.proxies["default/edge"].client_certificate == "" and names(made) == []
    assert resolved(made) == ("False", "InvalidClientCertificateRef")
    assert said(status(made).conditions)["Accepted"] == ("True", "Accepted")
    assert [each.code for each in made.findings] == ["AMB0408"]


def test_it_may_be_that_of_a_listener() -> None:
    made = compiler(edge(https("https", "mine"), tls=showing()), secret("mine", PAIR))
    assert names(made) == ["default/mine"]


def test_who_asks_for_none_says_nothing() -> None:
    assert resolved(compiler(edge(), secret("mine", PAIR))) is None


@pytest.mark.parametrize(
    ("reference", "given", "reason"),
    [
        ({}, (), "InvalidClientCertificateRef"),
        ({}, (secret("mine", Pair("x", "y")),), "InvalidClientCertificateRef"),
        ({}, (secret("mine", Pair(PAIR.chain, OTHER.key)),), "InvalidClientCertificateRef"),
        ({"kind": "ConfigMap"}, (secret("mine", PAIR),), "InvalidClientCertificateRef"),
        ({"group": "example.com"}, (secret("mine", PAIR),), "InvalidClientCertificateRef"),
        ({"namespace": "keys"}, (secret("mine", PAIR, namespace="keys"),), "RefNotPermitted"),
    ],
)
def test_what_cannot_be_shown_is_said(
    reference: dict[str, Any], given: tuple[Given, ...], reason: str
) -> None:
    made = compiler(edge(tls=showing(**reference)), *given)
    assert names(made) == [] and made.proxies["default/edge"].client_certificate == ""
    assert resolved(made) == ("False", reason)
    assert said(status(made).conditions)["Accepted"] == ("True", "Accepted")


def test_another_namespace_grants_it() -> None:
    granted = grant("keys", "default", kind="Gateway", to_kind="Secret", name="mine")
    made = compiler(edge(tls=showing(namespace="keys")), secret("mine", PAIR, namespace="keys"), granted)
    assert names(made) == ["keys/mine"] and resolved(made) == ("True", "ResolvedRefs")


def test_a_waypoint_says_that_it_shows_none() -> None:
    made = compiler(waypoint(tls=showing()), secret("mine", PAIR))
    found = said(waypoint_status(made).conditions)
    assert found["ResolvedRefs"] == ("False", "InvalidClientCertificateRef")
    assert found["Accepted"] == ("True", "Accepted")
