"""What a pod's resolver appends and whom it asks, as the kubelet would write it."""

from ipaddress import ip_address

import pytest

from ambit.node.dns.names import Resolver, parse_resolv_conf, pod_resolver

NODE = parse_resolv_conf(
    "domain ignored.example\nsearch system.svc.cluster.local svc.cluster.local cluster.local corp.example\n"
    "nameserver 10.96.0.10\n# nameserver 1.1.1.1\nnameserver fd00::53\nnameserver x\noptions ndots:5\n"
)
CLUSTER = ("10.96.0.10", "fd00::53")
USUAL = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example")


@pytest.mark.parametrize(
    ("policy", "own", "searches", "nameservers", "expected_searches"),
    [
        ("ClusterFirst", (), (), CLUSTER, USUAL),
        ("ClusterFirstWithHostNet", (), (), CLUSTER, USUAL),
        ("ClusterFirst", ("1.1.1.1",), ("Mine.Example.",), (*CLUSTER, "1.1.1.1"), (*USUAL, "mine.example")),
        ("ClusterFirst", CLUSTER, ("cluster.local",), CLUSTER, USUAL),
        ("Default", (), (), CLUSTER, ("corp.example",)),
        ("None", ("1.1.1.1",), ("mine.example",), ("1.1.1.1",), ("mine.example",)),
        ("None", ("1.1.1.1",), (".",), ("1.1.1.1",), ()),
    ],
)
def test_policy_and_configuration_together(
    policy: str,
    own: tuple[str, ...],
    searches: tuple[str, ...],
    nameservers: tuple[str, ...],
    expected_searches: tuple[str, ...],
) -> None:
    found = pod_resolver(
        policy, Resolver(tuple(map(ip_address, own)), searches), NODE, "shop", "cluster.local"
    )
    assert tuple(map(str, found.nameservers)) == nameservers
    assert found.searches == expected_searches


def test_a_file_without_anything() -> None:
    assert parse_resolv_conf("") == Resolver()
