"""Servers that others ask about requests, over HTTP and over gRPC: they say what they were asked, and answer as a test
wants."""

import http.server
import threading
import time
from concurrent import futures
from typing import Any

import grpc
import msgspec
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from envoy.type.v3 import http_status_pb2
from google.rpc import code_pb2, status_pb2

from ambit.node.netns.enter import in_namespace
from tests.plan.dataplane.network import Host, listener


class Asked(msgspec.Struct):
    """One question, with names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    raw_body: bytes = b""
    metadata: dict[str, str] = {}


class Ruled(msgspec.Struct):
    """How questions are answered: a status other than 200 is a no. `delay` in seconds."""

    status: int = 200
    headers: dict[str, str] = {}
    delay: float = 0.0


class HttpAuthorizer(http.server.ThreadingHTTPServer):
    """Serves on one port of a host until it is closed."""

    daemon_threads = True

    def __init__(self, host: Host, port: int) -> None:
        self.asked: list[Asked] = []
        self.ruled = Ruled()
        super().__init__(("::", port), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = in_namespace(host.netns, lambda: listener(port))
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpAuthorizer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.asked.append(Asked(self.command, self.path, headers, body))
        ruled = self.server.ruled
        time.sleep(ruled.delay)
        text = b"asked" if ruled.status == 200 else b"no"
        self.send_response(ruled.status)
        for key, value in {**ruled.headers, "content-length": str(len(text))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class GrpcAuthorizer(external_auth_pb2_grpc.AuthorizationServicer):  # type: ignore[misc]
    """The same over gRPC (Envoy: `service.auth.v3.Authorization`)."""

    def __init__(self, host: Host, port: int) -> None:
        self.asked: list[Asked] = []
        self.ruled = Ruled()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(self, self._server)
        assert in_namespace(host.netns, lambda: self._server.add_insecure_port(f"[::]:{port}")) == port
        self._server.start()

    def close(self) -> None:
        self._server.stop(0).wait()

    def Check(self, request: Any, context: Any) -> Any:
        seen = request.attributes.request.http
        self.asked.append(
            Asked(
                seen.method,
                seen.path,
                dict(seen.headers),
                seen.body.encode(),
                seen.raw_body,
                dict(context.invocation_metadata()),
            )
        )
        time.sleep(self.ruled.delay)
        options = [
            base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=key, value=value))
            for key, value in self.ruled.headers.items()
        ]
        if self.ruled.status == 200:
            return external_auth_pb2.CheckResponse(
                status=status_pb2.Status(code=code_pb2.OK),
                ok_response=external_auth_pb2.OkHttpResponse(headers=options),
            )
        return external_auth_pb2.CheckResponse(
            status=status_pb2.Status(code=code_pb2.PERMISSION_DENIED),
            denied_response=external_auth_pb2.DeniedHttpResponse(
                status=http_status_pb2.HttpStatus(code=self.ruled.status), headers=options, body="no"
            ),
        )
