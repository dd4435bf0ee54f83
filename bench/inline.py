"""What a waypoint costs a request: in pods of its own, inline, and beside a chain of plain Envoys, in turns.

Client and server are on two nodes; the waypoint in pods, and the chain's middle, are wherever there is room: the nodes
are one machine.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ambit.kube.resource import CONFIG_MAPS, GATEWAYS, SERVICES
from bench import chain
from bench.datapath.samples import processor_seconds
from bench.harness import Number, Options, summary
from bench.instance import Instance, instance, until
from bench.servers import HTTP_PORT, http_server

NAMESPACE, CHAIN = "bench", "bench-chain"
LOADER = Path(__file__).with_name("load.py")
CLASSES = {"dedicated": "ambit-waypoint", "inline": "ambit-inline"}
USED = "used_us"
PEER = "plain Envoys"
LOADS = {"1 connection": 1, "16 connections": 16}


async def measure(options: Options) -> list[Number]:
    """Requests per second on connections that are kept, what half of the requests wait at most, and the time of all
    proxies."""
    seconds, rounds = (0.3, 1) if options.quick else (options.seconds, options.rounds)
    async with instance() as mesh:
        hosts = await _start(mesh)
        hosts[PEER] = await _chain(mesh)
        own = _envoys(mesh, lambda command: "--config-yaml" not in command)
        peers = _envoys(mesh, lambda command: '"id": "chain"' in command)
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(rounds):
            for name, host in hosts.items():
                for load, connections in LOADS.items():
                    proxies = peers if name == PEER else own
                    before = processor_seconds(proxies)
                    said = await _load(mesh, name, host, connections, seconds)
                    used = 1e6 * (processor_seconds(proxies) - before) / (said["rate"] * seconds)
                    found.setdefault((load, name), []).append({**said, USED: used})
    numbers = []
    for load in LOADS:
        rates = {name: [each["rate"] for each in found[load, name]] for name in hosts}
        waits = {name: [each["p50_us"] for each in found[load, name]] for name in hosts}
        uses = {name: [each[USED] for each in found[load, name]] for name in hosts}
        numbers += [summary(f"{name}, {load}", each, "requests/s") for name, each in rates.items()]
        numbers += [summary(f"{name}, {load}, p50", each, "µs") for name, each in waits.items()]
        numbers += [summary(f"{name}, {load}, proxies", each, "µs/request") for name, each in uses.items()]
        numbers += _beside_the_peer(load, found)
        more = [here / there for here, there in zip(rates["inline"], rates["dedicated"], strict=True)]
        numbers.append(summary(f"inline over dedicated, {load}", more, "x", 1.6, at_most=False))
        added = [
            (inline - none) / (dedicated - none)
            for inline, dedicated, none in zip(
                waits["inline"], waits["dedicated"], waits["no waypoint"], strict=True
            )
        ]
        numbers.append(summary(f"added to p50, of dedicated's, {load}", added, "x", 0.6))
    return numbers


def _beside_the_peer(load: str, found: dict[tuple[str, str], list[dict[str, float]]]) -> list[Number]:
    """The waypoint in pods over the chain, round by round."""
    pairs = list(zip(found[load, "dedicated"], found[load, PEER], strict=True))
    rates = [own["rate"] / peer["rate"] for own, peer in pairs]
    slowest = [own["p99_us"] / peer["p99_us"] for own, peer in pairs]
    return [
        summary(f"dedicated over {PEER}, {load}", rates, "x", 0.95, at_most=False),
        summary(f"p99, dedicated over {PEER}, {load}", slowest, "x", 1.05),
    ]


def _envoys(mesh: Instance, is_meant: Callable[[str], bool]) -> list[int]:
    """Processes of every such Envoy by its command line: the server is one as well, and the chain's are."""
    return [
        each.pid
        for each in mesh.processes()
        if "/envoy" in each.command.partition(" ")[0] and is_meant(each.command)
    ]


async def _start(mesh: Instance) -> dict[str, str]:
    """A client, a server on another node, and the addresses of its Services by their waypoints."""
    await mesh.namespace(NAMESPACE, enrolled=True)
    await _script(mesh, NAMESPACE)
    await mesh.pod(NAMESPACE, "client", "node1", {"client": ["sleep", "infinity"]}, "script")
    await mesh.pod(NAMESPACE, "server", "node2", {"http": http_server()}, "script")
    for pod in ("client", "server"):
        await mesh.address(NAMESPACE, pod)
    hosts = {"no waypoint": await _service(mesh, "none", {})}
    for name, of_class in CLASSES.items():
        listener = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
        spec = {"gatewayClassName": of_class, "listeners": [listener]}
        await mesh.client.create(GATEWAYS, {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
        hosts[name] = await _service(mesh, name, {"istio.io/use-waypoint": name})
    for host in hosts.values():

        async def answers(host: str = host) -> bool:
            return (await _load(mesh, "", host, 1, 0.1))["errors"] == 0

        await until(f"{host} answers", answers)
    return hosts


async def _chain(mesh: Instance) -> str:
    """The same client and server outside of the mesh, with plain Envoys between; where the client finds them."""
    await mesh.namespace(CHAIN, enrolled=False)
    await _script(mesh, CHAIN)
    to_waypoint, within, to_server = chain.identities()
    await mesh.pod(
        CHAIN, "server", "node2", {"http": http_server(), "proxy": chain.server(to_server)}, "script"
    )
    server = await mesh.address(CHAIN, "server")
    await mesh.pod(CHAIN, "waypoint", "node1", {"proxy": chain.waypoint(within, server)}, "script")
    waypoint = await mesh.address(CHAIN, "waypoint")
    containers = {"client": ["sleep", "infinity"], "proxy": chain.client(to_waypoint, waypoint)}
    await mesh.pod(CHAIN, "client", "node1", containers, "script")
    await mesh.address(CHAIN, "client")

    async def answers() -> bool:
        return (await _load(mesh, PEER, "127.0.0.1", 1, 0.1))["errors"] == 0

    await until("the chain answers", answers)
    return "127.0.0.1"


async def _script(mesh: Instance, namespace: str) -> None:
    script = {
        "metadata": {"name": "script", "namespace": namespace},
        "data": {"load.py": LOADER.read_text()},
    }
    await mesh.client.create(CONFIG_MAPS, script)


async def _service(mesh: Instance, name: str, labels: dict[str, str]) -> str:
    made: dict[str, Any] = await mesh.client.create(
        SERVICES,
        {
            "metadata": {"name": f"behind-{name}", "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "selector": {"app": "server"},
                "ports": [{"name": "http", "port": 80, "targetPort": HTTP_PORT}],
            },
        },
    )
    return str(made["spec"]["clusterIP"])


async def _load(mesh: Instance, name: str, host: str, connections: int, seconds: float) -> dict[str, float]:
    namespace, port = (CHAIN, chain.ENTRY) if name == PEER else (NAMESPACE, 80)
    words = ("python3", "/bench/load.py", "requests", host, str(port), str(connections), str(seconds), "keep")
    said = await mesh.run(namespace, "client", *words, container="client")
    found: dict[str, float] = json.loads(said)
    return found
