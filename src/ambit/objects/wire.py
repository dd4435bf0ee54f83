"""Decodes Kubernetes' protobuf request bodies into JSON objects (kubectl's typed commands send them).

Spec: apimachinery `runtime.Unknown` envelope with the prefix `k8s\\0`; fields as in the vendored wire
table. Zero values of fields that are no pointers mean "not set".
"""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec

from ambit.objects.builtin import definition_name
from ambit.objects.crds import read_bundle

MAGIC = b"k8s\x00"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"


class WireError(ValueError):
    """The bytes are no object this module knows; one sentence."""


@cache
def _table() -> dict[str, dict[int, tuple[str, str, bool]]]:
    found: dict[str, list[tuple[int, str, str, bool]]] = read_bundle("kubernetes-wire")
    return {name: {row[0]: (row[1], row[2], row[3]) for row in fields} for name, fields in found.items()}


def decode_object(data: bytes) -> Any:
    """The object in an envelope. Raises WireError."""
    if not data.startswith(MAGIC):
        raise WireError("the body does not start with the Kubernetes protobuf prefix")
    try:
        envelope = dict(_fields(data[len(MAGIC) :]))
        meta = {number: _text(value) for number, value in _fields(_bytes(envelope.get(1, b"")))}
        api_version, kind = meta.get(1, ""), meta.get(2, "")
        group, _, version = api_version.rpartition("/")
        name = _DELETE_OPTIONS if kind == "DeleteOptions" else definition_name(group, version, kind)
        if name is None or name not in _table():
            raise WireError(f"no protobuf encoding of {api_version} {kind} is known; send JSON")
        body = _message(name, _bytes(envelope.get(2, b"")))
    except (IndexError, UnicodeDecodeError, OverflowError, msgspec.DecodeError) as error:
        raise WireError("the protobuf body is cut off or malformed") from error
    except RecursionError as error:
        raise WireError("the JSON inside the protobuf body is nested too deep") from error
    return {"apiVersion": api_version, "kind": kind, **body}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise WireError("a number in the protobuf body is too long")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, integer or bytes), in order."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
        else:
            raise WireError(f"the protobuf body has a field of unknown type {kind}")
        if at + size > len(data):
            raise WireError("the protobuf body is cut off")
        yield number, data[at : at + size]
        at += size


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise WireError("the protobuf body has a number where bytes belong")


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()


def _integer(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise WireError("the protobuf body has bytes where a number belongs")
    return value - (1 << 64) if value >= 1 << 63 else value


def _message(name: str, data: bytes) -> dict[str, Any]:
    table = _table()[name]
    body: dict[str, Any] = {}
    for number, raw in _fields(data):
        if number not in table:
            continue
        field, kind, pointer = table[number]
        if kind.startswith("["):
            body.setdefault(field, []).append(_value(kind[1:], raw))
        elif kind.startswith("{"):
            pair = dict(_fields(_bytes(raw)))
            default: int | bytes = 0 if kind[1:] in {"i", "b"} else b""
            body.setdefault(field, {})[_text(pair.get(1, b""))] = _value(kind[1:], pair.get(2, default))
        else:
            value = _value(kind, raw)
            if not field:
                body.update(value or {})
            elif pointer or value not in ("", 0, False, None, {}):
                body[field] = value
    return body


def _value(kind: str, raw: int | bytes) -> Any:
    match kind:
        case "s":
            return _text(raw)
        case "b":
            return bool(_integer(raw))
        case "i":
            return _integer(raw)
        case "y":
            return base64.b64encode(_bytes(raw)).decode()
        case "T" | "M":
            return _time(_bytes(raw), micro=kind == "M")
        case "Q":
            return _text(dict(_fields(_bytes(raw))).get(1, b"0"))
        case "I":
            return _int_or_string(_bytes(raw))
        case "R" | "F":
            inner = _bytes(dict(_fields(_bytes(raw))).get(1, b""))
            return msgspec.json.decode(inner) if inner else None
        case "W":
            return [_text(item) for _, item in _fields(_bytes(raw))]
        case _:
            return _message(kind, _bytes(raw))


def _time(data: bytes, *, micro: bool) -> str | None:
    fields = dict(_fields(data))
    if not fields:
        return None
    seconds, nanos = _integer(fields.get(1, 0)), _integer(fields.get(2, 0))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _int_or_string(data: bytes) -> int | str:
    fields = dict(_fields(data))
    if _integer(fields.get(1, 0)) == 1:
        return _text(fields.get(3, b""))
    return _integer(fields.get(2, 0))
