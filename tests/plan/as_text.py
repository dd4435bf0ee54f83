"""Envoy's messages as text that a person can check, and Envoy's own opinion of them."""

import importlib
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import any_pb2, json_format, message

from ambit.plan.values import PlannedResource
from tests.plan.dataplane.served import ENVOY

MAPS = {
    "map",
    "filter_metadata",
    "providers",
    "typed_extension_protocol_options",
    "typed_per_filter_config",
    "value",
}
# Types that only this text form needs: at run time nothing looks inside an Any.
for _module in ("cluster.v3.cluster_pb2", "core.v3.extension_pb2"):
    importlib.import_module(f"envoy.config.{_module}")


def content_of(resource: PlannedResource) -> dict[str, Any]:
    packed = any_pb2.Any.FromString(resource.body)
    content: dict[str, Any] = json_format.MessageToDict(packed, preserving_proto_field_name=True)
    content.pop("@type", None)
    return content


def text_of(content: object) -> str:
    return yaml.safe_dump(_sorted_maps(json.loads(json.dumps(content))), sort_keys=False, width=110)


def drop(content: object, key: str) -> None:
    """Everything of this name goes."""
    if isinstance(content, dict):
        content.pop(key, None)
        for each in content.values():
            drop(each, key)
    elif isinstance(content, list):
        for each in content:
            drop(each, key)


def accepted_by_envoy(bootstrap: message.Message, directory: Path) -> None:
    """Raises AssertionError with what Envoy has against it. Namespaces are left out: they would have to exist."""
    content = json_format.MessageToDict(bootstrap, preserving_proto_field_name=True)
    drop(content, "network_namespace_filepath")
    path = directory / "bootstrap.json"
    path.write_text(json.dumps(content))
    done = subprocess.run(
        [str(ENVOY), "--mode", "validate", "-c", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert " OK" in done.stdout + done.stderr


def _sorted_maps(content: object, *, inside: bool = False) -> object:
    """Message fields stay in their order, maps are sorted: protobuf gives them in any order."""
    if isinstance(content, list):
        return [_sorted_maps(each, inside=inside) for each in content]
    if not isinstance(content, dict):
        return content
    keys = sorted(content) if inside else list(content)
    return {key: _sorted_maps(content[key], inside=inside or key in MAPS) for key in keys}
