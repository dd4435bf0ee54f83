"""The workload API: `ambit.model` values to and from its protobuf bytes. The only place that knows this wire.

Form and refusals are ztunnel's (`istio.workload.Address`, `istio.security.Authorization`): unknown fields are
ignored, unknown enum numbers and addresses of a wrong length reject the resource. Decoding raises ValueError
that names the field.
"""

import hashlib

from ambit.model.policy import Authorization
from ambit.model.service import Service
from ambit.model.workload import Workload
from ambit.xds.authorization import decode_authorization, encode_authorization
from ambit.xds.frames import Resource
from ambit.xds.wire import pack, unpack
from ambit.xds.workload import decode_address, encode_service, encode_workload

ADDRESS_TYPE = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION_TYPE = "type.googleapis.com/istio.security.Authorization"
TYPES = (AUTHORIZATION_TYPE, ADDRESS_TYPE)
"""In the order in which changes of both must arrive: policies before the workloads that name them."""

Value = Workload | Service | Authorization

__all__ = [
    "ADDRESS_TYPE",
    "AUTHORIZATION_TYPE",
    "TYPES",
    "Value",
    "decode_address",
    "decode_authorization",
    "encode",
    "from_resource",
    "to_resource",
    "type_of",
]


def type_of(value: Value) -> str:
    """The type URL under which a value travels."""
    return AUTHORIZATION_TYPE if isinstance(value, Authorization) else ADDRESS_TYPE


def encode(value: Value) -> bytes:
    """The message bytes of a value; equal values have equal bytes."""
    match value:
        case Workload():
            return encode_workload(value)
        case Service():
            return encode_service(value)
        case Authorization():
            return encode_authorization(value)


def to_resource(value: Value) -> Resource:
    """A value as a named resource. Its version is a hash of its content."""
    data = encode(value)
    version = hashlib.blake2b(data, digest_size=8).hexdigest()
    return Resource(name=value.key, version=version, body=pack(type_of(value), data))


def from_resource(type_url: str, resource: Resource) -> Value:
    """The value in a resource of a response of this type. Raises ValueError, also when its name is not its
    key.
    """
    _, data = unpack(resource.body)
    value: Value
    if type_url == ADDRESS_TYPE:
        value = decode_address(data)
    elif type_url == AUTHORIZATION_TYPE:
        value = decode_authorization(data)
    else:
        raise ValueError(f"{type_url!r} is not a type of the workload API")
    if value.key != resource.name:
        raise ValueError(f"the resource is named {resource.name!r} but describes {value.key!r}")
    return value
