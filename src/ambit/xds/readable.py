"""Messages of the workload API as plain data, in protobuf's own JSON form: what `json_format` reads back."""

import json
from typing import Any

from google.protobuf import json_format

from ambit.model.policy import Authorization
from ambit.xds.messages import Value, encode
from ambit.xds.protos import authorization_pb2, workload_pb2


def message_name(value: Value) -> str:
    """The full name of the message that carries a value."""
    return "istio.security.Authorization" if isinstance(value, Authorization) else "istio.workload.Address"


def as_json(value: Value) -> dict[str, Any]:
    """The message as protobuf JSON: field names in camel case, bytes (addresses) in base64, no default values."""
    kind = authorization_pb2.Authorization if isinstance(value, Authorization) else workload_pb2.Address
    found: dict[str, Any] = json.loads(json_format.MessageToJson(kind.FromString(encode(value))))
    return found
