from typing import Any

import pytest

from ambit.local.pods.names import hostname_of, hosts_file, resolver_file

HOST = "nameserver 192.0.2.1\nsearch corp.example\n"


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web-0", "namespace": "shop"}, "spec": {"nodeName": "node1", **spec}}


@pytest.mark.parametrize(
    ("spec", "name"),
    [({}, "web-0"), ({"hostname": "db"}, "db"), ({"hostNetwork": True}, "node1")],
)
def test_hostname(spec: dict[str, Any], name: str) -> None:
    assert hostname_of(pod(**spec)) == name


def test_long_names_are_cut() -> None:
    value = {"metadata": {"name": "a" * 62 + "-bc", "namespace": "x"}, "spec": {}}
    assert hostname_of(value) == "a" * 62


def test_hosts() -> None:
    aliases = [{"ip": "10.0.0.1", "hostnames": ["a", "b"]}]
    text = hosts_file(pod(subdomain="db", hostAliases=aliases), ["10.244.1.2", "fd00::2"])
    assert "10.244.1.2\tweb-0.db.shop.svc.cluster.local\tweb-0\n" in text
    assert "fd00::2\tweb-0.db.shop.svc.cluster.local\tweb-0\n" in text
    assert text.endswith("10.0.0.1\ta\tb\n")


def test_cluster_dns_is_the_rule() -> None:
    assert sorted(resolver_file(pod(), HOST).splitlines()) == [
        "nameserver 10.96.0.10",
        "options ndots:5 timeout:1 attempts:5",
        "search shop.svc.cluster.local svc.cluster.local cluster.local",
    ]


def test_policies() -> None:
    assert "192.0.2.1" in resolver_file(pod(dnsPolicy="Default"), HOST)
    config = {"nameservers": ["192.0.2.9"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}]}
    assert resolver_file(pod(dnsPolicy="None", dnsConfig=config), HOST) == (
        "nameserver 192.0.2.9\nsearch x\noptions ndots:2\n"
    )
    joined = resolver_file(pod(dnsConfig=config), HOST)
    assert "options timeout:1 attempts:5 ndots:2\n" in joined
    assert "cluster.local x\n" in joined
