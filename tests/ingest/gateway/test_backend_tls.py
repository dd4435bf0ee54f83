"""BackendTLSPolicies: what becomes of each, and how the ports of services are called."""

from collections.abc import Sequence
from typing import Any

import pytest

from ambit.core.names import SYSTEM_ROOTS
from ambit.ingest.gateway.backend_tls import MOST_IN_NAMESPACE, MOST_ROOTS
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.model.backend_tls import BackendTls
from ambit.model.status import Parent, PolicyStatus
from tests.ingest.build import Given, service
from tests.ingest.gateway.build import GROUP, bound, edge, to, to_edge, waypoint
from tests.ingest.test_mesh import change, compiler
from tests.plan.dataplane.conftest import Authority

ROOT, OTHER = Authority().root, Authority().root
WEB = "default/web.default.svc.cluster.local"
FINE = {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
REF = {"group": "", "kind": "ConfigMap", "name": "roots"}


def roots(text: str = ROOT, name: str = "roots", namespace: str = "default") -> Given:
    return "configmaps", {"metadata": {"name": name, "namespace": namespace}, "data": {"ca.crt": text}}


def service_entry(name: str, *hosts: str, ports: Sequence[dict[str, Any]] = ()) -> Given:
    http = {"name": "http", "number": 80, "protocol": "HTTP"}
    return "serviceentries.networking.istio.io", {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"hosts": list(hosts), "ports": list(ports) or [http], "resolution": "DNS"},
    }


def policy(
    name: str = "tls",
    *,
    section: str = "",
    created: str = "2026-01-01T00:00:00Z",
    target: dict[str, Any] | None = None,
    **validation: Any,
) -> Given:
    on = {"group": "", "kind": "Service", "name": "web", **(target or {})}
    wanted = {"hostname": "db.example.com", "caCertificateRefs": [REF], **validation}
    return f"backendtlspolicies.{GROUP}", {
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": created},
        "spec": {
            "targetRefs": [{**on, **({"sectionName": section} if section else {})}],
            "validation": wanted,
        },
    }


def made(*given: Given) -> MeshCompiler:
    ports = [{"name": "https", "port": 443}, {"name": "alt", "port": 8443}]
    return compiler(bound(service("web", {"app": "web"}, ports=ports), "waypoint"), waypoint(), *given)


def tls(compiled: MeshCompiler) -> dict[int, BackendTls]:
    return compiled.services[WEB].backend_tls


def called_with_tls(compiled: MeshCompiler) -> dict[str, set[int]]:
    """Hosts and ports."""
    return {each.hostname: {*each.backend_tls} for each in compiled.services.values() if each.backend_tls}


def conditions(compiled: MeshCompiler, name: str = "tls") -> dict[str, tuple[str, str]]:
    status = compiled.statuses[f"BackendTLSPolicy default/{name}"]
    assert isinstance(status, PolicyStatus)
    (ancestor,) = status.ancestors
    assert ancestor.parent == Parent(GROUP, "Gateway", "waypoint", "default")
    return {each.type: (each.status, each.reason) for each in ancestor.conditions}


def test_roots_of_one_policy_have_a_bound() -> None:
    """Every node is sent them."""
    fine, much = ROOT * (MOST_ROOTS // len(ROOT) - 1), ROOT * (MOST_ROOTS // len(ROOT) + 1)
    assert conditions(made(policy(), roots(fine))) == FINE
    compiled = made(policy(), roots(much))
    assert conditions(compiled)["Accepted"] == ("False", "Invalid")
    assert not tls(compiled)[443].trusts
    assert "KiB, and one policy may have 256" in compiled.findings[0].text


def test_so_have_those_of_a_namespace_and_the_older_ones_go_first() -> None:
    large = roots(ROOT * (MOST_ROOTS // len(ROOT)))
    several = [
        policy(f"p{index:02}", created=f"2026-01-01T00:00:{index:02}Z", target={"name": f"web{index}"})
        for index in range(20)
    ]
    services = [bound(service(f"web{index}", {"app": "web"}), "waypoint") for index in range(20)]
    namespace = ("namespaces", {"metadata": {"name": "default"}})
    compiled = compiler(waypoint(), namespace, large, *services, *several)
    trusted = [
        index
        for index in range(20)
        for each in compiled.services[f"default/web{index}.default.svc.cluster.local"].backend_tls.values()
        if each.trusts
    ]
    assert trusted == [*range(MOST_IN_NAMESPACE // MOST_ROOTS)]
    assert conditions(compiled, "p15") == FINE
    assert conditions(compiled, "p16")["Accepted"] == ("False", "Invalid")
    compiled.apply([change(roots())])
    assert conditions(compiled, "p16") == FINE


def test_all_ports_of_a_service_are_called_with_tls() -> None:
    compiled = made(policy(), roots())
    expected = BackendTls("db.example.com", f"{ROOT.strip()}\n", ("db.example.com",))
    assert tls(compiled) == {443: expected, 8443: expected}
    assert conditions(compiled) == FINE and not compiled.findings
    compiled.apply([Change(f"backendtlspolicies.{GROUP}", "default/tls")])
    assert tls(compiled) == {} and not compiled.statuses.get("BackendTLSPolicy default/tls")


def test_names_that_are_given_stand_for_the_host_name() -> None:
    names = [{"type": "Hostname", "hostname": "a.example.com"}, {"type": "URI", "uri": "spiffe://a/b"}]
    found = tls(made(policy(subjectAltNames=names), roots()))[443]
    assert (found.hostname, found.names, found.uris) == (
        "db.example.com",
        ("a.example.com",),
        ("spiffe://a/b",),
    )


def test_a_policy_for_a_port_goes_before_one_for_all() -> None:
    older = policy("older", created="2025-01-01T00:00:00Z")
    compiled = made(policy(section="alt", hostname="alt.example.com"), older, roots())
    assert {port: each.hostname for port, each in tls(compiled).items()} == {
        443: "db.example.com",
        8443: "alt.example.com",
    }
    assert conditions(compiled) == conditions(compiled, "older") == FINE


@pytest.mark.parametrize("section", ["", "alt"])
def test_of_two_for_the_same_the_older_counts(section: str) -> None:
    older = policy("older", created="2025-01-01T00:00:00Z", section=section, hostname="older.example.com")
    compiled = made(policy(section=section), older, roots())
    assert {each.hostname for each in tls(compiled).values()} == {"older.example.com"}
    assert conditions(compiled)["Accepted"] == ("False", "Conflicted")
    assert conditions(compiled, "older") == FINE
    assert [each.code for each in compiled.findings] == ["AMB0406"]
    compiled.apply([Change(f"backendtlspolicies.{GROUP}", "default/older")])
    assert conditions(compiled) == FINE


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ((policy(),), "InvalidCACertificateRef"),
        ((policy(), roots("")), "InvalidCACertificateRef"),
        ((policy(), roots("no certificate")), "InvalidCACertificateRef"),
        ((policy(), roots(ROOT.replace("MII", "AAA", 1))), "InvalidCACertificateRef"),
        ((policy(), roots(namespace="shop")), "InvalidCACertificateRef"),
        ((policy(caCertificateRefs=[{**REF, "kind": "Secret"}]), roots()), "InvalidKind"),
        ((policy(caCertificateRefs=[{**REF, "group": "example.com"}]), roots()), "InvalidKind"),
    ],
)
def test_without_a_root_nobody_is_trusted(given: tuple[Given, ...], resolved: str) -> None:
    compiled = made(*given)
    assert {each.roots for each in tls(compiled).values()} == {""}
    assert conditions(compiled) == {
        "Accepted": ("False", "NoValidCACertificate"),
        "ResolvedRefs": ("False", resolved),
    }
    assert [each.code for each in compiled.findings] == ["AMB0406"]


def test_roots_that_come_and_go_are_followed() -> None:
    compiled = made(policy())
    compiled.apply([change(roots())])
    assert conditions(compiled) == FINE and tls(compiled)[443].roots
    compiled.apply([change(roots(OTHER))])
    assert tls(compiled)[443].roots == f"{OTHER.strip()}\n"
    compiled.apply([Change("configmaps", "default/roots")])
    assert not tls(compiled)[443].roots


def test_one_good_root_of_several_will_do() -> None:
    compiled = made(policy(caCertificateRefs=[{**REF, "name": "missing"}, REF]), roots())
    assert tls(compiled)[443].roots
    assert conditions(compiled) == FINE | {"ResolvedRefs": ("False", "InvalidCACertificateRef")}


@pytest.mark.parametrize(
    "validation",
    [
        {"caCertificateRefs": [], "wellKnownCACertificates": "example.com/mine"},
        {"wellKnownCACertificates": "System"},
        {"hostname": ""},
        {"subjectAltNames": [{"type": "URI"}]},
        {"subjectAltNames": [{"type": "IPAddress", "hostname": "a"}]},
    ],
)
def test_what_is_not_known_here_is_closed(validation: dict[str, Any]) -> None:
    compiled = made(policy(**validation), roots())
    assert conditions(compiled)["Accepted"] == ("False", "Invalid")
    assert not any(each.trusts for each in tls(compiled).values())


def test_public_authorities_can_be_trusted() -> None:
    compiled = made(policy(caCertificateRefs=[], wellKnownCACertificates="System"))
    assert conditions(compiled) == FINE and not compiled.findings
    expected = BackendTls("db.example.com", "", ("db.example.com",), roots_file=SYSTEM_ROOTS)
    assert tls(compiled)[443] == expected and expected.trusts


ENTRY = {"group": "networking.istio.io", "kind": "ServiceEntry", "name": "outside"}


def test_service_entries_are_called_with_tls_by_their_waypoint() -> None:
    ports = [
        {"name": "http", "number": 80, "protocol": "HTTP"},
        {"name": "alt", "number": 81, "protocol": "HTTP"},
    ]
    hosts = ["a.example.com", "b.example.com"]
    entry = bound(service_entry("outside", *hosts, ports=ports), "waypoint")
    compiled = made(entry, policy(target=ENTRY, section="alt"), roots())
    assert called_with_tls(compiled) == {each: {81} for each in hosts}
    assert conditions(compiled) == FINE
    compiled.apply([change(policy(target=ENTRY))])
    assert called_with_tls(compiled) == {each: {80, 81} for each in hosts}
    compiled.apply([change(policy(target={**ENTRY, "group": ""}))])
    assert called_with_tls(compiled) == {}


def test_a_service_and_an_entry_of_one_name_are_told_apart() -> None:
    compiled = made(service_entry("web", "a.example.com"), policy(), roots())
    assert called_with_tls(compiled) == {"web.default.svc.cluster.local": {443, 8443}}


@pytest.mark.parametrize("target", [{"name": "other"}, {"kind": "Other"}, {"group": "example.com"}])
def test_a_policy_for_something_else_changes_nothing(target: dict[str, Any]) -> None:
    compiled = made(policy(target=target), roots())
    assert tls(compiled) == {}
    status = compiled.statuses["BackendTLSPolicy default/tls"]
    assert isinstance(status, PolicyStatus) and not status.ancestors


def test_gateways_with_routes_to_the_service_are_told_of() -> None:
    given = to_edge({"backendRefs": [to("web", 443)]})
    compiled = made(policy(), roots(), edge(), given)

    def ancestors() -> list[tuple[str, str]]:
        status = compiled.statuses["BackendTLSPolicy default/tls"]
        assert isinstance(status, PolicyStatus)
        return [(each.parent.name, each.controller.partition("/")[2]) for each in status.ancestors]

    assert ancestors() == [("waypoint", "waypoint-controller"), ("edge", "gateway-controller")]
    compiled.apply([Change(given[0], "default/route")])
    assert ancestors() == [("waypoint", "waypoint-controller")]
