"""How long one pod change takes from the API server to every node, with the whole control plane as its own process.

    python -m bench.push [--nodes 50] [--pods 1000] [--changes 100]

Prints one JSON object: milliseconds from the moment the API server has answered the write until the last node has
the change (median, 99th percentile, largest), and what the control plane keeps in memory. API server and nodes share
this process and its core, so times are an upper bound.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc.aio

from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.local.apiserver.access.credentials import write_kubeconfig
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.xds import wire
from ambit.xds.client_session import ClientSession
from ambit.xds.frames import Node
from ambit.xds.messages import ADDRESS_TYPE, TYPES, from_resource
from bench.ports import free_port


async def ensure(client: Client, resource: kinds.Resource, name: str, namespace: str | None = None) -> None:
    try:
        await client.get(resource, name, namespace)
    except NotFound:
        await client.create(resource, {"metadata": {"name": name, "namespace": namespace}})


async def pod(client: Client, namespace: str, account: str, name: str, number: int) -> str:
    spec = {"nodeName": "node1", "serviceAccountName": account, "containers": [{"name": "c", "image": "x"}]}
    made = await client.create(kinds.PODS, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    await client.patch(kinds.PODS, name, {"status": status}, namespace, subresource="status")
    return str(made["metadata"]["uid"])


async def ready(client: Client, name: str, *, is_ready: bool) -> None:
    conditions = [{"type": "Ready", "status": "True" if is_ready else "False"}]
    patch = {"status": {"conditions": conditions}}
    await client.patch(kinds.PODS, name, patch, "shop", subresource="status")


class Agent:
    """One node's stream; `seen` is when it last got a change."""

    def __init__(self, channel: grpc.aio.Channel, token: str, number: int) -> None:
        self.session = ClientSession(TYPES, Node(f"node{number}"))
        self.call = channel.stream_stream(wire.METHOD)(metadata=(("authorization", f"Bearer {token}"),))
        self.changed = asyncio.Event()
        self.seen = 0.0

    async def run(self) -> None:
        for request in self.session.connect():
            await self.call.write(wire.encode_request(request))
        while (data := await self.call.read()) is not grpc.aio.EOF:
            update = self.session.receive(wire.decode_response(data))
            if update.type_url == ADDRESS_TYPE:
                for resource in update.resources[:1]:
                    from_resource(ADDRESS_TYPE, resource)
                self.seen = time.perf_counter()
                self.changed.set()
            for request in self.session.accept(update):
                await self.call.write(wire.encode_request(request))


async def started(config: Path, port: int) -> asyncio.subprocess.Process:
    arguments = (
        "--kubeconfig",
        config,
        "--port",
        port,
        "--plain-port",
        free_port(),
        "--debug-port",
        free_port(),
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ambit", "control", "run", "--log-level", "error", *map(str, arguments)),
        env=os.environ | {"PYTHONPATH": "src"},
    )
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            return process


def memory(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return {"pss_mb": found["Pss"] / 1024, "anonymous_mb": found["Anonymous"] / 1024}


async def measure(nodes: int, pods: int, changes: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        api = ApiServer(ApiSettings(directory / "pki"), None)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        await api.start([listening], directory / "api.sock")
        config, port = directory / "kubeconfig", free_port()
        write_kubeconfig(config, api.credentials, f"https://127.0.0.1:{listening.getsockname()[1]}")
        async with Client.over_unix(directory / "api.sock") as client:
            for name in ("ambit-system", "shop"):
                await ensure(client, kinds.NAMESPACES, name)
            await ensure(client, kinds.SERVICE_ACCOUNTS, "ztunnel", "ambit-system")
            await ensure(client, kinds.SERVICE_ACCOUNTS, "web", "shop")
            for number in range(pods):
                await pod(client, "shop", "web", f"web-{number}", number)
            uid = await pod(client, "ambit-system", "ztunnel", "agent", pods)
            bound = await client.token_request(
                "ambit-system", "ztunnel", ("istio-ca",), bound_pod=("agent", uid)
            )
            process = await started(config, port)
            try:
                return await against(client, port, str(bound["token"]), nodes, changes) | memory(process.pid)
            finally:
                process.terminate()
                await process.wait()
                await api.stop()


async def against(client: Client, port: int, token: str, nodes: int, changes: int) -> dict[str, object]:
    root = await client.get(kinds.CONFIG_MAPS, "istio-ca-root-cert", "ambit-system")
    credentials = grpc.ssl_channel_credentials(root["data"]["root-cert.pem"].encode())
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.secure_channel(f"localhost:{port}", credentials, options) for _ in range(nodes)]
    agents = [Agent(channel, token, number) for number, channel in enumerate(channels)]
    begin = time.perf_counter()
    tasks = [asyncio.create_task(agent.run()) for agent in agents]
    await asyncio.gather(*(agent.changed.wait() for agent in agents))
    joined = time.perf_counter() - begin
    times = []
    for number in range(changes):
        for agent in agents:
            agent.changed.clear()
        await ready(client, "web-0", is_ready=number % 2 == 0)
        written = time.perf_counter()
        await asyncio.gather(*(agent.changed.wait() for agent in agents))
        times.append(1000 * (max(agent.seen for agent in agents) - written))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for channel in channels:
        await channel.close()
    times.sort()
    return {
        "nodes": nodes,
        "all_joined_s": joined,
        "median_ms": statistics.median(times),
        "p99_ms": times[min(len(times) - 1, int(len(times) * 0.99))],
        "max_ms": times[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=100)
    given = parser.parse_args()
    result = asyncio.run(measure(given.nodes, given.pods, given.changes))
    rounded = {key: round(value, 2) if isinstance(value, float) else value for key, value in result.items()}
    print(json.dumps({"pods": given.pods} | rounded))


if __name__ == "__main__":
    main()
