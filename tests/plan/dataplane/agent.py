"""A stand-in for the node agent: serves plans to one real Envoy over delta ADS and keeps its access log."""

import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ambit.agent.logs import parse
from ambit.agent.record import Flow
from ambit.agent.request_entry import About as Request
from ambit.agent.request_entry import Entry, requests
from ambit.agent.request_entry import read as read_request
from ambit.agent.request_record import kept
from ambit.core.address import Address
from ambit.envoy import names
from ambit.model.view import MeshView, Snapshot
from ambit.node.cut import cut_short
from ambit.node.flows.entry import About, Line, lines, read
from ambit.node.flows.requests import flow_of
from ambit.plan.node import node_proxy
from ambit.plan.node.node_proxy import LocalPod, LocalPods, NodeSettings, PlannedResource
from ambit.plan.values import CLUSTER, EXTENSION, LISTENER, ROUTES, SECRET
from tests.plan.dataplane.served import ServedEnvoy, until

_ORDER = (SECRET, EXTENSION, CLUSTER, LISTENER, ROUTES)
Certificates = Callable[[str], tuple[str, str]]


class LogSocket:
    """Where an Envoy posts its access log, each message to `taken`."""

    def __init__(self, path: Path, taken: Callable[[bytes], None]) -> None:
        class Posts(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data = b""
                while part := self.request.recv(65536):
                    data += part
                    while (found := parse(data)) is not None:
                        taken(found[0])
                        data = data[found[1] :]
                        self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Posts)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Agent(ServedEnvoy):
    """One node: its pods, its Envoy. `certificates` gives (chain, key) of an identity; `roots` the trust."""

    def __init__(
        self, directory: Path, settings: NodeSettings, roots: Mapping[str, str], certificates: Certificates
    ) -> None:
        super().__init__(directory, settings.node, _ORDER)
        self.settings = settings
        self.view: MeshView = Snapshot()
        self.pods: dict[str, LocalPod] = {}
        self.only: dict[str, list[tuple[Address, int]]] = {}
        self.is_hopping = False
        """Whether tunnels take the internal hop, as those of destinations that are not known yet."""
        self._prepared: set[names.Destination] = set()
        self.log: list[tuple[About, Line]] = []
        self.requests: list[Request | None] = []
        """What is told of those that are read on this node."""
        self._entries: list[Entry] = []
        self.roots = roots
        self._certificates = certificates
        self._forgotten: set[str] = set()
        self._logs = LogSocket(self.directory / "logs.sock", self._access_log)

    # Envoy

    def start(self, base_id: int) -> None:
        """The first Envoy of this node."""
        self.sync()
        bootstrap = node_proxy.bootstrap(
            self.settings,
            xds_socket=f"{self.directory}/xds.sock",
            logs_socket=f"{self.directory}/logs.sock",
            admin_socket=f"{self.directory}/admin.sock",
        )
        self.begin(bootstrap, base_id)

    def stop(self) -> None:
        super().stop()
        self._logs.close()

    # Resources

    def sync(self) -> None:
        """Plans again everything that is there or was asked for, and waits until Envoy took it."""
        wanted = [*node_proxy.shared_resources(), node_proxy.trust_bundle(self.roots)]
        for pod in self.pods.values():
            wanted += node_proxy.pod_resources(
                pod,
                self.view,
                self.settings,
                self.only.get(pod.key),
                self._tunnelled(pod),
                pods=LocalPods(self.pods.values()),
            )
            wanted += [self._secret(name) for name in node_proxy.required_secrets(pod.identity)]
        with self.lock:
            wanted += [each for name in self._asked_clusters() for each in self._answer(name)]
            self.replace(wanted)
        until(self.has_all, f"an Envoy of {self.settings.node} that has all it needs")

    def prepare(self, pod: str, address: Address, port: int) -> None:
        """What resolving a name does: the way into a tunnel is known before the first connection."""
        asked = names.Destination(pod, address, port)
        with self.lock:
            if self.is_hopping or asked in self._prepared or pod not in self.pods or pod in self.only:
                return
            self._prepared.add(asked)
            self.add(self._outbound(self.pods[pod]))
        until(self.has_all, f"an Envoy of {self.settings.node} that has all it needs")

    def forget(self, pod: str) -> None:
        """Removes what this pod asked for."""
        with self.lock:
            for name in self._asked_clusters():
                if names.pod_of(name) == pod:
                    self._forgotten.add(name)

    def _asked_clusters(self) -> list[str]:
        known = self.store.resources(CLUSTER)
        kinds = ("dst|", "tun|", "hbone|", "net|")
        return [name for name in known if name.startswith(kinds) and name not in self._forgotten]

    def _answer(self, name: str) -> list[PlannedResource]:
        pods = LocalPods(self.pods.values())
        is_divided = name.startswith("dst|") and not self.is_hopping
        answer = node_proxy.destination(name, self.view, pods, self.settings, is_divided=is_divided)
        return [*node_proxy.inline_resources(name, self.view, pods, self.settings), answer]

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

    # Discovery and access log

    def answer(self, type_url: str, asked: Sequence[str]) -> None:
        if type_url == CLUSTER:
            self.add([each for name in asked for each in self._answer(name)])
            for key in {names.pod_of(name) for name in asked} & self.pods.keys():
                self.add(self._outbound(self.pods[key or ""]))

    def told(self) -> Iterator[Flow]:
        """The records of these requests, as of now."""
        pods = LocalPods(self.pods.values())
        for about, entry in zip(self.requests, list(self._entries), strict=False):
            flow = flow_of(about, self.view, pods, self.settings) if about is not None else None
            if flow is not None:
                yield from kept(flow, entry).records()

    def _access_log(self, message: bytes) -> None:
        entries = list(requests(message))
        self.requests += [read_request(each.about) for each in entries]
        self._entries += entries
        for line in lines(message):
            about = read(line[-1])
            assert about is not None, line
            self.log.append((about, line))
            client = f"{about.client}:{line[2]}"
            if about.cut_short:
                cut_short(client, about.destination, LocalPods(self.pods.values()))
