"""ServiceEntries: what single fields come to. The golden case `service_entries` shows whole ones."""

from typing import Any

import msgspec
import pytest

from ambit.core.finding import Level
from ambit.ingest.istio.endpoint import parts, problem
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.service import AppProtocol, BalancingMode, ServerNames, Visibility
from ambit.objects.networking import EntryEndpoint
from tests.ingest import build
from tests.ingest.test_mesh import change

ENTRIES = "serviceentries.networking.istio.io"


def entry(
    name: str, *hosts: str, namespace: str = "default", created: str = "2026-01-01T00:00:00Z", **spec: Any
) -> Change:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    ports = spec.pop("ports", [{"number": 80, "name": "http"}])
    return change((ENTRIES, {"metadata": metadata, "spec": {"hosts": list(hosts), "ports": ports, **spec}}))


def compiled(*changes: Change) -> MeshCompiler:
    compiler = MeshCompiler(MeshSettings())
    compiler.apply(changes)
    return compiler


def test_none_lets_connections_go_where_they_were_going() -> None:
    made = compiled(entry("a", "x.test", addresses=["192.0.2.0/24"])).services["default/x.test"]
    assert made.load_balancing is not None and made.load_balancing.mode is BalancingMode.PASSTHROUGH


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ({"name": "x", "protocol": "HTTPS"}, AppProtocol.TLS),
        ({"name": "x", "protocol": "gRPC"}, AppProtocol.GRPC),
        ({"name": "http-x"}, AppProtocol.HTTP11),
        ({"name": "http-x", "protocol": "TCP"}, AppProtocol.TCP),
        ({"name": "x"}, None),
    ],
)
def test_a_port_speaks_what_its_protocol_says_else_its_name(
    port: dict[str, str], expected: AppProtocol | None
) -> None:
    made = compiled(entry("a", "x.test", ports=[{"number": 80, **port}])).services["default/x.test"]
    assert made.app_protocols.get(80) is expected


def test_the_oldest_of_a_namespace_has_the_host_and_hands_it_on() -> None:
    old = entry("old", "x.test", addresses=["192.0.2.1"])
    new = entry("new", "x.test", "y.test", addresses=["192.0.2.2"], created="2026-02-01T00:00:00Z")
    compiler = compiled(new, old)
    assert {key: str(each.addresses[0].address) for key, each in compiler.services.items()} == {
        "default/x.test": "192.0.2.1",
        "default/y.test": "192.0.2.2",
    }
    assert [each.code for each in compiler.findings] == ["AMB0303"]
    compiler.apply([Change(ENTRIES, old.key)])
    assert str(compiler.services["default/x.test"].addresses[0].address) == "192.0.2.2"
    assert compiler.findings == ()


def test_the_oldest_of_all_namespaces_is_canonical() -> None:
    compiler = compiled(
        entry("a", "x.test", namespace="late", created="2026-02-01T00:00:00Z"),
        entry("a", "x.test", namespace="early"),
    )
    assert {key: each.canonical for key, each in compiler.services.items()} == {
        "early/x.test": True,
        "late/x.test": False,
    }


def test_a_services_own_name_stays_the_services() -> None:
    name = "web.default.svc.cluster.local"
    compiler = compiled(
        change(build.service("web", {"app": "web"}, ip="10.96.0.9")),
        entry("a", name, addresses=["192.0.2.1"]),
    )
    assert [str(each.address) for each in compiler.services[f"default/{name}"].addresses] == ["10.96.0.9"]


def test_dns_without_endpoints_resolves_the_host_but_not_instead_of_a_selector() -> None:
    compiler = compiled(
        entry("a", "x.test", resolution="DNS"),
        entry("b", "y.test", resolution="DNS", workloadSelector={"labels": {"app": "web"}}),
        change(build.pod("web-1", "10.0.0.1")),
    )
    behind = {
        each.hostname or str(each.addresses[0]): sorted(each.services) for each in compiler.workloads.values()
    }
    assert behind == {"x.test": ["default/x.test"], "10.0.0.1": ["default/y.test"]}


@pytest.mark.parametrize(
    ("address", "names", "works"),
    [
        ("10.0.0.1", False, True),
        ("fd00::1", False, True),
        ("db.test", False, False),
        ("db.test", True, True),
        ("db test", True, False),
        ("127.1", True, False),
        ("*.test", True, False),
        ("unix:///run/x", True, False),
        ("", True, False),
    ],
)
def test_endpoints_that_nobody_can_be_sent_to(address: str, names: bool, works: bool) -> None:
    assert (problem(EntryEndpoint(address=address), names=names) == "") is works


def test_endpoints_of_one_address_are_told_apart() -> None:
    given = [EntryEndpoint(address=each) for each in ("10.0.0.1", "10.0.0.2", "10.0.0.1")]
    assert [name for name, _ in parts(given)] == ["10.0.0.1", "10.0.0.2", "10.0.0.1/2"]


def test_everything_goes_with_its_objects() -> None:
    changes = [
        entry("a", "x.test", resolution="STATIC", endpoints=[{"address": "192.0.2.1"}]),
        entry("b", "*.x.test", resolution="DNS"),
        change(
            (
                "workloadentries.networking.istio.io",
                {"metadata": {"name": "m", "namespace": "default"}, "spec": {"address": "10.9.0.1"}},
            )
        ),
    ]
    compiler = compiled(*changes)
    assert compiler.services and compiler.workloads and compiler.findings
    compiler.apply([Change(each.resource, each.key) for each in changes])
    assert not (compiler.services or compiler.workloads or compiler.findings)
    assert [each for each in compiler.statistics() if each.size] == []


@pytest.mark.parametrize(
    ("export_to", "expected"),
    [
        ([], Visibility.PUBLIC),
        (["*"], Visibility.PUBLIC),
        ([".", "*"], Visibility.PUBLIC),
        (["."], Visibility.NAMESPACE),
        (["default"], Visibility.NAMESPACE),
        ([".", "~"], Visibility.NAMESPACE),
        (["~"], None),
    ],
)
def test_who_may_see_a_host(export_to: list[str], expected: Visibility | None) -> None:
    compiler = compiled(entry("a", "x.test", addresses=["192.0.2.1"], exportTo=export_to))
    made = compiler.services.get("default/x.test")
    assert (made.visibility if made else None) is expected
    assert not compiler.findings


def test_a_host_for_some_namespaces_is_everybodys_and_that_is_said() -> None:
    compiler = compiled(entry("a", "x.test", addresses=["192.0.2.1"], exportTo=[".", "other"]))
    assert compiler.services["default/x.test"].visibility is Visibility.PUBLIC
    assert [(each.code, each.path) for each in compiler.findings] == [("AMB0305", "spec.exportTo")]


@pytest.mark.parametrize("host", ["a\nb.example", "a\x00b.example", "a/b.example", "240.240.0.5", "", "a b"])
def test_what_is_no_name_is_left_out_with_an_error_and_the_other_hosts_count(host: str) -> None:
    """Envoy would refuse a whole table for it, and an address would be somebody else's."""
    compiler = compiled(entry("a", host, "good.example"))
    assert [each.hostname for each in compiler.services.values()] == ["good.example"]
    assert ("AMB0301", "spec.hosts[0]") in [(each.code, each.path) for each in compiler.findings]


@pytest.mark.parametrize(("address", "works"), [("db.test", True), ("a/../b", False), ("", False)])
def test_a_workload_entry_that_nobody_can_be_sent_to_is_told(address: str, works: bool) -> None:
    given = {"metadata": {"name": "db", "namespace": "shop"}, "spec": {"address": address}}
    made = compiled(change(("workloadentries.networking.istio.io", given)))
    said = [(each.code, str(each.origin), each.path) for each in made.findings]
    assert bool(made.workloads) is works
    assert said == ([] if works else [("AMB0304", "WorkloadEntry shop/db", "spec.address")])


_TLS = [{"number": 443, "name": "tls", "targetPort": 8443}]


def led(*hosts: str, on: bool = True, labelled: bool = True, **spec: Any) -> MeshCompiler:
    given = entry("a", *hosts, resolution="DYNAMIC_DNS", **{"ports": _TLS, **spec})
    if labelled:
        meta = msgspec.structs.replace(given.value.metadata, labels={"istio.io/use-waypoint": "way"})
        given = msgspec.structs.replace(given, value=msgspec.structs.replace(given.value, metadata=meta))
    compiler = MeshCompiler(MeshSettings(server_names=ServerNames(("10.20.0.0/16",)) if on else None))
    compiler.apply([given])
    return compiler


def test_hosts_are_led_by_the_names_in_hellos_where_settings_have_that() -> None:
    made = led("*.x.test")
    service = made.services["default/*.x.test"]
    assert service.server_names == ServerNames(("10.20.0.0/16",))
    assert service.waypoint is not None and service.ports[0].target == 8443
    assert not [each for each in made.findings if each.code == "AMB0301"]
    assert not made.workloads


@pytest.mark.parametrize(
    ("made", "path", "text"),
    [
        (led("*.x.test", on=False), "spec.resolution", "enableWildcardHostServiceEntriesForTls"),
        (led("x.test"), "spec.hosts[0]", "begin with"),
        (led("*"), "spec.hosts[0]", "begin with"),
        (led("*.a.localhost"), "spec.hosts[0]", "begin with"),
        (led("*.localhost."), "spec.hosts[0]", "begin with"),
        (led("*.LocalHost"), "spec.hosts[0]", "begin with"),
        (led("*.0.0.1"), "spec.hosts[0]", "no DNS name"),
        (led("*.0x1"), "spec.hosts[0]", "no DNS name"),
        (led("*.x.test", location="MESH_INTERNAL"), "spec.location", "out of the mesh"),
        (led("*.x.test", endpoints=[{"address": "10.0.0.1"}]), "spec.resolution", "neither endpoints"),
        (led("*.x.test", workloadSelector={"labels": {"a": "b"}}), "spec.resolution", "neither endpoints"),
    ],
)
def test_what_cannot_be_led_is_said_and_left_out(made: MeshCompiler, path: str, text: str) -> None:
    (finding,) = (each for each in made.findings if each.code == "AMB0301")
    assert (finding.path, text in finding.text) == (path, True) and not made.services


def test_only_tls_is_led_and_by_a_waypoint() -> None:
    made = led("*.x.test", labelled=False, ports=[*_TLS, {"number": 80, "name": "http"}])
    assert [port.service for port in made.services["default/*.x.test"].ports] == [443]
    found = {each.path: each.level for each in made.findings if each.code == "AMB0301"}
    assert found == {"spec.ports[1].protocol": Level.ERROR, "metadata.labels": Level.WARNING}


@pytest.mark.parametrize(
    ("given", "spec", "missing"),
    [
        (["2001:2::9"], {}, True),
        (["240.240.0.9", "2001:2::9"], {}, False),
        (["240.240.0.9"], {}, False),
        ([], {}, False),
        (["2001:2::9"], {"addresses": ["192.0.2.1"]}, False),
    ],
)
def test_who_was_given_no_ipv4_address_is_told(given: list[str], spec: dict[str, Any], missing: bool) -> None:
    """One without any has none yet."""
    body = {
        "metadata": {"name": "e", "namespace": "shop"},
        "spec": {"hosts": ["a.test", "b.test"], "resolution": "DNS", "ports": [{"number": 80}], **spec},
        "status": {
            "addresses": [
                *({"host": "a.test", "value": each} for each in ("240.240.0.7", "2001:2::7")),
                *({"host": "b.test", "value": each} for each in given),
            ]
        },
    }
    found = [(each.code, each.level, each.path) for each in compiled(change((ENTRIES, body))).findings]
    assert found == [("AMB0307", Level.WARNING, "spec.hosts[1]")] * missing
