"""Small words that every builder uses: packing, durations, wrappers, addresses, where config comes from."""

from typing import Any as _Untyped
from typing import TypeAlias

from envoy.config.core.v3 import address_pb2, config_source_pb2, extension_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value
from xds.type.v3 import typed_struct_pb2

from ambit.core.address import Address

AnyMessage: TypeAlias = _Untyped
"""A protobuf message; xds-protos ships no types."""
ANY_V4 = "0.0.0.0"  # noqa: S104 - listeners are bound inside one pod's namespace
ANY_V6 = "::"


def pack(message: AnyMessage) -> Any:
    """`message` as a deterministic `Any`."""
    return Any(
        type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}",
        value=message.SerializeToString(deterministic=True),
    )


def pack_untyped(type_name: str, value: dict[str, _Untyped]) -> Any:
    """A message of a type that xds-protos 1.85 lacks, as a TypedStruct that Envoy converts by name."""
    body = Struct()
    body.update(value)
    return pack(typed_struct_pb2.TypedStruct(type_url=f"type.googleapis.com/{type_name}", value=body))


def seconds(value: float) -> Duration:
    whole = int(value)
    return Duration(seconds=whole, nanos=round((value - whole) * 1_000_000_000))


def uint32(value: int) -> UInt32Value:
    return UInt32Value(value=value)


def boolean(value: bool) -> BoolValue:
    return BoolValue(value=value)


def socket_address(address: Address | str, port: int, netns: str = "") -> AnyMessage:
    """An IP address and port, in the network namespace at path `netns` when that is given."""
    return address_pb2.Address(socket_address=socket(address, port, netns))


def socket(address: Address | str, port: int, netns: str = "") -> AnyMessage:
    return address_pb2.SocketAddress(
        address=str(address), port_value=port, network_namespace_filepath=netns or None
    )


def udp_address(address: Address | str, port: int) -> AnyMessage:
    """The same for datagrams."""
    made = socket_address(address, port)
    made.socket_address.protocol = address_pb2.SocketAddress.UDP
    return made


def pipe(path: str) -> AnyMessage:
    return address_pb2.Address(pipe=address_pb2.Pipe(path=path))


def internal_address(listener: str, endpoint: str) -> AnyMessage:
    """An internal listener of the same Envoy; `endpoint` tells hosts of one cluster apart."""
    return address_pb2.Address(
        envoy_internal_address=address_pb2.EnvoyInternalAddress(
            server_listener_name=listener, endpoint_id=endpoint
        )
    )


def from_ads() -> AnyMessage:
    """Where every dynamic resource comes from: the one stream to the agent."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )


def extension(name: str, message: AnyMessage) -> AnyMessage:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(message))
