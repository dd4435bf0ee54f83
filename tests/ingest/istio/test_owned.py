"""What a ServiceEntry must leave to others: names and addresses of Services, pods and namespaces."""

from typing import Any

import pytest

from ambit.core.finding import Level
from ambit.ingest.mesh import Change, MeshCompiler
from tests.ingest import build
from tests.ingest.istio.test_service_entry import ENTRIES, compiled, entry
from tests.ingest.test_mesh import change

SERVICE = change(build.service("victim", {"app": "web"}, namespace="shop", ip="10.96.0.9"))
SIX = change(
    build.service("six", {"app": "web"}, namespace="shop", ip="fd00:10:96::9", clusterIPs=["fd00:10:96:0::9"])
)
ALIAS = change(
    build.service("alias", None, namespace="shop", ip="", type="ExternalName", externalName="x.test")
)
POD = change(build.pod("web-1", "10.244.1.7", namespace="shop"))
HOST = change(build.pod("agent-1", "192.0.2.10", namespace="shop", hostNetwork=True))
ENDED = change(build.pod("job-1", "10.244.1.8", namespace="shop", phase="Succeeded"))
NAMESPACES = [change(("namespaces", {"metadata": {"name": name}})) for name in ("shop", "aaa")]
MESH = [*NAMESPACES, SERVICE, SIX, ALIAS, POD, HOST, ENDED]


def said(compiler: MeshCompiler) -> list[tuple[str, Level, str, str]]:
    return [(each.code, each.level, each.path, each.text) for each in compiler.findings]


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("victim.shop.svc.cluster.local", "Service shop/victim"),
        ("Victim.shop.svc.cluster.local", "Service shop/victim"),
        ("victim.shop", "Service shop/victim"),
        ("victim.shop.svc", "Service shop/victim"),
        ("alias.shop", "Service shop/alias"),
        ("alias.shop.svc.cluster.local", "Service shop/alias"),
        ("db-0.victim.shop", "Service shop/victim"),
        ("db-0.victim.shop.svc", "Service shop/victim"),
        ("*.victim.shop", "Service shop/victim"),
        ("none.shop.svc.cluster.local", "Namespace shop"),
        ("none.later.svc.cluster.local", "Namespace later"),
        ("*.shop.svc.cluster.local", "Namespace shop"),
        ("*.shop", "Namespace shop"),
        ("*.shop.svc", "Namespace shop"),
        ("shop.svc", "Namespace shop"),
        ("*.svc", "the cluster domain"),
        ("*.svc.cluster.local", "the cluster domain"),
        ("svc.cluster.local", "the cluster domain"),
        ("x.cluster.local", "the cluster domain"),
        ("*.cluster.local", "the cluster domain"),
        ("cluster.local", "the cluster domain"),
        ("*.local", "the cluster domain"),
    ],
)
def test_a_name_of_others_is_left_to_them(host: str, owner: str) -> None:
    compiler = compiled(*MESH, entry("thief", host, "own.test", namespace="aaa", addresses=["198.51.100.1"]))
    assert [each.key for each in compiler.services.values() if each.namespace == "aaa"] == ["aaa/own.test"]
    assert said(compiler) == [("AMB0306", Level.ERROR, "spec.hosts[0]", f"{host} is a name of {owner}")]
    assert str(compiler.findings[0].origin) == "ServiceEntry aaa/thief"


@pytest.mark.parametrize(
    "host",
    [
        *(
            "db.aaa.svc.cluster.local",
            "*.aaa.svc.cluster.local",
            "*.db.aaa.svc.cluster.local",
            "db.aaa",
            "*.aaa",
        ),
        *(
            "db.aaa.svc",
            "victim",
            "none.shop",
            "db.example.com",
            "*.example.com",
            "mycluster.local",
            "notshop",
        ),
    ],
)
def test_other_names_are_free(host: str) -> None:
    compiler = compiled(*MESH, entry("own", host, namespace="aaa", addresses=["198.51.100.1"]))
    assert f"aaa/{host}" in compiler.services
    assert said(compiler) == []


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("10.96.0.9", "Service shop/victim"),
        ("10.96.0.9/32", "Service shop/victim"),
        ("fd00:10:96::9", "Service shop/six"),
        ("FD00:10:96::0:9", "Service shop/six"),
        ("10.244.1.7", "Pod shop/web-1"),
        ("192.0.2.10", "Pod shop/agent-1"),
    ],
)
@pytest.mark.parametrize("namespace", ["aaa", "shop"])
def test_an_address_of_others_is_left_to_them(address: str, owner: str, namespace: str) -> None:
    given = entry("thief", "x.test", namespace=namespace, addresses=["198.51.100.1", address])
    compiler = compiled(*MESH, given)
    kept = compiler.services[f"{namespace}/x.test"].addresses
    assert [str(each.address) for each in kept] == ["198.51.100.1"]
    assert said(compiler) == [
        ("AMB0306", Level.ERROR, "spec.addresses[1]", f"{address} is the address of {owner}")
    ]


def test_so_is_one_that_somebody_wrote_into_the_status() -> None:
    resource, given = (
        ENTRIES,
        {
            "metadata": {"name": "thief", "namespace": "aaa"},
            "spec": {"hosts": ["x.test"], "resolution": "STATIC", "ports": [{"number": 80, "name": "tcp"}]},
            "status": {
                "addresses": [
                    {"value": "10.96.0.9", "host": "x.test"},
                    {"value": "240.240.0.9", "host": "x.test"},
                ]
            },
        },
    )
    compiler = compiled(*MESH, change((resource, given)))
    assert [str(each.address) for each in compiler.services["aaa/x.test"].addresses] == ["240.240.0.9"]
    assert [each[:3] for each in said(compiler)] == [("AMB0306", Level.ERROR, "status.addresses[0].value")]


def test_what_is_claimed_follows_its_owners() -> None:
    """An address is free once its pod has ended, and no longer when a pod gets it; names likewise."""
    compiler = compiled(
        entry("e", "victim.shop", namespace="aaa", addresses=["10.244.1.7", "10.244.1.8", "10.96.0.9"])
    )

    def held() -> list[str]:
        return [
            str(each.address)
            for key in compiler.services
            if key.startswith("aaa/")
            for each in compiler.services[key].addresses
        ]

    assert held() == ["10.244.1.7", "10.244.1.8", "10.96.0.9"]
    compiler.apply([POD, ENDED])
    assert held() == ["10.244.1.8", "10.96.0.9"]
    compiler.apply([SERVICE])
    assert held() == []
    compiler.apply([Change("services", SERVICE.key), Change("pods", POD.key)])
    assert held() == ["10.244.1.7", "10.244.1.8", "10.96.0.9"]
    assert said(compiler) == []


def test_an_address_that_is_none_harms_nobody_else() -> None:
    broken = change(build.pod("broken", "not-an-address:1", namespace="shop"))
    compiler = compiled(*MESH, broken, entry("e", "x.test", namespace="aaa", addresses=["10.96.0.9"]))
    assert "AMB0306" in {each.code for each in compiler.findings}


@pytest.mark.parametrize("address", ["198.51.100.1", "198.51.100.0/24"])
def test_of_entries_with_one_address_the_oldest_is_canonical(address: str) -> None:
    late = "2026-02-01T00:00:00Z"
    compiler = compiled(
        entry("a", "a.test", namespace="aaa", addresses=[address], created=late),
        entry("z", "z.test", namespace="zzz", addresses=[address]),
    )
    assert {key: each.canonical for key, each in compiler.services.items()} == {
        "aaa/a.test": False,
        "zzz/z.test": True,
    }


def test_no_entry_passes_for_a_service() -> None:
    host = "db.aaa.svc.cluster.local"
    compiler = compiled(SERVICE, entry("db", host, namespace="aaa", addresses=["198.51.100.1"]))
    assert {key: each.is_kubernetes for key, each in compiler.services.items()} == {
        f"aaa/{host}": False,
        "shop/victim.shop.svc.cluster.local": True,
    }


def given(name: str, value: str, namespace: str = "zzz", **spec: Any) -> Change:
    """An entry whose host was given an address."""
    body = {
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-02-01T00:00:00Z"},
        "spec": {
            "hosts": [f"{name}.test"],
            "resolution": "DNS",
            "ports": [{"number": 80, "name": "tcp"}],
            **spec,
        },
        "status": {"addresses": [{"host": f"{name}.test", "value": value}]},
    }
    return change((ENTRIES, body))


@pytest.mark.parametrize("value", ["240.240.0.9", "2001:2::9"])
@pytest.mark.parametrize("namespace", ["aaa", "zzz"])
def test_an_address_that_the_mesh_gave_to_a_host_is_left_to_it(value: str, namespace: str) -> None:
    """Also by an older entry, and by one that nobody but its own namespace sees."""
    thief = entry("thief", "thief.test", namespace=namespace, addresses=["198.51.100.1", value])
    compiler = compiled(thief, given("host", value, exportTo=["."]))
    assert [str(each.address) for each in compiler.services["zzz/host.test"].addresses] == [value]
    kept = compiler.services[f"{namespace}/thief.test"].addresses
    assert [str(each.address) for each in kept] == ["198.51.100.1"]
    text = f"{value} is the address of ServiceEntry zzz/host"
    assert ("AMB0306", Level.ERROR, "spec.addresses[1]", text) in said(compiler)
    compiler.apply([Change(ENTRIES, "zzz/host")])
    assert len(compiler.services[f"{namespace}/thief.test"].addresses) == 2, "nobody has it any more"


def test_other_addresses_of_entries_are_several_peoples() -> None:
    """What is outside of the ranges, what is a range, and what was an entry's own before it wrote it."""
    several = ["192.0.2.9", "240.240.0.0/16", "240.240.0.7"]
    compiler = compiled(
        entry("a", "a.test", namespace="aaa", addresses=several),
        given("b", "192.0.2.9"),
        given("c", "240.240.0.9"),
        given("d", "240.240.0.7", addresses=["240.240.0.7"]),
    )
    assert len(compiler.services["aaa/a.test"].addresses) == len(several)
    assert len(compiler.services["zzz/d.test"].addresses) == 1
    assert said(compiler) == []
