"""Reads bodies and decides answer formats: JSON, Table, PartialObjectMetadata, aggregated discovery."""

import contextlib
import re
from typing import Any

import msgspec
import orjson
import yaml

from ambit.local.apiserver.failures import ApiFailure, bad_request, unsupported_media_type
from ambit.objects import wire

JSON = "application/json"
MAX_BODY = 3 * 1024 * 1024


class Wanted(msgspec.Struct, frozen=True):
    """The first acceptable alternative. `form` is "", "Table", "PartialObjectMetadata(List)" or a
    discovery list."""

    form: str = ""
    version: str = ""


def wanted(accept: str) -> Wanted:
    """Raises ApiFailure 406 when no JSON form is acceptable."""
    if not accept:
        return Wanted()
    for option in accept.split(","):
        media, *parameters = (part.strip() for part in option.split(";"))
        if media not in {JSON, "application/*", "*/*", "application/yaml", "text/html", "text/plain"}:
            continue
        values = dict(part.split("=", 1) for part in parameters if "=" in part)
        if values.get("as") and values.get("v") not in {"v1", "v2"}:
            continue
        return Wanted(values.get("as", ""), values.get("v", ""))
    supported = f"{JSON}, {JSON};as=Table;v=v1;g=meta.k8s.io"
    message = f"only the following media types are accepted: {supported}"
    raise ApiFailure(406, "NotAcceptable", message)


def decode(content_type: str, data: bytes) -> Any:
    """A JSON or YAML body. Raises ApiFailure 400 or 415."""
    media = content_type.partition(";")[0].strip().lower()
    if media in {"application/yaml", "application/apply-patch+yaml", "text/yaml"}:
        return decode_yaml(data)
    if media in {"", JSON, "application/octet-stream", "text/plain"} or media.endswith("+json"):
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"the body of the request is not valid JSON: {error}") from error
    if media == wire.MEDIA_TYPE:
        try:
            return wire.decode_object(data)
        except wire.WireError as error:
            raise bad_request(str(error)) from error
    raise unsupported_media_type(media, (JSON, "application/yaml", wire.MEDIA_TYPE))


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: dates stay texts, and only true and false are booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [
        pair for pair in pairs if pair[0] not in {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool"}
    ]
    for first, pairs in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def decode_yaml(data: bytes) -> Any:
    """One YAML (or JSON) document. Raises ApiFailure 400."""
    if data[:1] == b"{":
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(data)
    try:
        return yaml.load(data, _Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from error
