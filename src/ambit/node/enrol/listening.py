"""Whether the proxy's sockets in a pod's namespace accept connections.

An acknowledged listener may still wait for its certificate; only the kernel knows when it listens.
"""

import asyncio
from collections.abc import Collection
from pathlib import Path

from ambit.core.errors import EnvironmentProblem
from ambit.node.netns.enter import in_namespace

_LISTEN = "0A"
_INTERVAL = 0.01


def listening_ports(netns: str) -> frozenset[int]:
    """TCP ports with a listening socket, of either family. Blocks briefly. Raises OSError."""
    return in_namespace(Path(netns), lambda: frozenset(_listening()))


async def wait_listening(netns: str, ports: Collection[int]) -> None:
    """Returns when all ports are listened on. Raises EnvironmentProblem when the namespace is gone."""
    wanted = frozenset(ports)
    try:
        # The kernel tells nobody when a socket begins to listen.
        while not wanted <= await asyncio.to_thread(listening_ports, netns):  # noqa: ASYNC110
            await asyncio.sleep(_INTERVAL)
    except OSError as problem:
        raise EnvironmentProblem(f"network namespace {netns} is gone: {problem.strerror}") from problem


def _listening() -> list[int]:
    """Local ports of the TCP sockets that listen (proc_pid_net(5))."""
    found: list[int] = []
    for table in ("tcp", "tcp6"):
        try:
            text = Path(f"/proc/thread-self/net/{table}").read_text()
        except FileNotFoundError:
            continue
        for line in text.splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                found.append(int(fields[1].rpartition(":")[2], 16))
    return found
