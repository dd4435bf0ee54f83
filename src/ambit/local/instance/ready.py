"""Waiting until an instance is ready: API server, nodes, control plane, node proxies."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ambit.core.errors import AmbitError, EnvironmentProblem
from ambit.core.names import SYSTEM_NAMESPACE
from ambit.kube.client import Client
from ambit.kube.conditions import has_condition
from ambit.kube.resource import DAEMON_SETS, DEPLOYMENTS, NODES
from ambit.local.instance.preflight import free_space
from ambit.local.instance.record import InstanceRecord
from ambit.local.layout import StateDirectory

LOOK_AGAIN = 0.05
"""Seconds between two looks; the whole start takes only a few seconds."""
LAST_LINES = 5
LEAST_SPACE = 64 << 10
"""Bytes without which the database cannot be written: whatever did not get ready, this is why."""


async def wait_ready(
    state: StateDirectory, record: InstanceRecord, timeout: float, done: Callable[[str], None]
) -> None:
    """Call `done(part)` as each part gets ready. Raises EnvironmentProblem with the log's end when one does not."""
    deadline = time.monotonic() + timeout
    await _until(lambda: _is_file(state), "API server", state, record, deadline)
    async with Client.from_kubeconfig(state.kubeconfig) as client:
        for part, condition in (
            ("API server", lambda: _api_ready(client)),
            ("nodes", lambda: _nodes_ready(client, record.nodes)),
            ("control plane", lambda: _control_ready(client)),
            ("node proxies", lambda: _proxies_ready(client, record.nodes)),
        ):
            await _until(condition, part, state, record, deadline)
            done(part)


async def _until(
    condition: Callable[[], Any], part: str, state: StateDirectory, record: InstanceRecord, deadline: float
) -> None:
    problem = ""
    while True:
        try:
            if await condition():
                return
        except AmbitError as error:
            problem = f": {error.message}"
        if state.root.exists() and free_space(state.root) < LEAST_SPACE:
            raise EnvironmentProblem(
                f"no space left on the disk that holds {state.root}",
                "free some, or set AMBIT_STATE to a directory on another disk",
            )
        if not record.is_running():
            raise EnvironmentProblem(f"the instance ended while it started{_log_end(state)}")
        if time.monotonic() > deadline:
            raise EnvironmentProblem(
                f"{part} did not get ready in time{problem}{_log_end(state)}",
                "give a slow machine more time with --timeout",
            )
        await asyncio.sleep(LOOK_AGAIN)


async def _is_file(state: StateDirectory) -> bool:
    return state.kubeconfig.exists()


async def _api_ready(client: Client) -> bool:
    await client.raw("GET", "/readyz")
    return True


async def _nodes_ready(client: Client, wanted: int) -> bool:
    nodes = await client.list(NODES)
    return len([node for node in nodes if has_condition(node, "Ready")]) >= wanted


async def _control_ready(client: Client) -> bool:
    deployment = await client.get(DEPLOYMENTS, "ambit-control", SYSTEM_NAMESPACE)
    return has_condition(deployment, "Available")


async def _proxies_ready(client: Client, wanted: int) -> bool:
    proxies = await client.get(DAEMON_SETS, "ambit-node", SYSTEM_NAMESPACE)
    return int(proxies.get("status", {}).get("numberReady", 0)) >= wanted


def _log_end(state: StateDirectory) -> str:
    """The last lines of the supervisor's and the cluster process's logs, for an error that must explain itself."""
    parts = []
    for name in ("supervisor", "cluster"):
        try:
            lines = (state.logs / f"{name}.log").read_text(errors="replace").splitlines()[-LAST_LINES:]
        except FileNotFoundError:
            continue
        parts += [f"\n  {name}.log: {line}" for line in lines]
    return "".join(parts)
