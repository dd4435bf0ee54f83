"""A collector of OTLP: over gRPC on one port of a host, over HTTP on another."""

import http.server
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import msgspec
from envoy.service.accesslog.v3 import als_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from ambit.node.netns.enter import in_namespace
from tests.plan.dataplane.network import Host, listener
from tests.plan.dataplane.served import until

GRPC_PORT, HTTP_PORT = 4317, 4318
_SPANS = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_ENTRIES = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"


class Span(msgspec.Struct, frozen=True):
    """Identifiers in hexadecimal digits; `parent` empty for the first one of a trace. `resource` is who sent it."""

    trace: str
    id: str
    parent: str
    name: str
    tags: Mapping[str, str]
    resource: Mapping[str, str]


class Record(msgspec.Struct, frozen=True):
    """A record of a request: the line, and what is beside it."""

    body: str
    attributes: Mapping[str, str]
    resource: Mapping[str, str]


class Collector:
    """Keeps the spans and records it is told of, Envoy's own entries, and what came with each message."""

    def __init__(self, host: Host) -> None:
        self.spans: list[Span] = []
        self.records: list[Record] = []
        self.entries: list[Any] = []
        """`HTTPAccessLogEntry` messages."""
        self.headers: list[dict[str, str]] = []
        self._grpc = grpc.server(ThreadPoolExecutor(2))
        self._grpc.add_generic_rpc_handlers((_Calls(self),))
        in_namespace(host.netns, lambda: self._grpc.add_insecure_port(f"[::]:{GRPC_PORT}"))
        self._grpc.start()
        self._http = _Http(self, host)

    def take(self, message: bytes, headers: Iterable[tuple[str, str]]) -> None:
        self.headers.append(dict(headers))
        self.spans += spans_in(message)

    def of(self, path: str) -> list[Span]:
        """Those of requests for a path."""
        return [each for each in list(self.spans) if path in each.tags.get("http.url", "")]

    def wait(self, path: str, count: int = 1) -> list[Span]:
        """As `of`, when there are so many."""
        until(lambda: len(self.of(path)) >= count, f"{count} spans of {path}")
        return self.of(path)

    def close(self) -> None:
        self._grpc.stop(0).wait()
        self._http.shutdown()
        self._http.server_close()


def records_in(message: bytes) -> Iterator[Record]:
    """The records of a message to a collector."""
    for each in logs_service_pb2.ExportLogsServiceRequest.FromString(message).resource_logs:
        resource = _tags(each.resource.attributes)
        # What is called scope_logs now had another name when xds-protos' messages were made.
        for scope in each.instrumentation_library_logs:
            for record in scope.logs:
                yield Record(record.body.string_value, _tags(record.attributes), resource)


def spans_in(message: bytes) -> Iterator[Span]:
    """The spans of a message to a collector."""
    for each in trace_service_pb2.ExportTraceServiceRequest.FromString(message).resource_spans:
        resource = _tags(each.resource.attributes)
        # What is called scope_spans now had another name when xds-protos' messages were made.
        for scope in each.instrumentation_library_spans:
            for span in scope.spans:
                yield Span(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    _tags(span.attributes),
                    resource,
                )


def _tags(given: Iterable[Any]) -> dict[str, str]:
    return {each.key: each.value.string_value for each in given}


class _Calls(grpc.GenericRpcHandler):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method == _ENTRIES:
            return grpc.stream_unary_rpc_method_handler(self._streamed)
        if details.method == _SPANS:
            return grpc.unary_unary_rpc_method_handler(self._spans)
        return grpc.unary_unary_rpc_method_handler(self._records) if details.method == _LOGS else None

    def _spans(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self._collector.take(message, context.invocation_metadata())
        return b""

    def _records(self, message: bytes, _: grpc.ServicerContext) -> bytes:
        self._collector.records += records_in(message)
        return b""

    def _streamed(self, messages: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        for each in messages:
            self._collector.entries += als_pb2.StreamAccessLogsMessage.FromString(each).http_logs.log_entry
        return b""


class _Http(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, collector: Collector, host: Host) -> None:
        self.collector = collector
        super().__init__(("::", HTTP_PORT), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = in_namespace(host.netns, lambda: listener(HTTP_PORT))
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def do_POST(self) -> None:
        message = b""
        while size := int(self.rfile.readline(), 16):
            message += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.server.collector.take(message, [(":path", self.path), *self.headers.items()])
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""
