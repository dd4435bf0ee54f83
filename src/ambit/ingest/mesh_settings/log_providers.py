"""Providers that print or are sent what proxies tell of requests (Istio: `envoyFileAccessLog`, `envoyOtelAls` and
`envoyHttpAls` of `extensionProviders`), as values."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ambit.core.errors import BadInput
from ambit.ingest.mesh_settings.log_format import STDOUT, unknown_operator
from ambit.ingest.mesh_settings.providers import Provider, convert, service
from ambit.model.telemetry import Entries, LogFormat, LogService, MeshLogs, Printer

_FILE, _OTLP, _ENTRIES = KINDS = ("envoyFileAccessLog", "envoyOtelAls", "envoyHttpAls")
_NAME = re.compile(r"[!-~]+")


class _Format(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    text: str = ""
    labels: dict[str, Any] = {}


class _File(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    path: str = STDOUT
    log_format: _Format = _Format()


class _Otlp(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    service: str
    port: int
    log_name: str = "otel_envoy_accesslog"
    log_format: _Format = _Format()


class _Entries(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    service: str
    port: int
    log_name: str = "http_envoy_accesslog"
    filter_state_objects_to_log: tuple[str, ...] = ()
    additional_request_headers_to_log: tuple[str, ...] = ()
    additional_response_headers_to_log: tuple[str, ...] = ()
    additional_response_trailers_to_log: tuple[str, ...] = ()


def printer(given: Provider, usual: Printer) -> Printer:
    """The provider of one of these KINDS; `usual` is how lines look of one that prints and has that one's name. Raises
    BadInput, which names the field."""
    if given.kind == _FILE:
        return _printing(given, convert(given, _File), usual)
    if given.kind == _OTLP:
        otlp = convert(given, _Otlp)
        _check(given, otlp.log_format.text)
        place = service(given, otlp.service, otlp.port)
        to = LogService(place, otlp.log_name, _labels(given, otlp.log_format.labels))
        return Printer(given.name, LogFormat(otlp.log_format.text), to)
    entries = convert(given, _Entries)
    to = LogService(
        service(given, entries.service, entries.port),
        entries.log_name,
        entries=Entries(
            _names(given, "additionalRequestHeadersToLog", entries.additional_request_headers_to_log),
            _names(given, "additionalResponseHeadersToLog", entries.additional_response_headers_to_log),
            _names(given, "additionalResponseTrailersToLog", entries.additional_response_trailers_to_log),
            _names(given, "filterStateObjectsToLog", entries.filter_state_objects_to_log),
        ),
    )
    return Printer(given.name, to=to)


def with_providers(logs: MeshLogs, printers: Sequence[Printer], names: Sequence[str], file: str) -> MeshLogs:
    """What the mesh's settings say beside these providers, and what holds without any Telemetry: `names`, where there
    are any. Raises BadInput, which names the field."""
    known = {each.name: each for each in (*logs.printers, *printers)}
    for name in names:
        if name not in known:
            raise BadInput(
                f"{file}: defaultProviders.accessLogging: {name}: it is no provider of access logs",
                f"Name one of extensionProviders, of the kinds {', '.join(KINDS)}.",
            )
    return MeshLogs(tuple(known.values()), tuple(names) or logs.default)


def _printing(given: Provider, fields: _File, usual: Printer) -> Printer:
    if fields.path != STDOUT:
        raise BadInput(
            f"{given.where}.path: {fields.path!r} is no place that proxies can write to",
            f"write {STDOUT}; proxies have no files of their own",
        )
    wanted = fields.log_format
    if wanted.text and wanted.labels:
        raise BadInput(f"{given.where}.logFormat has text and labels", "Keep one.")
    _check(given, wanted.text)
    if wanted.labels:
        return Printer(given.name, LogFormat(members=_labels(given, wanted.labels), is_json=True))
    is_usual = given.name == usual.name and not wanted.text
    return Printer(given.name, usual.format if is_usual else LogFormat(wanted.text))


def _labels(given: Provider, labels: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    for name, value in labels.items():
        if not isinstance(value, str):
            raise BadInput(
                f"{given.where}.logFormat.labels.{name}: {value!r} is no text", "Write a format in quotes."
            )
        _check(given, value, f".labels.{name}")
    return tuple(labels.items())


def _names(given: Provider, field: str, names: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if not _NAME.fullmatch(name):
            raise BadInput(f"{given.where}.{field}[{index}]: {name!r} is no name", "Write one as x-team.")
    return tuple(each.lower() for each in names) if field.startswith("additional") else names


def _check(given: Provider, text: str, label: str = ".text") -> None:
    if operator := unknown_operator(text):
        raise BadInput(
            f"{given.where}.logFormat{label}: {operator!r} is no operator of Envoy's that is known",
            "write %% for the sign itself",
        )
