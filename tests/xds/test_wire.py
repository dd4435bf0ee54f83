import contextlib

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import struct_pb2
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.xds import wire
from ambit.xds.frames import Node, Request, Resource, Response

texts = st.text(max_size=6)
resources = st.builds(Resource, name=texts, version=texts, body=st.binary(max_size=200))
lists = st.lists(texts, max_size=3).map(tuple)
responses = st.builds(
    Response,
    type_url=texts,
    nonce=texts,
    resources=st.lists(resources, max_size=3).map(tuple),
    removed=lists,
    revision=texts,
)
requests = st.builds(
    Request,
    type_url=texts,
    subscribe=lists,
    unsubscribe=lists,
    initial_versions=st.dictionaries(texts, texts, max_size=3),
    nonce=texts,
    error=st.none() | texts,
    node=st.none() | st.builds(Node, texts, texts, st.dictionaries(texts, texts, max_size=2)),
)


@given(responses)
def test_what_is_sent_once_is_not_kept_in_its_encoded_form(response):
    once = wire.encode_once(response)
    assert not any(each.encoded for each in response.resources)
    assert once == wire.encode_response(response)


@given(responses)
def test_responses_round_trip(response):
    decoded = wire.decode_response(wire.encode_response(response))
    assert decoded == response
    assert [each.body for each in decoded.resources] == [each.body for each in response.resources]


@given(requests)
def test_requests_round_trip(request):
    assert wire.decode_request(wire.encode_request(request)) == request


@given(st.binary(max_size=100))
def test_any_bytes_give_a_frame_or_a_value_error(data):
    for decode in (wire.decode_request, wire.decode_response, wire.unpack):
        with contextlib.suppress(ValueError):
            decode(data)


@settings(deadline=None)
@given(responses)
def test_our_responses_are_envoys(response):
    theirs = discovery_pb2.DeltaDiscoveryResponse()
    bodies = [wire.pack("type.googleapis.com/x", each.body) for each in response.resources]
    packed = [
        Resource(name=each.name, version=each.version, body=body)
        for each, body in zip(response.resources, bodies, strict=True)
    ]
    sent = Response(
        type_url=response.type_url, nonce=response.nonce, resources=tuple(packed), removed=response.removed
    )
    theirs.ParseFromString(wire.encode_response(sent))
    assert [each.resource.value for each in theirs.resources] == [each.body for each in response.resources]
    assert [each.name for each in theirs.resources] == [each.name for each in response.resources]
    assert tuple(theirs.removed_resources) == response.removed
    assert (theirs.type_url, theirs.nonce) == (response.type_url, response.nonce)


@pytest.mark.parametrize("code", [0, 3])
def test_envoys_rejection_is_seen_whatever_its_code(code):
    metadata = struct_pb2.Struct()
    metadata.update({"NODE_NAME": "n1", "features": ["x"]})
    theirs = discovery_pb2.DeltaDiscoveryRequest(
        type_url="t", response_nonce="7", error_detail=status_pb2.Status(code=code, message="why")
    )
    theirs.node.id = "node"
    theirs.node.metadata.CopyFrom(metadata)
    request = wire.decode_request(theirs.SerializeToString())
    assert (request.nonce, request.error) == ("7", "why")
    assert request.node == Node("node", "", {"NODE_NAME": "n1"})
