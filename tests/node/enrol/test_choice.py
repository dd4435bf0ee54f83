"""Which pods are captured without NAT, and which are better not."""

import json

import pytest

from ambit.node.enrol import choice
from ambit.node.enrol.pods import pod_decoder
from ambit.node.enrol.sandbox import Sandbox

SANDBOX = Sandbox("shop", "web", "u", "s", "/run/netns/not-there", ("10.0.0.1",))


def objection(annotations: dict[str, str] | None = None, **container: object) -> str:
    pod = {
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "annotations": annotations or {}},
        "spec": {"containers": [{}], "initContainers": [container]},
    }
    return choice.objection(pod_decoder.decode(json.dumps(pod)))


def test_an_ordinary_pod() -> None:
    assert objection() == ""
    harmless = {
        "privileged": False,
        "runAsUser": 0,
        "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
    }
    assert objection(securityContext=harmless) == ""
    assert objection({"ambit.io/capture": "auto", "ambient.istio.io/dns-capture": "false"}) == ""


@pytest.mark.parametrize(
    "annotations",
    [
        {"ambit.io/capture": "nat"},
        {"ambient.istio.io/bypass-inbound-capture": "true"},
        {"k8s.v1.cni.cncf.io/networks": "storage"},
        {"istio.io/reroute-virtual-interfaces": "docker0"},
    ],
)
def test_what_annotations_speak_against_it(annotations: dict[str, str]) -> None:
    assert objection(annotations)


@pytest.mark.parametrize(
    "context",
    [
        {"privileged": True},
        {"capabilities": {"add": ["CHOWN", "NET_ADMIN"]}},
        {"capabilities": {"add": ["CAP_NET_ADMIN"]}},
        {"capabilities": {"add": ["ALL"]}},
    ],
)
def test_a_pod_that_may_change_its_own_network(context: dict[str, object]) -> None:
    assert objection(securityContext=context) == "it may change its own network"


def test_a_namespace_that_does_not_tell() -> None:
    pod = pod_decoder.decode('{"metadata": {"name": "web", "namespace": "shop", "uid": "u"}}')
    assert not choice.chosen(SANDBOX, pod).transparent
