import contextlib

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.model.backend_tls import BackendTls
from ambit.model.service import Service
from ambit.model.workload import Workload
from ambit.xds import messages
from ambit.xds.frames import Resource
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE
from ambit.xds.protos import authorization_pb2, workload_pb2
from ambit.xds.wire import pack
from tests.xds.strategies import values


@settings(max_examples=200, deadline=None)
@given(values)
def test_what_is_encoded_is_decoded(value):
    resource = messages.to_resource(value)
    assert resource.name == value.key
    assert messages.from_resource(messages.type_of(value), resource) == value


@settings(max_examples=100, deadline=None)
@given(values, values)
def test_versions_differ_exactly_when_values_do(one, other):
    a, b = messages.to_resource(one), messages.to_resource(other)
    assert (a.version == b.version) == (one == other)
    assert messages.to_resource(one).version == a.version


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(messages.TYPES))
def test_bytes_of_others_give_a_value_or_a_value_error(data, type_url):
    with contextlib.suppress(ValueError):
        messages.from_resource(type_url, Resource(name="x", version="1", body=data))


def test_defaults_on_receipt():
    data = workload_pb2.Address(workload=workload_pb2.Workload(uid="u", namespace="shop")).SerializeToString()
    workload = messages.decode_address(data)
    assert isinstance(workload, Workload)
    assert workload.identity == Identity("cluster.local", "shop", "default")
    assert (workload.cluster_id, workload.capacity) == ("Kubernetes", 1)


@pytest.mark.parametrize(
    ("field", "workload"),
    [
        ("tunnel_protocol", {"tunnel_protocol": 2}),
        ("tunnel_protocol", {"tunnel_protocol": 9}),
        ("workload_type", {"workload_type": 9}),
        ("status", {"status": 9}),
        ("network_mode", {"network_mode": 9}),
        ("addresses", {"addresses": [b"123"]}),
        ("services", {"services": {"nohost": workload_pb2.PortList()}}),
        ("services.target_port", {"services": {"a/b": {"ports": [{"target_port": 70000}]}}}),
        ("application_tunnel.protocol", {"application_tunnel": {"protocol": 9}}),
        ("application_tunnel.port", {"application_tunnel": {"port": 70000}}),
        ("waypoint", {"waypoint": {"hbone_mtls_port": 15008}}),
        ("waypoint.address", {"waypoint": {"address": {"address": b"1"}}}),
    ],
)
def test_a_wrong_workload_is_refused_by_field(field, workload):
    body = pack(ADDRESS_TYPE, workload_pb2.Address(workload=workload).SerializeToString())
    with pytest.raises(ValueError, match=rf"^{field}:"):
        messages.from_resource(ADDRESS_TYPE, Resource(name="", version="1", body=body))


@pytest.mark.parametrize(
    ("field", "service"),
    [
        ("ip_families", {"ip_families": 7}),
        ("load_balancing.routing_preference", {"load_balancing": {"routing_preference": [0]}}),
        ("load_balancing.mode", {"load_balancing": {"mode": 8}}),
        ("load_balancing.health_policy", {"load_balancing": {"health_policy": 8}}),
        ("weighted_waypoints", {"weighted_waypoints": [{"weight": 1}]}),
        ("ports.app_protocol", {"ports": [{"service_port": 80, "app_protocol": 77}]}),
        ("addresses", {"addresses": [{"address": b"1234", "length": 33}]}),
    ],
)
def test_a_wrong_service_is_refused_by_field(field, service):
    with pytest.raises(ValueError, match=rf"^{field}:"):
        messages.decode_address(workload_pb2.Address(service=service).SerializeToString())


@pytest.mark.parametrize(
    ("field", "policy"),
    [
        ("scope", {"scope": 5}),
        ("action", {"action": 5}),
        ("principals", {"rules": [{"clauses": [{"matches": [{"principals": [{}]}]}]}]}),
        ("source_ips", {"rules": [{"clauses": [{"matches": [{"source_ips": [{"address": b"12"}]}]}]}]}),
    ],
)
def test_a_wrong_policy_is_refused_by_field(field, policy):
    with pytest.raises(ValueError, match=rf"^{field}:"):
        messages.decode_authorization(authorization_pb2.Authorization(**policy).SerializeToString())


def test_a_resource_must_be_named_after_its_content():
    body = pack(
        AUTHORIZATION_TYPE, authorization_pb2.Authorization(name="a", namespace="b").SerializeToString()
    )
    with pytest.raises(ValueError, match="named"):
        messages.from_resource(AUTHORIZATION_TYPE, Resource(name="b/other", version="1", body=body))


def test_a_value_of_session_affinity_that_came_later_is_none():
    address = workload_pb2.Address(
        service=workload_pb2.Service(name="web", namespace="default", hostname="web.test")
    )
    affinity = address.service.extensions.add(name="ambit.session-affinity")
    for value, expected in (("ClientIP", True), ("Cookie", False)):
        affinity.config.Pack(StringValue(value=value))
        assert messages.decode_address(address.SerializeToString()).session_affinity is expected


def test_roots_of_many_ports_are_sent_once():
    """Every node is sent them: few bytes in the API must not become many."""
    tls = BackendTls("a.example.com", "x" * 10_000, ("a.example.com",))
    other = BackendTls("b.example.com", "", uris=("spiffe://b",))
    spoken = {**dict.fromkeys(range(1, 101), tls), 200: other}
    value = Service("a", "shop", "a.shop.svc", backend_tls=spoken)
    resource = messages.to_resource(value)
    assert len(resource.body) < 15_000
    assert messages.from_resource(ADDRESS_TYPE, resource) == value
