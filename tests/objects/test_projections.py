"""Projections read what a Kubernetes API server really sends, and ignore the rest."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.objects.decoding import PROJECTIONS
from ambit.objects.istio import decode_authorization_policy, decode_peer_authentication
from ambit.objects.kube import EndpointSlice, Pod, Service

META = {"name": "x", "namespace": "n", "creationTimestamp": None, "managedFields": [{"manager": "kubectl"}]}


def decode(resource: str, **body: Any) -> Any:
    return PROJECTIONS[resource].decode(json.dumps({"metadata": META, "apiVersion": "v1", **body}).encode())


def test_a_pod() -> None:
    pod: Pod = decode(
        "pods",
        spec={
            "nodeName": "node1",
            "serviceAccountName": "web",
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
        status={
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": None}],
            "containerStatuses": [{"name": "c"}],
        },
    )
    assert pod.metadata.key == "n/x" and pod.ready and not pod.terminating and not pod.finished
    assert pod.addresses == ("10.0.0.1", "fd00::1")
    assert pod.spec.containers[0].ports[0].container_port == 80


def test_the_least_of_each_resource() -> None:
    for resource in PROJECTIONS:
        assert decode(resource).metadata.name == "x"


def test_an_old_pod_has_one_address_and_the_default_account() -> None:
    pod: Pod = decode("pods", spec={"nodeName": "node1"}, status={"podIP": "10.0.0.1"})
    assert pod.addresses == ("10.0.0.1",) and pod.service_account == "default" and not pod.ready


def test_a_pod_without_a_node_has_no_address_whatever_its_status_says() -> None:
    pod: Pod = decode("pods", status={"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]})
    assert pod.addresses == ()


def test_a_headless_service_has_no_address() -> None:
    service: Service = decode("services", spec={"clusterIP": "None", "clusterIPs": ["None"], "ports": None})
    assert service.addresses == () and service.headless
    service = decode(
        "services", spec={"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": "http"}]}
    )
    assert service.addresses == ("10.0.0.1",) and not service.headless and service.spec.ports


def test_an_empty_slice_has_null_lists() -> None:
    found: EndpointSlice = decode(
        "endpointslices.discovery.k8s.io", addressType="IPv4", endpoints=None, ports=None
    )
    assert found.endpoints is None and found.service == ""
    found = decode(
        "endpointslices.discovery.k8s.io", endpoints=[{"addresses": ["10.0.0.1"], "conditions": {}}]
    )
    assert found.endpoints and found.endpoints[0].is_ready


@pytest.mark.parametrize("decoder", [decode_authorization_policy, decode_peer_authentication])
@given(
    spec=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["selector", "rules", "mtls", "action", "from", "matchLabels", "x"]), inner
            )
        ),
    )
)
def test_any_spec_decodes_or_says_why(decoder: Any, spec: Any) -> None:
    policy = decoder(json.dumps({"metadata": META, "spec": spec}).encode())
    assert policy.metadata.name == "x"
    if not isinstance(spec, dict) and spec:
        assert policy.problem


def test_null_is_absent_except_in_lists() -> None:
    body = {"metadata": META, "spec": {"selector": None, "rules": [{"from": None}]}}
    policy = decode_authorization_policy(json.dumps(body).encode())
    assert not policy.problem and policy.spec.selector is None and len(policy.spec.rules) == 1
    body["spec"] = {"rules": [None]}
    assert decode_authorization_policy(json.dumps(body).encode()).problem


def test_what_is_no_object_raises() -> None:
    for decoder in (each.decode for each in PROJECTIONS.values()):
        with pytest.raises(msgspec.MsgspecError):
            decoder(b'{"kind": "Status"}')
