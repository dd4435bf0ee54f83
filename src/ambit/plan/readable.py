"""Planned resources as plain data, with Envoy's own field names: what its configuration files and dumps have."""

import importlib
import json
from typing import Any

from google.protobuf import any_pb2, json_format

from ambit.plan.values import PlannedResource

for _module in ("cluster.v3.cluster_pb2", "core.v3.extension_pb2"):
    # Only this form looks inside an Any, so nothing else has loaded these types.
    importlib.import_module(f"envoy.config.{_module}")


def as_json(resource: PlannedResource) -> dict[str, Any]:
    """The resource as protobuf JSON of an Any: its type in `@type`, fields as in Envoy's documentation."""
    packed = any_pb2.Any.FromString(resource.body)
    found: dict[str, Any] = json.loads(json_format.MessageToJson(packed, preserving_proto_field_name=True))
    return found
