"""Whole agents with real Envoys around a small control plane; pods are bare network namespaces.

The control plane serves values as they are put, signs what an agent asks for, and turns the redirection
annotation into HBONE as the real one does. Kubernetes is a dictionary behind the client's methods.
"""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import msgspec
from bench.ports import free_port

from ambit.ca.authority import Authority
from ambit.ca.request import parse_request
from ambit.core.address import Address
from ambit.core.identity import Identity
from ambit.kube.client import WatchEvent
from ambit.kube.errors import NotFound
from ambit.kube.reflector import INITIAL_EVENTS_END
from ambit.model.policy import Authorization
from ambit.model.service import Service
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.node.enrol.sandbox import Sandbox
from ambit.node.process import NodeAgent
from ambit.node.serve.endpoints import Endpoints
from ambit.node.settings import AgentSettings, Method
from ambit.xds.frames import Resource
from ambit.xds.messages import ADDRESS_TYPE, TYPES, to_resource, type_of
from ambit.xds.protos import ca_pb2
from ambit.xds.session import ServerSession
from ambit.xds.store import Store
from ambit.xds.wire import METHOD_NAME, SERVICE, decode_request, encode_response
from tests.plan.dataplane.network import Host, Network

REDIRECTION = "ambient.istio.io/redirection"


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - others of this loop change it
            await asyncio.sleep(0.01)


class Api:
    """The API server as an agent's client sees it: `get`, `raw`, `patch`, `watch`."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[tuple[str, str], dict]] = {
            "pods": {},
            "namespaces": {},
            "nodes": {},
            "configmaps": {},
        }
        self.changed: Callable[[dict], None] = lambda pod: None
        self._watchers: list[tuple[str, asyncio.Queue]] = []
        self._version = 0

    def put(self, plural: str, value: dict) -> dict:
        self._version += 1
        value["metadata"]["resourceVersion"] = str(self._version)
        key = (value["metadata"].get("namespace", ""), value["metadata"]["name"])
        kind = "MODIFIED" if key in self.objects[plural] else "ADDED"
        self.objects[plural][key] = value
        self._tell(plural, kind, value)
        if plural == "pods":
            self.changed(value)
        return value

    def delete(self, plural: str, namespace: str, name: str) -> None:
        self._tell(plural, "DELETED", self.objects[plural].pop((namespace, name)))

    def label(self, plural: str, namespace: str, name: str, **labels: str) -> None:
        value = json.loads(json.dumps(self.objects[plural][namespace, name]))
        value["metadata"]["labels"] = {key.replace("__", "/"): text for key, text in labels.items()}
        self.put(plural, value)

    async def get(self, resource, name, namespace=None) -> dict:
        try:
            return self.objects[resource.plural][namespace or "", name]
        except KeyError:
            raise NotFound(404, "NotFound", f"{name} not found") from None

    async def raw(self, method, path, query=None) -> bytes:
        *_, plural, name = path.split("/")
        namespace = path.split("/")[-3] if "/namespaces/" in path and plural != "namespaces" else ""
        try:
            return json.dumps(self.objects[plural][namespace, name]).encode()
        except KeyError:
            raise NotFound(404, "NotFound", f"{name} not found") from None

    async def patch(self, resource, name, patch, namespace=None, *, subresource="") -> dict:
        # Agents may patch nothing else: charts/node/templates/rbac.yaml.
        assert (resource.plural, subresource) == ("pods", "status")
        value = json.loads(json.dumps(await self.get(resource, name, namespace)))
        annotations = value["metadata"].setdefault("annotations", {})
        for key, text in patch["metadata"]["annotations"].items():
            if text is None:
                annotations.pop(key, None)
            else:
                annotations[key] = text
        return self.put(resource.plural, value)

    @asynccontextmanager
    async def watch(self, resource, namespace=None, *, field_selector=None, **_):
        queue: asyncio.Queue = asyncio.Queue()
        node = (field_selector or "").removeprefix("spec.nodeName=")
        for value in self.objects[resource.plural].values():
            queue.put_nowait(("ADDED", value))
        end = {
            "metadata": {"resourceVersion": str(self._version), "annotations": {INITIAL_EVENTS_END: "true"}}
        }
        queue.put_nowait(("BOOKMARK", end))
        self._watchers.append((resource.plural, queue))

        async def events():
            while True:
                kind, value = await queue.get()
                if kind != "BOOKMARK" and resource.plural == "pods" and value["spec"]["nodeName"] != node:
                    continue
                yield WatchEvent(kind, msgspec.Raw(json.dumps(value).encode()))

        yield events()

    def _tell(self, plural: str, kind: str, value: dict) -> None:
        for watched, queue in self._watchers:
            if watched == plural:
                queue.put_nowait((kind, value))


class Control:
    """The control plane: one store for all agents, and the certificate service."""

    def __init__(self) -> None:
        self.store = Store()
        self.authority = Authority.create("cluster.local", dt.datetime.now(dt.UTC))
        self.refusal = ""
        self.signed: list[Identity] = []
        self.port = free_port()
        self._sessions: list[tuple[ServerSession, grpc.aio.ServicerContext]] = []
        self._server: grpc.aio.Server | None = None
        self._puts: list[asyncio.Future[None]] = []

    async def start(self) -> None:
        """Always on the same port."""
        self._server = grpc.aio.server()
        stream = grpc.stream_stream_rpc_method_handler(self._serve, decode_request, encode_response)
        sign = grpc.unary_unary_rpc_method_handler(
            self._sign,
            ca_pb2.IstioCertificateRequest.FromString,
            ca_pb2.IstioCertificateResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, {METHOD_NAME: stream}),
                grpc.method_handlers_generic_handler(
                    "istio.v1.auth.IstioCertificateService", {"CreateCertificate": sign}
                ),
            )
        )
        self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    async def put(self, *values: Workload | Service | Authorization, remove: tuple[str, ...] = ()) -> None:
        for type_url in TYPES:
            found: dict[str, Resource] = {
                value.key: to_resource(value) for value in values if type_of(value) == type_url
            }
            changed = self.store.update(
                type_url, found, [name for name in remove if self._has(type_url, name)]
            )
            for session, context in self._sessions:
                for response in session.notify(changed):
                    await context.write(response)

    def _has(self, type_url: str, name: str) -> bool:
        return self.store.get(type_url, name) is not None

    def pod_changed(self, pod: dict) -> None:
        """A pod's record: HBONE while its annotation says so."""
        metadata, status = pod["metadata"], pod["status"]
        if not status.get("podIPs"):
            return
        enabled = metadata.get("annotations", {}).get(REDIRECTION) == "enabled"
        uid = f"Kubernetes//Pod/{metadata['namespace']}/{metadata['name']}"
        known = self.store.get(ADDRESS_TYPE, uid)
        record = Workload(
            uid=uid,
            name=metadata["name"],
            namespace=metadata["namespace"],
            identity=Identity("cluster.local", metadata["namespace"], pod["spec"]["serviceAccountName"]),
            addresses=tuple(map(_address, status["podIPs"])),
            tunnel=TunnelProtocol.HBONE if enabled else TunnelProtocol.NONE,
            node=pod["spec"]["nodeName"],
            cluster_id="Kubernetes",
            workload_name=metadata["name"],
            services={
                key: (Port(80, 8080),)
                for key in metadata.get("annotations", {}).get("services", "").split()
                if key
            },
        )
        if known is None or known != to_resource(record):
            self._puts.append(asyncio.ensure_future(self.put(record)))

    async def _serve(self, _: object, context: grpc.aio.ServicerContext) -> None:
        session = ServerSession(self.store)
        entry = (session, context)
        self._sessions.append(entry)
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                for response in session.receive(request):
                    await context.write(response)
                session.take_events()
        finally:
            self._sessions.remove(entry)

    async def _sign(self, request, context: grpc.aio.ServicerContext) -> ca_pb2.IstioCertificateResponse:
        if self.refusal:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, self.refusal)
        asked = parse_request(request.csr)
        self.signed.append(asked.identity)
        chain = self.authority.issue(asked.identity, asked.public_key, dt.datetime.now(dt.UTC))
        return ca_pb2.IstioCertificateResponse(cert_chain=chain)


def _address(entry: dict):
    import ipaddress

    return ipaddress.ip_address(entry["ip"])


class Node:
    """One agent; `start` again after `kill` is a restarted agent."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.agent: NodeAgent | None = None
        self._task: asyncio.Task | None = None
        self._stop = asyncio.Event()
        self.lines: list[str] = []
        self.host_proc: Path | None = None
        self.more: dict[str, object] = {}
        """Other settings of its agent."""

    @property
    def run(self) -> Path:
        return self.world.directory / self.name

    async def start(self, ready: bool = True) -> NodeAgent:
        settings = AgentSettings(
            node=self.name,
            run=self.run,
            state=self.world.directory / f"{self.name}-state",
            control=f"127.0.0.1:{self.world.control.port}",
            sandboxes=self.world.directory / "sandboxes",
            namespaces=Path("/run/netns"),
            host_proc=self.host_proc,
            resolv_conf=self.world.directory / "resolv.conf",
            max_drain=5,
            admin_port=0,
            metrics_port=0,
            readiness_port=0,
            **({"capture": Method.NAT} | self.more),  # type: ignore[arg-type]
        )
        self._stop = asyncio.Event()
        self.lines = []
        self.agent = NodeAgent(settings, self.world.api, ("", "", ""), self.lines.extend)  # type: ignore[arg-type]
        self.endpoints = Endpoints(self.agent)
        self._task = asyncio.ensure_future(self.agent.run(self._stop, self.endpoints.run()))
        if ready:
            await until(lambda: self._task.done() or not self.agent.unready())
            if self._task.done():
                self._task.result()
        return self.agent

    async def stop(self) -> None:
        """The agent ends; its Envoy goes on."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task])
            self._task = None

    async def end(self) -> None:
        """The agent and its Envoy end."""
        if self._task is None and self.agent is not None:
            await self.start(ready=False)
        if self.agent is not None:
            await until(lambda: self.agent.supervisor.status.current is not None)
            await self.agent.supervisor.stop()
            await until(lambda: self.agent.supervisor.status.current is None)
        await self.stop()

    async def http(self, target: str, port: int = 0, method: str = "GET") -> tuple[int, bytes]:
        """Asks the agent's admin (0), metrics (1) or readiness (2) port."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.endpoints.ports[port])
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(60):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), body

    async def cni(self, command: str, pod: "Pod") -> dict:
        return await self.tell({"command": command, **pod.sandbox_fields})

    async def tell(self, message: dict) -> dict:
        reader, writer = await asyncio.open_unix_connection(str(self.run / "cni.sock"))
        writer.write(json.dumps(message).encode() + b"\n")
        async with asyncio.timeout(120):
            answer = json.loads(await reader.readline())
        writer.close()
        return answer


class Pod(Host):
    """A pod: a namespace and an object."""

    def __init__(
        self,
        host: Host,
        world: "World",
        name: str,
        node: Node,
        account: str,
        family: int = 0,
        namespace: str = "default",
    ) -> None:
        super().__init__(host.netns, host.four, host.six)
        self.family = family
        self.world = world
        self.name = name
        self.node = node
        self.account = account
        self.namespace = namespace
        self.uid = f"uid-{name}"

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(each for each in super().addresses if self.family in (0, each.version))

    @property
    def sandbox_fields(self) -> dict:
        return {
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "sandbox": self.netns.name,
            "netns": str(self.netns),
            "ips": [str(address) for address in self.addresses],
        }

    @property
    def sandbox(self) -> Sandbox:
        return msgspec.convert(self.sandbox_fields, Sandbox)

    @property
    def annotations(self) -> dict:
        return self.world.api.objects["pods"][self.namespace, self.name]["metadata"].get("annotations", {})

    def create(self, **labels: str) -> None:
        metadata = {"name": self.name, "namespace": self.namespace, "uid": self.uid, "labels": labels}
        spec = {"nodeName": self.node.name, "serviceAccountName": self.account}
        self.world.api.put("pods", {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}})

    def began(self) -> None:
        """Its containers run."""
        value = json.loads(json.dumps(self.world.api.objects["pods"][self.namespace, self.name]))
        value["status"] = {"phase": "Running", "podIPs": [{"ip": str(each)} for each in self.addresses]}
        self.world.api.put("pods", value)

    async def says(self, server: "Pod", port: int = 8080, v6: bool = False) -> str:
        """What `server` answers, asked from here."""
        return await asyncio.to_thread(self.ask, server.six if v6 else server.four, port)


class World:
    def __init__(self, directory: Path, network: Network) -> None:
        self.directory = directory
        self.network = network
        self.api = Api()
        self.control = Control()
        self.api.changed = self.control.pod_changed
        self.nodes: dict[str, Node] = {}
        self.enrol_namespace("default")
        (directory / "resolv.conf").write_text("nameserver 10.77.255.254\n")

    def enrol_namespace(self, name: str) -> None:
        labels = {"istio.io/dataplane-mode": "ambient"}
        self.api.put("namespaces", {"metadata": {"name": name, "labels": labels}})

    async def node(self, name: str, **more: object) -> Node:
        node = self.nodes[name] = Node(self, name)
        node.more = more
        await node.start()
        return node

    async def pod(
        self,
        name: str,
        node: Node,
        account: str = "web",
        *,
        enrol: bool = True,
        family: int = 0,
        namespace: str = "default",
    ) -> Pod:
        """A running pod, captured before it began when `enrol`. It has addresses of both families, or of one."""
        host = await asyncio.to_thread(self.network.host, name)
        if family:
            await asyncio.to_thread(self.network.only, host, family)
        pod = Pod(host, self, name, node, account, family, namespace)
        pod.create()
        record = self.directory / "sandboxes" / pod.netns.name
        record.mkdir(parents=True)
        (record / "pod.json").write_text(json.dumps({"uid": pod.uid}))
        if enrol:
            answer = await node.cni("add", pod)
            assert answer == {"ok": True, "enrolled": True}, answer
        pod.began()
        return pod


@asynccontextmanager
async def making(directory: Path) -> AsyncIterator[World]:
    with Network() as network:
        world = World(directory, network)
        await world.control.start()
        try:
            yield world
        finally:
            for node in world.nodes.values():
                await node.end()
            await world.control.stop()
