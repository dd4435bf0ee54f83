"""A stand-in for the node agent: serves plans to one real Envoy over delta ADS and keeps its access log."""

import contextlib
import os
import queue
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from ambit.core.address import Address
from ambit.envoy import names
from ambit.model.view import MeshView, Snapshot
from ambit.node.cut import cut_short
from ambit.node.downstream.logs import parse
from ambit.node.flows.entry import About, Line, lines, read
from ambit.plan import node_proxy
from ambit.plan.node_proxy import LocalPod, LocalPods, NodeSettings, PlannedResource
from ambit.plan.values import CLUSTER, EXTENSION, LISTENER, SECRET
from ambit.xds import wire
from ambit.xds.events import Asked, Rejected
from ambit.xds.frames import Resource
from ambit.xds.session import ServerSession
from ambit.xds.store import Store

ENVOY = Path(sys.prefix) / f"lib/python3.{sys.version_info.minor}/site-packages/envoy/_bin/envoy"
_ORDER = (SECRET, EXTENSION, CLUSTER, LISTENER)
DEADLINE = 20.0
Certificates = Callable[[str], tuple[str, str]]


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition. Raises AssertionError after DEADLINE."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {DEADLINE} s in vain for: {what}")
        threading.Event().wait(0.01)


class Agent:
    """One node: its pods, its Envoy. `certificates` gives (chain, key) of an identity; `roots` the trust."""

    def __init__(
        self, directory: Path, settings: NodeSettings, roots: Mapping[str, str], certificates: Certificates
    ) -> None:
        self.settings = settings
        self.view: MeshView = Snapshot()
        self.pods: dict[str, LocalPod] = {}
        self.rejections: list[str] = []
        self.asked: list[str] = []
        self.only: dict[str, list[tuple[Address, int]]] = {}
        self.is_hopping = False
        """Whether tunnels take the internal hop, as those of destinations that are not known yet."""
        self._prepared: set[names.Destination] = set()
        self.log: list[tuple[About, Line]] = []
        self.cut_short: list[str] = []
        self._directory = directory / settings.node
        self._directory.mkdir()
        self.roots = roots
        self._certificates = certificates
        self._store = Store()
        self._forgotten: set[str] = set()
        self._lock = threading.RLock()
        self._sessions: dict[ServerSession, queue.Queue[bytes | None]] = {}
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((self._ads(),))
        self._server.add_insecure_port(f"unix:{self._directory}/xds.sock")
        self._server.start()
        self._logs = socketserver.ThreadingUnixStreamServer(
            f"{self._directory}/logs.sock", self._log_handler()
        )
        self._logs.daemon_threads = True
        threading.Thread(target=self._logs.serve_forever, daemon=True).start()
        self._generations: list[subprocess.Popen[bytes]] = []
        self._base_id = 0
        self.concurrency = 1
        """Of the next generation."""

    # Envoy

    def start(self, base_id: int) -> None:
        """The first Envoy of this node."""
        bootstrap = self._directory / "bootstrap.pb"
        bootstrap.write_bytes(
            node_proxy.bootstrap(
                self.settings,
                xds_socket=f"{self._directory}/xds.sock",
                logs_socket=f"{self._directory}/logs.sock",
                admin_socket=f"{self._directory}/admin.sock",
            )
        )
        self.sync()
        self._base_id = base_id
        self._launch()
        until(lambda: "LIVE" in self.admin("/ready"), f"Envoy of {self.settings.node}")

    def restart(self) -> None:
        """A new generation of Envoy takes over; the old one keeps its connections."""
        epoch = len(self._generations)
        self._launch()
        wanted = f'"restart_epoch": {epoch}'
        until(lambda: wanted in self.admin("/server_info"), f"epoch {epoch} of {self.settings.node}")
        until(lambda: "LIVE" in self.admin("/ready"), f"Envoy of {self.settings.node}")

    @property
    def generations(self) -> list[bool]:
        """Which of the Envoys that were started still run, oldest first."""
        return [each.poll() is None for each in self._generations]

    def _launch(self) -> None:
        epoch = len(self._generations)
        self._generations.append(
            subprocess.Popen(
                [
                    str(ENVOY),
                    *("-c", f"{self._directory}/bootstrap.pb", "--concurrency", str(self.concurrency)),
                    *("--base-id", str(self._base_id), "--restart-epoch", str(epoch)),
                    *(
                        "--log-path",
                        f"{self._directory}/envoy.log",
                        "-l",
                        os.environ.get("ENVOY_LOG", "info"),
                    ),
                    *(
                        "--drain-time-s",
                        "1",
                        "--drain-strategy",
                        "immediate",
                        "--parent-shutdown-time-s",
                        "600",
                    ),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def stop(self) -> None:
        for envoy in self._generations:
            envoy.kill()
            envoy.wait()
        self._server.stop(0).wait()
        self._logs.shutdown()
        self._logs.server_close()

    def admin(self, path: str) -> str:
        """The answer of Envoy's admin interface, empty while it does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"{self._directory}/admin.sock")
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except OSError:
            return ""

    # Resources

    def sync(self) -> None:
        """Plans again everything that is there or was asked for, and waits until Envoy took it."""
        wanted = [*node_proxy.shared_resources(), node_proxy.trust_bundle(self.roots)]
        for pod in self.pods.values():
            wanted += node_proxy.pod_resources(
                pod, self.view, self.settings, self.only.get(pod.key), self._tunnelled(pod)
            )
            wanted += [self._secret(name) for name in node_proxy.required_secrets(pod.identity)]
        with self._lock:
            wanted += [self._answer(name) for name in self._asked_clusters()]
            self._replace(wanted)
        until(self._settled, f"acknowledgements of {self.settings.node}")

    def prepare(self, pod: str, address: Address, port: int) -> None:
        """What resolving a name does: the way into a tunnel is known before the first connection."""
        asked = names.Destination(pod, address, port)
        with self._lock:
            if self.is_hopping or asked in self._prepared or pod not in self.pods or pod in self.only:
                return
            self._prepared.add(asked)
            self._add(self._outbound(self.pods[pod]))
        until(self._settled, f"acknowledgements of {self.settings.node}")

    def forget(self, pod: str) -> None:
        """Removes what this pod asked for."""
        with self._lock:
            for name in self._asked_clusters():
                if names.pod_of(name) == pod:
                    self._forgotten.add(name)

    def _settled(self) -> bool:
        with self._lock:
            return all(
                session.status(each).unacknowledged == 0
                for session in self._sessions
                for each in session.types
            )

    def _asked_clusters(self) -> list[str]:
        known = self._store.resources(CLUSTER)
        kinds = ("dst|", "tun|", "hbone|")
        return [name for name in known if name.startswith(kinds) and name not in self._forgotten]

    def _answer(self, name: str) -> PlannedResource:
        pods = LocalPods(self.pods.values())
        return node_proxy.destination(
            name, self.view, pods, self.settings, is_divided=name.startswith("dst|") and not self.is_hopping
        )

    def _tunnelled(self, pod: LocalPod) -> dict[tuple[Address, int], tuple[int, int]]:
        """What the pod asked for and reaches through tunnels."""
        found: dict[tuple[Address, int], tuple[int, int]] = {}
        if self.is_hopping:
            return found
        asked = {
            each
            for each in map(names.parse_cluster, self._asked_clusters())
            if isinstance(each, names.Destination)
        }
        pods = LocalPods(self.pods.values())
        for each in asked | self._prepared:
            if each.source == pod.key:
                share = node_proxy.tunnelled_share(each, self.view, pods, self.settings)
                if share is not None:
                    found[each.address, each.port] = share
        return found

    def _outbound(self, pod: LocalPod) -> Iterable[PlannedResource]:
        return node_proxy.outbound_resources(
            pod, self.view, self.settings, self.only.get(pod.key), self._tunnelled(pod)
        )

    def _secret(self, name: str) -> PlannedResource:
        chain, key = self._certificates(names.parse_secret(name).uri)
        return node_proxy.secret(name, chain_pem=chain, key_pem=key)

    def _replace(self, wanted: Iterable[PlannedResource]) -> None:
        by_type: dict[str, dict[str, Resource]] = {each: {} for each in _ORDER}
        for each in wanted:
            by_type[each.type_url][each.name] = Resource(
                name=each.name, version=each.version, body=each.body, on_demand=each.on_demand
            )
        changes = [
            self._store.update(
                type_url,
                resources,
                [name for name in self._store.resources(type_url) if name not in resources],
            )
            for type_url, resources in by_type.items()
        ]
        for session, out in self._sessions.items():
            for response in session.notify_all(changes):
                out.put(wire.encode_response(response))

    # Discovery and access log

    def _ads(self) -> grpc.GenericRpcHandler:
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD_NAME: handler})

    def _stream(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        session = ServerSession(self._store)
        out: queue.Queue[bytes | None] = queue.Queue()
        with self._lock:
            self._sessions[session] = out
        threading.Thread(target=self._read, args=(requests, session, out), daemon=True).start()
        while (response := out.get()) is not None:
            yield response

    def _read(
        self, requests: Iterator[bytes], session: ServerSession, out: "queue.Queue[bytes | None]"
    ) -> None:
        with contextlib.suppress(grpc.RpcError):
            for data in requests:
                with self._lock:
                    for response in session.receive(wire.decode_request(data)):
                        out.put(wire.encode_response(response))
                    for event in session.take_events():
                        self._handle(event)
        with self._lock:
            self._sessions.pop(session)
        out.put(None)

    def _handle(self, event: object) -> None:
        match event:
            case Asked(type_url, asked) if type_url == CLUSTER:
                self.asked += asked
                self._add([self._answer(name) for name in asked])
                for key in {names.pod_of(name) for name in asked} & self.pods.keys():
                    self._add(self._outbound(self.pods[key or ""]))
            case Asked(_, asked):
                self.asked += asked
            case Rejected(_, error):
                self.rejections.append(error)

    def _add(self, resources: Iterable[PlannedResource]) -> None:
        for each in resources:
            resource = Resource(
                name=each.name, version=each.version, body=each.body, on_demand=each.on_demand
            )
            changed = self._store.update(each.type_url, {each.name: resource})
            for session, out in self._sessions.items():
                for response in session.notify(changed):
                    out.put(wire.encode_response(response))

    def _log_handler(self) -> type[socketserver.BaseRequestHandler]:
        taken = self._access_log

        class Posts(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data = b""
                while part := self.request.recv(65536):
                    data += part
                    while (found := parse(data)) is not None:
                        taken(found[0])
                        data = data[found[1] :]
                        self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        return Posts

    def _access_log(self, message: bytes) -> None:
        for line in lines(message):
            about = read(line[-1])
            assert about is not None, line
            self.log.append((about, line))
            client = f"{about.client}:{line[2]}"
            if about.cut_short and cut_short(client, about.destination, LocalPods(self.pods.values())):
                self.cut_short.append(client)
