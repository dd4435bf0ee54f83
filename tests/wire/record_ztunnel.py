"""Records what a stock ztunnel says to our control plane, into `ztunnel.json`, in a network with nothing else in it:
`unshare -n sh -c 'ip link set lo up; python -m tests.wire.record_ztunnel PROGRAM COMMIT'`.

Our sessions answer it; after a first answer to both types comes a workload that it must reject, then its stream ends
and it connects again.
"""

import asyncio
import base64
import datetime as dt
import ipaddress
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.ca.authority import Authority
from ambit.ca.request import parse_request
from ambit.core.identity import Identity
from ambit.model.policy import Action, Authorization, Scope
from ambit.model.service import Service
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.xds import wire
from ambit.xds.frames import Resource
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE, to_resource
from ambit.xds.protos import ca_pb2, workload_pb2
from ambit.xds.session import ServerSession
from ambit.xds.store import Store

RECORDED = Path(__file__).with_name("ztunnel.json")
WEB = Workload(
    uid="Kubernetes//Pod/shop/web-0",
    name="web-0",
    namespace="shop",
    identity=Identity("cluster.local", "shop", "web"),
    addresses=(ipaddress.ip_address("10.9.0.2"),),
    tunnel=TunnelProtocol.HBONE,
    node="n1",
    cluster_id="Kubernetes",
    services={"shop/web.shop.svc.cluster.local": (Port(80, 8080),)},
)
SERVICE = Service(
    name="web", namespace="shop", hostname="web.shop.svc.cluster.local", ports=(Port(80, 8080),)
)
POLICY = Authorization("nobody", "shop", Scope.WORKLOAD_SELECTOR, Action.ALLOW)
BAD = "Kubernetes//Pod/shop/old-0"


def store() -> Store:
    """What the control plane has at first."""
    made = Store()
    for type_url, values in ((ADDRESS_TYPE, (WEB, SERVICE)), (AUTHORIZATION_TYPE, (POLICY,))):
        made.update(type_url, {each.name: each for each in map(to_resource, values)})
    return made


def bad() -> Resource:
    """Something that a ztunnel rejects: a tunnel of a kind that is not served any more."""
    body = workload_pb2.Address(
        workload=workload_pb2.Workload(
            uid=BAD, name="old-0", namespace="shop", tunnel_protocol=workload_pb2.LEGACY_ISTIO_MTLS
        )
    )
    return Resource(name=BAD, version="1", body=wire.pack(ADDRESS_TYPE, body.SerializeToString()))


class Recorder:
    def __init__(self) -> None:
        self.store = store()
        self.streams: list[list[str]] = []
        self.metadata: dict[str, str] = {}
        self.signing = ""
        self.done, self.signed = asyncio.Event(), asyncio.Event()
        self.authority = Authority.create("cluster.local", dt.datetime.now(dt.UTC))

    async def stream(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        self.metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        said: list[str] = []
        self.streams.append(said)
        session = ServerSession(self.store)
        async for data in requests:
            said.append(base64.b64encode(data).decode())
            for response in session.receive(wire.decode_request(data)):
                yield wire.encode_response(response)
            if len(said) == 4 and len(self.streams) == 1:
                # Both first answers are acknowledged.
                changed = self.store.update(ADDRESS_TYPE, {BAD: bad()})
                for response in session.notify(changed):
                    yield wire.encode_response(response)
            if len(said) == 5 and len(self.streams) == 1:
                self.store.update(ADDRESS_TYPE, {}, [BAD])
                return
            if len(said) == 4 and len(self.streams) == 2:
                self.done.set()

    async def sign(self, data: bytes, _: grpc.aio.ServicerContext) -> bytes:
        self.signing = base64.b64encode(data).decode()
        self.signed.set()
        request = ca_pb2.IstioCertificateRequest.FromString(data)
        asked = parse_request(request.csr)
        chain = self.authority.issue(asked.identity, asked.public_key, dt.datetime.now(dt.UTC))
        answer = ca_pb2.IstioCertificateResponse(cert_chain=chain)
        return answer.SerializeToString()

    def credentials(self) -> grpc.ServerCredentials:
        key = ec.generate_private_key(ec.SECP256R1())
        *chain, _ = self.authority.issue_server(
            [x509.DNSName("localhost")], key.public_key(), dt.datetime.now(dt.UTC)
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return grpc.ssl_server_credentials([(pem, "".join(chain).encode())])


async def record(program: str, directory: Path) -> dict[str, Any]:
    recorder = Recorder()
    server = grpc.aio.server()
    handlers = {
        wire.SERVICE: {wire.METHOD_NAME: grpc.stream_stream_rpc_method_handler(recorder.stream)},
        "istio.v1.auth.IstioCertificateService": {
            "CreateCertificate": grpc.unary_unary_rpc_method_handler(recorder.sign)
        },
    }
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(*each) for each in handlers.items())
    )
    port = server.add_secure_port("127.0.0.1:0", recorder.credentials())
    await server.start()
    (directory / "ca.pem").write_text(recorder.authority.certificate)
    (directory / "token").write_text("a.b.c")
    environment = {
        "NODE_NAME": "n1",
        "POD_NAME": "ztunnel-x",
        "POD_NAMESPACE": "istio-system",
        "INSTANCE_IP": "10.9.9.9",
        "CLUSTER_ID": "Kubernetes",
        "AUTH_TOKEN": f"{directory}/token",
        "XDS_ADDRESS": f"https://localhost:{port}",
        "CA_ADDRESS": f"https://localhost:{port}",
        "XDS_ROOT_CA": f"{directory}/ca.pem",
        "CA_ROOT_CA": f"{directory}/ca.pem",
        "PROXY_MODE": "shared",
        "INPOD_UDS": f"{directory}/z.sock",
    }
    running = await asyncio.create_subprocess_exec(program, env=environment, cwd=directory)
    try:
        for event in (recorder.done, recorder.signed):
            await asyncio.wait_for(event.wait(), 60)
    finally:
        running.kill()
        await running.wait()
        await server.stop(None)
    return {"metadata": recorder.metadata, "streams": recorder.streams, "signing": recorder.signing}


def main() -> None:
    program, commit = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(record(program, Path(directory)))
    found["metadata"] = {key: found["metadata"][key] for key in ("authorization", "clusterid")}
    RECORDED.write_text(json.dumps({"commit": commit, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
