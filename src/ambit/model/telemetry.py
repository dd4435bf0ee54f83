"""What proxies tell of requests, and which proxies: Istio's Telemetry and MeshConfig, as values."""

from enum import IntEnum

import msgspec

from ambit.model.jwt import Target
from ambit.model.metrics import MetricsRule
from ambit.model.provider import ProviderService
from ambit.model.proxy import Proxy
from ambit.model.tracing import TracingRule


class Level(IntEnum):
    """How near what an object says is to a request; the nearest counts."""

    DEFAULT = 0
    MESH = 1
    NAMESPACE = 2
    TARGET = 3


class LogFormat(msgspec.Struct, frozen=True):
    """How lines look: `text` (Envoy's format; empty for the usual one), or with `is_json` objects of these `members`
    (none: the usual ones)."""

    text: str = ""
    members: tuple[tuple[str, str], ...] = ()
    is_json: bool = False


class Entries(msgspec.Struct, frozen=True):
    """Envoy's own messages about requests: what they have of headers and filter state, by names."""

    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    response_trailers: tuple[str, ...] = ()
    filter_state: tuple[str, ...] = ()


class LogService(msgspec.Struct, frozen=True):
    """A service that is told of requests over gRPC: by OTLP, with `attributes` (formats, as lines are) beside the line,
    or in Envoy's own `entries`, which have no line."""

    service: ProviderService
    log_name: str
    attributes: tuple[tuple[str, str], ...] = ()
    entries: Entries | None = None


class Printer(msgspec.Struct, frozen=True):
    """A provider that prints lines on the proxy's standard output, or sends them `to` a service."""

    name: str = "envoy"
    format: LogFormat = LogFormat()
    to: LogService | None = None


class LogRule(msgspec.Struct, frozen=True):
    """One entry: these print the requests that `filter` (CEL; empty: every one) is true of, or nothing more when
    `disabled`. Without any it is about those that are in force. It is for waypoints (servers of who calls), for
    gateways (clients of what they lead to), or for both."""

    printers: tuple[Printer, ...] = ()
    filter: str = ""
    disabled: bool = False
    at_waypoints: bool = True
    at_gateways: bool = True


class TelemetryPolicy(msgspec.Struct, frozen=True):
    """The entries of one object; `namespace` is whose proxies it is for (level NAMESPACE). Of several on one level the
    oldest that has entries of a kind counts for it (`created`, then `key`)."""

    key: str
    level: Level
    logs: tuple[LogRule, ...] = ()
    namespace: str = ""
    targets: tuple[Target, ...] = ()
    created: str = ""
    tracing: tuple[TracingRule, ...] = ()
    metrics: tuple[MetricsRule, ...] = ()


class RequestLog(msgspec.Struct, frozen=True):
    """What one provider prints."""

    printer: Printer
    filter: str = ""


class InlineTelemetry(msgspec.Struct, frozen=True):
    """All that is said of requests to a service without a proxy between, at its Gateway (`proxy`). It travels with the
    service, and nodes that read the requests tell of them."""

    proxy: Proxy
    policies: tuple[TelemetryPolicy, ...]


class MeshLogs(msgspec.Struct, frozen=True):
    """What the mesh's settings say: providers besides, and which print when no object says anything."""

    printers: tuple[Printer, ...] = (Printer(),)
    default: tuple[str, ...] = ()

    def printer(self, name: str) -> Printer | None:
        return next((each for each in self.printers if each.name == name), None)
