"""Vendored API definitions, converted to compressed JSON so that a start parses no YAML. Origin: NOTICE."""

import gzip
from importlib import resources
from typing import Any

import msgspec

KUBERNETES_VERSION = "v1.34.2"


def read_bundle(name: str) -> Any:
    """The decoded content of one file: `gateway-standard`, `gateway-experimental`, `istio` (lists of
    objects), `kubernetes` (schemas without descriptions) or `kubernetes-openapi` (with them)."""
    data = resources.files(__name__).joinpath(f"{name}.json.gz").read_bytes()
    return msgspec.json.decode(gzip.decompress(data))
