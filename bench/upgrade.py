"""Every node's Envoy is replaced by a new one while others connect: who is refused, and who is cut."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from ambit.kube.resource import CONFIG_MAPS
from bench.harness import Number, Options
from bench.instance import Instance, ambit, instance

NAMESPACE, PORT = "bench", 9000
RUSH = Path(__file__).with_name("rush.py")
RATE, HELD = 2000, 200
CALM = 3.0
"""Seconds before the first upgrade, and after the last."""


async def measure(options: Options) -> list[Number]:
    """Across nodes, both of which are upgraded; nobody may be refused or cut."""
    rate, held = (RATE / 10, HELD // 10) if options.quick else (RATE, HELD)
    seconds = 12.0 if options.quick else 30.0
    async with instance() as mesh:
        address = await _start(mesh)
        words = ("python3", "/bench/rush.py", "rush", address, str(PORT), str(rate), str(held), str(seconds))
        await mesh.run(NAMESPACE, "client", *words[:5], "50", "1", "1")  # ways are known
        async with asyncio.TaskGroup() as group:
            rush = group.create_task(mesh.run(NAMESPACE, "client", *words))
            await asyncio.sleep(CALM)
            for node in ("node1", "node2"):
                await _restarted(mesh, node)
            is_within = not rush.done()
        found: dict[str, Any] = json.loads(rush.result())
    if not is_within:
        raise RuntimeError("the upgrades took longer than the rush: nothing is shown")
    return [
        Number(
            "new connections a second", found["opened"] / found["seconds"], "/s", 0.98 * rate, at_most=False
        ),
        Number(
            "connections refused",
            len(found["refused"]),
            f"of {found['opened']}",
            0.0,
            note=_why(found["refused"]),
        ),
        Number("open connections cut", len(found["cut"]), f"of {held}", 0.0, note=_why(found["cut"])),
        Number("slowest new connection", 1000 * found["slowest"], "ms"),
    ]


def _why(failures: list[tuple[float, str]]) -> str:
    return ", ".join(sorted({what for _, what in failures}))


async def _start(mesh: Instance) -> str:
    await mesh.namespace(NAMESPACE, enrolled=True)
    script = {"metadata": {"name": "script", "namespace": NAMESPACE}, "data": {"rush.py": RUSH.read_text()}}
    await mesh.client.create(CONFIG_MAPS, script)
    server = ["python3", "/bench/rush.py", "serve", str(PORT)]
    await mesh.pod(NAMESPACE, "server", "node2", {"server": server}, "script")
    await mesh.pod(NAMESPACE, "client", "node1", {"client": ["sleep", "infinity"]}, "script")
    await mesh.address(NAMESPACE, "client")
    return await mesh.address(NAMESPACE, "server")


async def _restarted(mesh: Instance, node: str) -> None:
    environment = {**os.environ, "AMBIT_STATE": str(mesh.state.root.parent)}
    await ambit(environment, "node", "restart", node, "--name", mesh.name)
