"""A control plane that is a process of its own, before an API server with some pods, and the streams of its nodes."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from bench.control.agents import Agents, Target
from bench.control.cluster import fill
from bench.control.objects import Size
from bench.control.server import ControlPlane, ambit
from bench.ports import free_port

from ambit.core.names import ROOT_CERT_CONFIGMAP, ROOT_CERT_KEY, SYSTEM_NAMESPACE
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.local.apiserver.access.credentials import write_kubeconfig
from ambit.local.apiserver.server import ApiServer, ApiSettings

SIZE = Size(2, 10, 3)
PATIENCE = 60.0


class Running(NamedTuple):
    plane: ControlPlane
    client: Client
    agents: Agents


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Running]:
    """With the pods of `SIZE`; every node has been told everything."""
    api = ApiServer(ApiSettings(directory / "pki"), None)
    fill(api, SIZE, directory / "tokens")
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    await api.start([listening], None)
    config, port = directory / "kubeconfig", free_port()
    write_kubeconfig(config, api.credentials, f"https://127.0.0.1:{listening.getsockname()[1]}")
    plane = ambit(config, port, directory / "control.log")
    try:
        await plane.launch()
        await plane.ready()
        async with Client.from_kubeconfig(config) as client:
            root = await client.get(kinds.CONFIG_MAPS, ROOT_CERT_CONFIGMAP, SYSTEM_NAMESPACE)
            tokens = {node: (directory / "tokens" / str(node)).read_text() for node in range(SIZE.nodes)}
            agents = Agents(Target(port, "localhost", root["data"][ROOT_CERT_KEY]), tokens)
            agents.start()
            try:
                await agents.synced(PATIENCE)
                yield Running(plane, client, agents)
            finally:
                await agents.stop()
    finally:
        await plane.kill()
        await api.stop()
