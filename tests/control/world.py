"""A control plane's gRPC half on loopback, with the few API calls it makes answered from dictionaries."""

import asyncio
import datetime as dt
import ssl
import time
from contextlib import asynccontextmanager

import grpc.aio
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.ca.authority import Authority
from ambit.control.discovery import Discovery
from ambit.control.identity.callers import Authenticator
from ambit.control.identity.certificates import METHOD as CERTIFICATE_METHOD
from ambit.control.identity.certificates import SERVICE as CERTIFICATE_SERVICE
from ambit.control.identity.certificates import CertificateService
from ambit.control.identity.first_message import FirstMessages
from ambit.control.identity.pods import PodIndex
from ambit.control.metrics import Counters
from ambit.control.server import ServerCertificate, listen_tls, make_server
from ambit.control.settings import Settings
from ambit.core.errors import Unreachable
from ambit.kube.errors import NotFound
from ambit.objects.kube import Namespace, Pod
from ambit.xds import wire
from ambit.xds.client_session import ClientSession
from ambit.xds.frames import Node
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE
from ambit.xds.protos import ca_pb2

NODE_TOKEN = "token-of-node1"


def pod_json(name, namespace="shop", account="web", node="node1", uid="", labels=None, **status):
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-{name}",
            "labels": labels or {},
        },
        "spec": {"nodeName": node, "serviceAccountName": account},
        "status": {"phase": "Running"} | status,
    }


def review(namespace, account, pod, uid, node="node1", audiences=("istio-ca",), authenticated=True):
    extra = {
        "authentication.kubernetes.io/pod-name": [pod],
        "authentication.kubernetes.io/pod-uid": [uid],
        "authentication.kubernetes.io/node-name": [node],
    }
    return {
        "authenticated": authenticated,
        "audiences": list(audiences),
        "user": {"username": f"system:serviceaccount:{namespace}:{account}", "extra": extra if pod else {}},
    }


class Api:
    """The API server as the authenticator and the pod index see it."""

    def __init__(self):
        self.reviews = {NODE_TOKEN: review("ambit-system", "ztunnel", "agent", "uid-agent")}
        self.pods = [pod_json("agent", "ambit-system", "ztunnel")]
        self.namespaces = {"shop": {"istio.io/dataplane-mode": "ambient"}, "ambit-system": {}}
        self.away = False
        self.reviewed = 0

    def check(self):
        if self.away:
            raise Unreachable("the API server is away")

    async def create(self, resource, value, namespace=None):
        self.check()
        assert resource.kind == "TokenReview"
        self.reviewed += 1
        status = self.reviews.get(value["spec"]["token"], {"authenticated": False, "error": "unknown token"})
        return {"status": status}

    async def get(self, resource, name, namespace=None):
        self.check()
        if resource.kind == "Namespace" and name in self.namespaces:
            return {"metadata": {"name": name, "labels": self.namespaces[name]}}
        for pod in self.pods:
            if (pod["metadata"]["namespace"], pod["metadata"]["name"]) == (namespace, name):
                return pod
        raise NotFound(404, "NotFound", f"{name} not found")

    async def list(self, resource, namespace=None, *, field_selector=None):
        self.check()
        node = field_selector.removeprefix("spec.nodeName=")
        return [
            pod
            for pod in self.pods
            if pod["metadata"]["namespace"] == namespace and pod["spec"]["nodeName"] == node
        ]


class World:
    def __init__(self):
        self.settings = Settings(certificate_burst=50, certificate_rate=0.0)
        self.api = Api()
        self.now = dt.datetime.now(dt.UTC)
        self.authority = Authority.create("cluster.local", self.now)
        self.counters = Counters()
        self.watched_pods, self.watched_namespaces = {}, {}
        self.pods = PodIndex(self.api, self.watched_pods, self.watched_namespaces)
        authenticator = Authenticator(self.api, self.pods, time.monotonic)
        self.discovery = Discovery(self.settings, authenticator, self.counters)
        self.signing = CertificateService(
            self.settings,
            lambda: self.authority,
            authenticator,
            self.pods,
            self.counters,
            FirstMessages(self.settings.node_accounts),
            clock=time.monotonic,
            wall=lambda: self.now,
        )
        self.port = 0

    def watch_pod(self, value):
        """The pod has reached the watch."""
        pod = msgspec.convert(value, Pod)
        self.watched_pods[(pod.metadata.namespace, pod.metadata.name)] = pod
        self.pods.update("added", None, pod)
        namespace = {"metadata": {"name": pod.metadata.namespace}}
        namespace["metadata"]["labels"] = self.api.namespaces.get(pod.metadata.namespace, {})
        self.watched_namespaces[("", pod.metadata.namespace)] = msgspec.convert(namespace, Namespace)

    @asynccontextmanager
    async def serving(self):
        complete = asyncio.Event()
        complete.set()
        server = make_server(self.discovery, self.signing, complete)
        names = self.settings.server_names
        certificate = ServerCertificate(lambda: self.authority, names, lambda: self.now)
        self.port = listen_tls(server, "127.0.0.1", 0, certificate.credentials())
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    def channel(self, host="istiod.istio-system.svc", more=()):
        credentials = grpc.ssl_channel_credentials(self.authority.roots.encode())
        options = [("grpc.ssl_target_name_override", host), ("grpc.max_receive_message_length", -1), *more]
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options)

    async def certificate(self, csr, token=NODE_TOKEN, impersonate=None, seconds=86400):
        """Ask for a certificate as a node agent does; returns the chain or raises AioRpcError."""
        request = ca_pb2.IstioCertificateRequest(csr=csr, validity_duration=seconds)
        if impersonate is not None:
            request.metadata.update({"ImpersonatedIdentity": impersonate})
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        async with self.channel() as channel:
            call = channel.unary_unary(f"/{CERTIFICATE_SERVICE}/{CERTIFICATE_METHOD}")
            answer = await call(request.SerializeToString(), metadata=metadata, timeout=60)
        return list(ca_pb2.IstioCertificateResponse.FromString(answer).cert_chain)


def signing_request(*uris):
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


class Ztunnel:
    """A client that behaves as ztunnel does: keeps versions over reconnects, acknowledges what it applied."""

    def __init__(self, world, token=NODE_TOKEN, named=(), options=()):
        self.world = world
        self.options = options
        self.token = token
        self.kept = {ADDRESS_TYPE: {}, AUTHORIZATION_TYPE: {}}
        self.order = []
        self.first_kept = None
        self.session = ClientSession(
            (ADDRESS_TYPE, AUTHORIZATION_TYPE),
            Node(
                "ztunnel~10.0.0.1~agent.ambit-system~ambit-system.svc.cluster.local", "", {"NODE_NAME": "n"}
            ),
            lambda kind: self.kept[kind],
            named=named,
        )
        self.reject = ""

    @asynccontextmanager
    async def connected(self):
        metadata = (("authorization", f"Bearer {self.token}"), ("clusterid", "Kubernetes"))
        async with self.world.channel(more=self.options) as channel:
            self.call = channel.stream_stream(wire.METHOD)(metadata=metadata)
            await self.send(self.session.connect())
            try:
                yield self
            finally:
                self.session.disconnect()
                self.call.cancel()

    async def send(self, requests):
        for request in requests:
            await self.call.write(wire.encode_request(request))

    async def receive(self, seconds=60):
        """Apply one response and answer it. Returns it."""
        data = await asyncio.wait_for(self.call.read(), seconds)
        if data is grpc.aio.EOF:
            raise EOFError(await self.call.details())
        response = wire.decode_response(data)
        update = self.session.receive(response)
        self.order.append(response.type_url)
        if self.reject:
            await self.send(self.session.reject(update, self.reject))
            return response
        kept = self.kept[response.type_url]
        kept.update({resource.name: resource.version for resource in response.resources})
        for name in response.removed:
            kept.pop(name, None)
        await self.send(self.session.accept(update))
        return response


def peer_certificate(world, host):
    """The TLS certificate the server shows to a client that verifies it for this host."""
    context = ssl.create_default_context(cadata=world.authority.roots)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])

    async def dial():
        _, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=context, server_hostname=host)
        try:
            return writer.get_extra_info("peercert")
        finally:
            writer.close()

    return dial()
