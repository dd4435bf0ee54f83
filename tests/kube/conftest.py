"""A real API server that can be stopped and started."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from bench.ports import free_port

from ambit.local.apiserver.access.credentials import write_kubeconfig
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.local.streams import PodStreams


class Cluster:
    """One database, served by one server at a time, on a Unix socket and a loopback port with TLS."""

    def __init__(self, directory: Path, streams: PodStreams | None = None) -> None:
        self._streams = streams
        self.directory = directory
        self.unix = directory / "api.sock"
        self.kubeconfig = directory / "kubeconfig"
        self._server: ApiServer | None = None
        self._port = free_port()

    async def start(self) -> None:
        self._server = ApiServer(ApiSettings(self.directory / "pki", self.directory / "db"), self._streams)
        listener = socket.create_server(("127.0.0.1", self._port))
        write_kubeconfig(self.kubeconfig, self._server.credentials, f"https://127.0.0.1:{self._port}")
        await self._server.start([listener], self.unix)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
            self._server = None


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    await cluster.start()
    yield cluster
    await cluster.stop()


async def until(check: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition on local state."""
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 - the condition is a plain value
            await asyncio.sleep(0.01)
