"""Delta discovery frames to and from bytes. The only place that knows their protobuf form."""

from collections.abc import Mapping

import msgspec
from google.protobuf import message

from ambit.xds.frames import Node, Request, Resource, Response
from ambit.xds.protos import discovery_pb2 as pb

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SERVICE, METHOD_NAME = METHOD[1:].split("/")

_RESOURCES_TAG = b"\x12"
"""Field 2 of a response, length-delimited."""


def pack(type_url: str, value: bytes) -> bytes:
    """A serialised `google.protobuf.Any`: the body of a resource."""
    return pb.Any(type_url=type_url, value=value).SerializeToString()


def unpack(body: bytes) -> tuple[str, bytes]:
    """Type URL and value of a serialised `google.protobuf.Any`. Raises ValueError."""
    try:
        parsed = pb.Any.FromString(body)
    except message.DecodeError as error:
        raise ValueError(f"not a google.protobuf.Any: {error}") from None
    return parsed.type_url, parsed.value


def _length(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _encoded(resource: Resource) -> bytes:
    value = pb.Resource(
        name=resource.name, version=resource.version, resource=resource.content()
    ).SerializeToString()
    return _RESOURCES_TAG + _length(len(value)) + value


def _resource_field(resource: Resource) -> bytes:
    if not resource.encoded:
        # Encoding is a pure function of the other fields, so filling it in later is not a change.
        msgspec.structs.force_setattr(resource, "encoded", _encoded(resource))
    return resource.encoded


LONG = 1000
"""So many resources make a long response."""


def encode_response(response: Response) -> bytes:
    return _head(response) + b"".join(map(_resource_field, response.resources))


def encode_once(response: Response) -> bytes:
    """The same, where nobody else is sent these resources: nothing of it is kept with them."""
    return _head(response) + b"".join(map(_encoded, response.resources))


def _head(response: Response) -> bytes:
    return pb.DeltaDiscoveryResponse(
        type_url=response.type_url,
        nonce=response.nonce,
        removed_resources=response.removed,
        system_version_info=response.revision,
    ).SerializeToString()


class Encoder:
    """Encodes responses; of long ones that carry the very same resources, the resources once."""

    def __init__(self) -> None:
        self._resources: tuple[Resource, ...] = ()
        self._body = b""

    def encode(self, response: Response) -> bytes:
        """The same as `encode_response`."""
        if len(response.resources) < LONG:
            return encode_response(response)
        if self._resources is not response.resources:
            self._body = b"".join(map(_resource_field, response.resources))
            self._resources = response.resources
        return _head(response) + self._body

    def forget(self) -> None:
        """Let go of what was encoded last: it will not be sent again."""
        self._resources, self._body = (), b""


def decode_response(data: bytes) -> Response:
    """Raises ValueError when it is no response."""
    try:
        parsed = pb.DeltaDiscoveryResponse.FromString(data)
    except message.DecodeError as error:
        raise ValueError(f"not a DeltaDiscoveryResponse: {error}") from None
    return Response(
        type_url=parsed.type_url,
        nonce=parsed.nonce,
        resources=tuple(
            Resource(name=each.name, version=each.version, body=each.resource) for each in parsed.resources
        ),
        removed=tuple(parsed.removed_resources),
        revision=parsed.system_version_info,
    )


def encode_request(request: Request) -> bytes:
    encoded = pb.DeltaDiscoveryRequest(
        type_url=request.type_url,
        resource_names_subscribe=request.subscribe,
        resource_names_unsubscribe=request.unsubscribe,
        initial_resource_versions=request.initial_versions,
        response_nonce=request.nonce,
    )
    if request.error is not None:
        encoded.error_detail.SetInParent()
        encoded.error_detail.message = request.error
    if request.node is not None:
        encoded.node.id = request.node.id
        encoded.node.cluster = request.node.cluster
        encoded.node.metadata.update(dict(request.node.metadata))
    return encoded.SerializeToString()


def decode_request(data: bytes) -> Request:
    """Raises ValueError when it is no request."""
    try:
        parsed = pb.DeltaDiscoveryRequest.FromString(data)
    except message.DecodeError as error:
        raise ValueError(f"not a DeltaDiscoveryRequest: {error}") from None
    return Request(
        type_url=parsed.type_url,
        subscribe=tuple(parsed.resource_names_subscribe),
        unsubscribe=tuple(parsed.resource_names_unsubscribe),
        initial_versions=dict(parsed.initial_resource_versions),
        nonce=parsed.response_nonce,
        error=parsed.error_detail.message if parsed.HasField("error_detail") else None,
        node=_node(parsed.node) if parsed.HasField("node") else None,
    )


def _node(node: pb.Node) -> Node:
    # Only text entries matter to us, and Envoy's node carries long lists of extensions.
    metadata: Mapping[str, str] = {
        key: value.string_value
        for key, value in node.metadata.fields.items()
        if value.WhichOneof("kind") == "string_value"
    }
    return Node(node.id, node.cluster, metadata)
