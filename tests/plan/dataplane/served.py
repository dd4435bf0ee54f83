"""One real Envoy under test, and the delta ADS that it gets its resources from."""

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from ambit.agent.envoy_server import FOLLOWERS
from ambit.plan.values import PlannedResource
from ambit.xds import wire
from ambit.xds.events import Asked, Rejected
from ambit.xds.frames import Resource
from ambit.xds.session import ServerSession
from ambit.xds.store import Store

ENVOY = Path(sys.prefix) / f"lib/python3.{sys.version_info.minor}/site-packages/envoy/_bin/envoy"
DEADLINE = 60.0
"""Seconds: nothing takes as long, but a start on a machine that is busy with something else."""


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition. Raises AssertionError after DEADLINE."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {DEADLINE} s in vain for: {what}")
        threading.Event().wait(0.01)


class ServedEnvoy:
    """An Envoy with a directory of its own. Whoever extends it says what it is served: `replace` with everything,
    `answer` for what it asks for by name."""

    def __init__(self, directory: Path, name: str, order: Sequence[str]) -> None:
        self.name = name
        self.order = order
        """Types in the order in which they are sent."""
        self.directory = directory / name
        self.directory.mkdir()
        self.rejections: list[str] = []
        self.asked: list[str] = []
        self.concurrency = 1
        """Of the next generation."""
        self.store = Store()
        self.lock = threading.RLock()
        self._sessions: dict[ServerSession, queue.Queue[bytes | None]] = {}
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((self._ads(),))
        self._server.add_insecure_port(f"unix:{self.directory}/xds.sock")
        self._server.start()
        self._generations: list[subprocess.Popen[bytes]] = []
        self._printed = (self.directory / "stdout").open("ab")
        self._base_id = 0
        self._prefix: list[str] = []

    # Envoy

    def begin(self, bootstrap: bytes, base_id: int, *prefix: str) -> None:
        """The first Envoy, when what it gets is there. `prefix` is a command that it is run by."""
        (self.directory / "bootstrap.pb").write_bytes(bootstrap)
        self._base_id = base_id
        self._prefix = list(prefix)
        self._launch()
        until(lambda: "LIVE" in self.admin("/ready"), f"Envoy of {self.name}")

    def restart(self) -> None:
        """A new generation of Envoy takes over; the old one keeps its connections."""
        epoch = len(self._generations)
        self._launch()
        wanted = f'"restart_epoch": {epoch}'
        until(lambda: wanted in self.admin("/server_info"), f"epoch {epoch} of {self.name}")
        until(lambda: "LIVE" in self.admin("/ready"), f"Envoy of {self.name}")

    @property
    def generations(self) -> list[bool]:
        """Which of the Envoys that were started still run, oldest first."""
        return [each.poll() is None for each in self._generations]

    def _launch(self) -> None:
        epoch = len(self._generations)
        self._generations.append(
            subprocess.Popen(
                [
                    *self._prefix,
                    str(ENVOY),
                    *("-c", f"{self.directory}/bootstrap.pb", "--concurrency", str(self.concurrency)),
                    *("--base-id", str(self._base_id), "--restart-epoch", str(epoch)),
                    *(
                        "--log-path",
                        f"{self.directory}/envoy.log",
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
                stdout=self._printed,
                stderr=subprocess.DEVNULL,
            )
        )

    def stop(self) -> None:
        for envoy in self._generations:
            envoy.kill()
            envoy.wait()
        self._server.stop(0).wait()
        self._printed.close()

    def printed(self) -> str:
        """What Envoy has written on its standard output."""
        return (self.directory / "stdout").read_text()

    def admin(self, path: str) -> str:
        """The answer of Envoy's admin interface, empty while it does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"{self.directory}/admin.sock")
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except OSError:
            return ""

    def has_drained(self) -> bool:
        """Whether no connection is held any more to what a listener was before its last change."""
        gauges = ("listeners_warming", "listeners_draining", "filter_chains_draining")
        told = self.admin(f"/stats?filter=^listener_manager.total_({'|'.join(gauges)})$")
        return all(f"listener_manager.total_{each}: 0" in told for each in gauges)

    def settle(self) -> None:
        """Waits until what comes next stays: connections to what a listener was are cut."""
        until(self.has_all, f"all that {self.name} has asked for")
        until(self.has_drained, f"the end of what listeners of {self.name} were before")

    # Resources

    def has_all(self) -> bool:
        """Whether Envoy has answered everything, and has what it asked for on that account: what it has read of a
        listener, or of a cluster, is in force when it has its tables, extensions, certificates and endpoints."""
        if not self.is_settled() or not any(self.generations):
            return self.is_settled()
        told = self.admin("/stats?filter=warming")
        warm = ("cluster_manager.warming_clusters: 0", "listener_manager.total_listeners_warming: 0")
        return all(each in told for each in warm) and self.is_settled()

    def is_settled(self) -> bool:
        """Whether Envoy has answered everything."""
        with self.lock:
            return all(
                session.status(each).unacknowledged == 0
                for session in self._sessions
                for each in session.types
            )

    def replace(self, wanted: Iterable[PlannedResource]) -> None:
        """Exactly these are served."""
        by_type: dict[str, dict[str, Resource]] = {each: {} for each in self.order}
        for each in wanted:
            by_type[each.type_url][each.name] = Resource(
                name=each.name, version=each.version, body=each.body, on_demand=each.on_demand
            )
        changes = [
            self.store.update(
                type_url,
                resources,
                [name for name in self.store.resources(type_url) if name not in resources],
            )
            for type_url, resources in by_type.items()
        ]
        for session, out in self._sessions.items():
            for response in session.notify_all(changes):
                out.put(wire.encode_response(response))

    # Discovery

    def _ads(self) -> grpc.GenericRpcHandler:
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD_NAME: handler})

    def _stream(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        session = ServerSession(self.store, followers=FOLLOWERS)
        out: queue.Queue[bytes | None] = queue.Queue()
        with self.lock:
            self._sessions[session] = out
        threading.Thread(target=self._read, args=(requests, session, out), daemon=True).start()
        while (response := out.get()) is not None:
            yield response

    def _read(
        self, requests: Iterator[bytes], session: ServerSession, out: "queue.Queue[bytes | None]"
    ) -> None:
        with contextlib.suppress(grpc.RpcError):
            for data in requests:
                with self.lock:
                    for response in session.receive(wire.decode_request(data)):
                        out.put(wire.encode_response(response))
                    for event in session.take_events():
                        self._handle(event)
        with self.lock:
            self._sessions.pop(session)
        out.put(None)

    def _handle(self, event: object) -> None:
        match event:
            case Asked(type_url, asked):
                self.asked += asked
                self.answer(type_url, asked)
            case Rejected(_, error):
                self.rejections.append(error)

    def answer(self, type_url: str, asked: Sequence[str]) -> None:
        """Called when names are asked for that are not there."""

    def add(self, resources: Iterable[PlannedResource]) -> None:
        """These are served as well."""
        for each in resources:
            resource = Resource(
                name=each.name, version=each.version, body=each.body, on_demand=each.on_demand
            )
            changed = self.store.update(each.type_url, {each.name: resource})
            for session, out in self._sessions.items():
                for response in session.notify(changed):
                    out.put(wire.encode_response(response))
