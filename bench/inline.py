"""What a waypoint costs a request: in pods of its own, and inline, between two nodes, in turns."""

import json
from pathlib import Path
from typing import Any

from ambit.kube.resource import CONFIG_MAPS, GATEWAYS, SERVICES
from bench.datapath.samples import processor_seconds
from bench.harness import Number, Options, summary
from bench.instance import Instance, instance, until
from bench.servers import HTTP_PORT, http_server

NAMESPACE = "bench"
LOADER = Path(__file__).with_name("load.py")
CLASSES = {"dedicated": "ambit-waypoint", "inline": "ambit-inline"}
USED = "used_us"
LOADS = {"1 connection": 1, "16 connections": 16}


async def measure(options: Options) -> list[Number]:
    """Requests per second on connections that are kept, what half of the requests wait at most, and the time of all
    proxies."""
    seconds, rounds = (0.3, 1) if options.quick else (options.seconds, options.rounds)
    async with instance() as mesh:
        hosts = await _start(mesh)
        proxies = _proxies(mesh)
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(rounds):
            for name, host in hosts.items():
                for load, connections in LOADS.items():
                    before = processor_seconds(proxies)
                    said = await _load(mesh, host, connections, seconds)
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


def _proxies(mesh: Instance) -> list[int]:
    """Processes of every Envoy of the mesh; the server is one as well, with its configuration on the command line."""
    return [
        each.pid
        for each in mesh.processes()
        if "/envoy" in each.command.partition(" ")[0] and "--config-yaml" not in each.command
    ]


async def _start(mesh: Instance) -> dict[str, str]:
    """A client, a server on another node, and the addresses of its Services by their waypoints."""
    await mesh.namespace(NAMESPACE, enrolled=True)
    script = {
        "metadata": {"name": "script", "namespace": NAMESPACE},
        "data": {"load.py": LOADER.read_text()},
    }
    await mesh.client.create(CONFIG_MAPS, script)
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
            return (await _load(mesh, host, 1, 0.1))["errors"] == 0

        await until(f"{host} answers", answers)
    return hosts


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


async def _load(mesh: Instance, host: str, connections: int, seconds: float) -> dict[str, float]:
    words = ("python3", "/bench/load.py", "requests", host, "80", str(connections), str(seconds), "keep")
    found: dict[str, float] = json.loads(await mesh.run(NAMESPACE, "client", *words))
    return found
