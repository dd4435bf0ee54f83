"""Reads bodies and decides answer formats: JSON, Table, PartialObjectMetadata, aggregated discovery."""

import contextlib
from typing import Any

import msgspec
import orjson

from ambit.local.apiserver.failures import ApiFailure, bad_request, unsupported_media_type
from ambit.local.apiserver.shapes import FieldValidation
from ambit.objects import documents, wire

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


class Body(msgspec.Struct, frozen=True):
    """What a client sent: the value, and a sentence for each key that it hides by giving it twice."""

    value: Any
    duplicates: tuple[str, ...] = ()

    def judge(self, mode: FieldValidation) -> list[str]:
        """Warnings. Raises ApiFailure 400 where the client asked to be strict."""
        if self.duplicates and mode == "Strict":
            raise bad_request("strict decoding error: " + ", ".join(self.duplicates))
        return list(self.duplicates) if mode == "Warn" else []


def decode(content_type: str, data: bytes) -> Any:
    """The value of `read_body`, where nobody asks what it hides."""
    return _read(content_type, data, duplicates=False).value


def read_body(content_type: str, data: bytes) -> Body:
    """A JSON, YAML or protobuf body. Raises ApiFailure 400 or 415."""
    return _read(content_type, data, duplicates=True)


def _read(content_type: str, data: bytes, *, duplicates: bool) -> Body:
    media = content_type.partition(";")[0].strip().lower()
    if media in {"application/yaml", "application/apply-patch+yaml", "text/yaml"}:
        return read_yaml(data)
    if media in {"", JSON, "application/octet-stream", "text/plain"} or media.endswith("+json"):
        try:
            value = _bounded(orjson.loads(data))
        except orjson.JSONDecodeError as error:
            raise bad_request(f"the body of the request is not valid JSON: {error}") from error
        return Body(value, _hidden(data) if duplicates else ())
    if media == wire.MEDIA_TYPE:
        try:
            return Body(_bounded(wire.decode_object(data)))
        except wire.WireError as error:
            raise bad_request(str(error)) from error
    raise unsupported_media_type(media, (JSON, "application/yaml", wire.MEDIA_TYPE))


def read_yaml(data: bytes) -> Body:
    """One YAML (or JSON) document. Raises ApiFailure 400."""
    with contextlib.suppress(orjson.JSONDecodeError):
        return Body(_bounded(orjson.loads(data)), _hidden(data))
    try:
        found = next(documents.read_yaml(data), documents.Document(None))
    except documents.Malformed as error:
        raise bad_request(f"error decoding YAML: {error}") from error
    said = (f'line {each.line}: key "{each.key}" already set in map' for each in found.duplicates)
    return Body(found.value, tuple(said))


def _bounded(value: Any) -> Any:
    if documents.too_deep(value):
        raise bad_request(f"the body of the request is nested deeper than {documents.DEPTH} levels")
    return value


def _hidden(data: bytes) -> tuple[str, ...]:
    return tuple(f'duplicate field "{each.path}"' for each in documents.json_duplicates(data))
