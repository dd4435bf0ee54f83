"""What an enrolled pod waits for: its first connection to a destination, and an answer from DNS."""

import json
from pathlib import Path

from ambit.kube.resource import CONFIG_MAPS, SERVICES
from bench.harness import Number, Options, percentile
from bench.instance import Instance, instance, until
from bench.servers import HTTP_PORT, http_server

NAMESPACE = "bench"
SERVICES_IN_ALL = 10
PORTS_EACH = 20
QUESTIONS = 2000
LOADER = Path(__file__).with_name("load.py")


async def measure(options: Options) -> list[Number]:
    """Every port of every Service is a destination of its own that nobody has used before."""
    async with instance() as mesh:
        await mesh.namespace(NAMESPACE, enrolled=True)
        await mesh.client.create(
            CONFIG_MAPS,
            {"metadata": {"name": "script", "namespace": NAMESPACE}, "data": {"load.py": LOADER.read_text()}},
        )
        await mesh.pod(NAMESPACE, "client", "node1", {"client": ["sleep", "infinity"]}, "script")
        for node in ("node1", "node2"):
            await mesh.pod(NAMESPACE, f"server-{node}", node, {"http": http_server()}, "script")
        for pod in ("client", "server-node1", "server-node2"):
            await mesh.address(NAMESPACE, pod)
        near = await _destinations(mesh, "near", "server-node1")
        far = await _destinations(mesh, "far", "server-node2")
        numbers = []
        for where, targets in (("across nodes", far), ("same node", near)):
            first = await _connect(mesh, targets)
            again = await _connect(mesh, targets)
            numbers += [
                Number(
                    f"first connection, {where}, p99",
                    percentile(first, 0.99),
                    "ms",
                    10.0,
                    low=min(first),
                    high=max(first),
                ),
                Number(f"first connection, {where}, p50", percentile(first, 0.5), "ms"),
                Number(f"second connection, {where}, p99", percentile(again, 0.99), "ms"),
                Number(f"second connection, {where}, p50", percentile(again, 0.5), "ms"),
            ]
        service = f"far-0.{NAMESPACE}.svc.cluster.local"
        asked = await _load(mesh, "dns", service, str(QUESTIONS // 10 if options.quick else QUESTIONS))
        return [
            *numbers,
            Number("DNS answer, p50", percentile(asked, 0.5), "ms", 1.0),
            Number("DNS answer, p99", percentile(asked, 0.99), "ms"),
        ]


async def _destinations(mesh: Instance, prefix: str, server: str) -> list[str]:
    ports = [{"name": f"p{n}", "port": 9000 + n, "targetPort": HTTP_PORT} for n in range(PORTS_EACH)]
    targets = []
    for number in range(SERVICES_IN_ALL):
        made = await mesh.client.create(
            SERVICES,
            {
                "metadata": {"name": f"{prefix}-{number}", "namespace": NAMESPACE},
                "spec": {"selector": {"app": server}, "ports": ports},
            },
        )
        address = made["spec"]["clusterIP"]
        targets += [f"{address}:{port['port']}" for port in ports]

    async def known() -> bool:
        """The last port of the last Service answers; it is no longer new then, and left out."""
        try:
            return bool(await _connect(mesh, targets[-1:]))
        except RuntimeError:
            return False

    await until("the Services are known to the node", known)
    return targets[:-1]


async def _connect(mesh: Instance, targets: list[str]) -> list[float]:
    return await _load(mesh, "first", *targets)


async def _load(mesh: Instance, *words: str) -> list[float]:
    """Milliseconds."""
    said = await mesh.run(NAMESPACE, "client", "python3", "/bench/load.py", *words)
    return [1000 * each for each in json.loads(said)["seconds"]]
