"""A control plane that is not ours, as an agent sees an istiod: TLS, one stream of delta discovery, one CA.

It is made from Envoy's own messages and the protocol's description, and shares no code with ours. What it does
otherwise than ours, as an istiod may: versions say nothing about content, every stream begins with everything,
resources carry aliases and fields that nobody here knows, removals name what was never sent, each root is an element
of its own in the CA's answer, and streams end cleanly after a while.
"""

import asyncio
import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.service.discovery.v3 import discovery_pb2 as discovery

from ambit.ca.authority import Authority
from ambit.ca.request import parse_request
from ambit.xds.protos import authorization_pb2, ca_pb2, workload_pb2
from tests.ca.authorities import intermediate_of

ADDRESS = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION = "type.googleapis.com/istio.security.Authorization"
NAME = "istiod.istio-system.svc"
UNKNOWN_FIELD = b"\xf2\x7f\x03new"
"""Field 2046 of whatever message, a text."""
Body = workload_pb2.Address | authorization_pb2.Authorization


class Istiod:
    """`resources` by type and name are what a stream begins with; `push` sends more on streams that are open."""

    def __init__(self, directory: Path) -> None:
        now = dt.datetime.now(dt.UTC)
        self.root = Authority.create("cluster.local", now)
        self.other_root = Authority.create("cluster.local", now)
        self.authority = intermediate_of(self.root, now).load()
        self.root_file = directory / "root-cert.pem"
        self.root_file.write_text(self.root.certificate)
        self.resources: dict[str, dict[str, Body]] = {ADDRESS: {}, AUTHORIZATION: {}}
        self.streams = 0
        self.requests: list[discovery.DeltaDiscoveryRequest] = []
        self.signing: list[ca_pb2.IstioCertificateRequest] = []
        self.metadata: Mapping[str, str] = {}
        self.port = 0
        self._nonce = 0
        self._out: list[asyncio.Queue[discovery.DeltaDiscoveryResponse | None]] = []

    async def start(self) -> None:
        self._server = grpc.aio.server()
        stream = grpc.stream_stream_rpc_method_handler(
            self._stream,
            discovery.DeltaDiscoveryRequest.FromString,
            discovery.DeltaDiscoveryResponse.SerializeToString,
        )
        sign = grpc.unary_unary_rpc_method_handler(
            self._sign,
            ca_pb2.IstioCertificateRequest.FromString,
            ca_pb2.IstioCertificateResponse.SerializeToString,
        )
        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        handlers = {
            service: {"DeltaAggregatedResources": stream},
            "istio.v1.auth.IstioCertificateService": {"CreateCertificate": sign},
        }
        self._server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(*each) for each in handlers.items())
        )
        self.port = self._server.add_secure_port("127.0.0.1:0", self._credentials())
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    async def push(self, type_url: str, resources: Mapping[str, Body], removed: tuple[str, ...] = ()) -> None:
        """Sends this on every stream, and keeps it for the next ones."""
        for name in removed:
            self.resources[type_url].pop(name, None)
        self.resources[type_url].update(resources)
        for queue in self._out:
            queue.put_nowait(self._response(type_url, resources, removed))

    def leave(self) -> None:
        """Ends all streams without an error, as an istiod does when one is old."""
        for queue in self._out:
            queue.put_nowait(None)

    def rejections(self, type_url: str) -> list[discovery.DeltaDiscoveryRequest]:
        """Answers that say what could not be taken."""
        return [each for each in self.requests if each.type_url == type_url and each.HasField("error_detail")]

    async def _stream(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        self.metadata = dict(context.invocation_metadata() or ())
        self.streams += 1
        out: asyncio.Queue[discovery.DeltaDiscoveryResponse | None] = asyncio.Queue()
        self._out.append(out)
        reading = asyncio.ensure_future(self._read(context, out))
        try:
            while (response := await out.get()) is not None:
                await context.write(response)
        finally:
            self._out.remove(out)
            reading.cancel()
            await asyncio.wait([reading])

    async def _read(self, context: grpc.aio.ServicerContext, out: asyncio.Queue) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            self.requests.append(request)
            if request.response_nonce:
                continue
            known = self.resources[request.type_url]
            gone = tuple(name for name in request.initial_resource_versions if name not in known)
            out.put_nowait(self._response(request.type_url, known, (*gone, "never-heard-of")))

    def _response(
        self, type_url: str, resources: Mapping[str, Body], removed: tuple[str, ...]
    ) -> discovery.DeltaDiscoveryResponse:
        self._nonce += 1
        response = discovery.DeltaDiscoveryResponse(
            type_url=type_url, nonce=f"n{self._nonce}", removed_resources=removed
        )
        response.system_version_info = "2026-11-20T00:00:00Z/7"
        response.control_plane.identifier = '{"Component":"istiod"}'
        for name, body in resources.items():
            resource = response.resources.add(name=name, aliases=[f"/{name}"])
            resource.resource.type_url = type_url
            resource.resource.value = body.SerializeToString() + UNKNOWN_FIELD
        return response

    async def _sign(
        self, request: ca_pb2.IstioCertificateRequest, context: grpc.aio.ServicerContext
    ) -> ca_pb2.IstioCertificateResponse:
        self.signing.append(request)
        asked = parse_request(request.csr)
        *path, _ = self.authority.issue(asked.identity, asked.public_key, dt.datetime.now(dt.UTC))
        roots = [self.root.certificate, self.other_root.certificate]
        return ca_pb2.IstioCertificateResponse(cert_chain=[*path, *roots])

    def _credentials(self) -> grpc.ServerCredentials:
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        *chain, _ = self.authority.issue_server([x509.DNSName(NAME)], key.public_key(), now)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return grpc.ssl_server_credentials([(pem, "".join(chain).encode())])
