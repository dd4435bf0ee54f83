"""Nodes are described in Kubernetes' words."""

import platform

import pytest

from ambit.cli.preflight import ARCHITECTURES
from ambit.local.layout import NodeAddresses
from ambit.local.pods.nodes import node_object, node_status


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="Envoy runs on these")
def test_the_architecture_is_one_that_an_installation_takes() -> None:
    node = NodeAddresses(1)
    architecture = node_status(node)["nodeInfo"]["architecture"]
    assert architecture in ARCHITECTURES
    assert node_object(node, {})["metadata"]["labels"]["kubernetes.io/arch"] == architecture


def test_a_node_says_how_many_pods_have_an_address() -> None:
    node = NodeAddresses(1)
    hosts = len(list(node.pods_v4.hosts()))
    assert node_status(node)["capacity"]["pods"] == str(hosts - 1), "the first is the gateway's"
