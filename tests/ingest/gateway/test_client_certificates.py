"""What a Gateway's `tls.frontend` comes to, and what listeners and Gateway say of it."""

import base64
from typing import Any

import pytest

from ambit.ingest.mesh import MeshCompiler
from ambit.model.proxy import ClientTrust
from tests.ingest.build import Given
from tests.ingest.gateway.build import edge, grant, listener, roots
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.ingest.gateway.test_edge import PAIR, listeners, status
from tests.ingest.gateway.test_gateways import said
from tests.ingest.test_mesh import change, compiler

ROOT = Authority().root
MUTUAL = {"gateway.istio.io/tls-terminate-mode": "MUTUAL"}


def reference(name: str = "ca", **more: str) -> dict[str, str]:
    return {"group": "", "kind": "ConfigMap", "name": name, **more}


def validation(*references: dict[str, str], mode: str = "AllowValidOnly") -> dict[str, Any]:
    return {"validation": {"caCertificateRefs": list(references), "mode": mode}}


def made_of(default: dict[str, Any], *more: Given, ports: tuple[dict[str, Any], ...] = ()) -> MeshCompiler:
    tls = {"frontend": {"default": default, "perPort": list(ports)}}
    given = edge(listener(), https("a", "s"), https("b", "s", port=8443), tls=tls)
    return compiler(given, secret("s", PAIR), roots("ca", ROOT), *more)


def asked(made: MeshCompiler) -> dict[str, ClientTrust | None]:
    return {each.name: each.clients for each in made.proxies["default/edge"].listeners}


def test_the_default_is_for_https_and_a_port_can_have_its_own() -> None:
    assert asked(made_of({})) == {"http": None, "a": None, "b": None}
    strict = ClientTrust(f"{ROOT.strip()}\n")
    assert asked(made_of(validation(reference()))) == {"http": None, "a": strict, "b": strict}
    own = {"port": 8443, "tls": validation(reference(), mode="AllowInsecureFallback")}
    made = made_of(validation(reference()), ports=(own,))
    assert asked(made)["b"] == ClientTrust(strict.roots, must_verify=False)
    assert said(status(made).conditions)["InsecureFrontendValidationMode"] == ("True", "ConfigurationChanged")
    assert "InsecureFrontendValidationMode" not in said(status(made_of(validation(reference()))).conditions)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (reference("gone"), "InvalidCACertificateRef"),
        (reference("bad"), "InvalidCACertificateRef"),
        (reference(kind="Secret"), "InvalidCACertificateKind"),
        (reference(group="example.com"), "InvalidCACertificateKind"),
        (reference("far", namespace="shared"), "RefNotPermitted"),
    ],
)
def test_what_leads_to_no_root_closes_the_listener_and_no_other(given: dict[str, str], reason: str) -> None:
    bad = (roots("bad", "no PEM"), roots("far", ROOT, namespace="shared"))
    made = made_of({}, *bad, ports=({"port": 443, "tls": validation(given)},))
    found = listeners(made)["a"]
    assert found["Accepted"] == ("False", "NoValidCACertificate")
    assert found["ResolvedRefs"] == ("False", reason) and found["Programmed"][0] == "False"
    assert asked(made) == {"http": None, "b": None}
    assert said(status(made).conditions)["Accepted"] == ("True", "ListenersNotValid")


def test_one_root_is_enough() -> None:
    made = made_of(validation(reference(), reference("gone")))
    found = listeners(made)["a"]
    assert (found["Accepted"][0], found["ResolvedRefs"]) == ("True", ("False", "InvalidCACertificateRef"))
    assert asked(made)["a"] is not None


def test_roots_of_another_namespace_need_a_grant() -> None:
    far = roots("far", ROOT, namespace="shared")
    granted = grant("shared", "default", kind="Gateway", to_kind="ConfigMap")
    assert asked(made_of(validation(reference("far", namespace="shared")), far, granted))["a"] is not None


def mutual(name: str, *secrets: str, protocol: str = "HTTPS", **more: Any) -> dict[str, Any]:
    given = https(name, *secrets, **more)
    return {**given, "protocol": protocol, "tls": {**given["tls"], "options": MUTUAL}}


def test_a_listener_of_its_own_asks_for_certificates_of_the_roots_beside_its_own() -> None:
    """Another listener of its port asks for those of other roots, or for none; roots that change are followed."""
    other = Authority("other").root
    pairs = [secret("s", PAIR, **{"ca.crt": ROOT}), secret("t", PAIR, **{"ca.crt": other})]
    given = edge(
        mutual("a", "s", hostname="a.test"),
        mutual("b", "t", hostname="b.test"),
        https("c", "s", hostname="c.test"),
    )
    made = compiler(given, *pairs)
    wanted = {"a": ClientTrust(f"{ROOT.strip()}\n"), "b": ClientTrust(f"{other.strip()}\n"), "c": None}
    assert asked(made) == wanted
    made.apply([change(secret("t", PAIR, **{"ca.crt": ROOT}))])
    assert asked(made) == {**wanted, "b": wanted["a"]}


@pytest.mark.parametrize(
    ("beside", "text"),
    [
        ({}, "needs ca.crt in it"),
        ({"ca.crt": "no PEM"}, "ca.crt: it holds no certificates that can be read"),
        ({"ca.crt": ROOT, "ca.crl": "a list"}, "ca.crl is not supported"),
    ],
)
def test_without_roots_beside_its_own_certificate_it_takes_no_connection(
    beside: dict[str, str], text: str
) -> None:
    made = compiler(edge(listener(), mutual("a", "s")), secret("s", PAIR, **beside))
    found = listeners(made)["a"]
    assert found["Accepted"] == ("False", "NoValidCACertificate")
    assert found["ResolvedRefs"] == ("False", "InvalidCACertificateRef")
    assert text in status(made).listeners[1].conditions[2].message
    assert asked(made) == {"http": None}


def test_a_secret_whose_roots_are_no_base64_gives_none() -> None:
    resource, body = secret("s", PAIR)
    body["data"]["ca.crt"] = "///"
    made = compiler(edge(mutual("a", "s")), (resource, body))
    assert listeners(made)["a"]["Accepted"] == ("False", "NoValidCACertificate")
    body["data"]["ca.crt"] = base64.b64encode(b"\xff\xfe").decode()
    made.apply([change((resource, body))])
    assert listeners(made)["a"]["Accepted"] == ("False", "NoValidCACertificate")


def test_an_option_that_says_the_same_twice_or_asks_bytes_is_refused() -> None:
    pair = secret("s", PAIR, **{"ca.crt": ROOT})
    frontend = {"default": validation(reference()), "perPort": [{"port": 8443, "tls": {}}]}
    both = mutual("a", "s"), mutual("b", "s", port=8443)
    made = compiler(edge(*both, tls={"frontend": frontend}), pair, roots("ca", ROOT))
    assert listeners(made)["a"]["Accepted"] == ("False", "UnsupportedValue")
    assert asked(made) == {"b": ClientTrust(f"{ROOT.strip()}\n")}
    made = compiler(edge(mutual("a", "s", protocol="TLS")), pair)
    assert listeners(made)["a"]["Accepted"] == ("False", "UnsupportedValue") and not made.proxies


def test_a_listener_without_any_certificate_is_not_used() -> None:
    made = compiler(edge(listener(), mutual("a", "gone")))
    assert listeners(made)["a"]["ResolvedRefs"] == ("False", "InvalidCertificateRef")
    assert asked(made) == {"http": None}
