"""Starts the agent of this process and ends it on a signal."""

import asyncio
import os
import signal
import sys

# grpc reads its environment when it is imported: the agent starts helpers, and grpc's log is not for users.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from ambit.core.errors import first_failure
from ambit.kube.client import Client
from ambit.node.flows.access_line import access_line
from ambit.node.flows.record import Flow
from ambit.node.process import NodeAgent, locality
from ambit.node.serve.endpoints import Endpoints
from ambit.node.settings import AgentSettings

_FLUSH = 0.2
"""Seconds an access-log line may wait for others."""


async def main(settings: AgentSettings) -> None:
    """Runs until SIGTERM or SIGINT. Raises AmbitError when it cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    client = (
        Client.from_kubeconfig(settings.kubeconfig, settings.context)
        if settings.kubeconfig is not None
        else Client.in_cluster()
    )
    async with client:
        log = _AccessLog()
        line = log if settings.access_log else _ignore
        agent = NodeAgent(settings, client, await locality(client, settings.node), line)
        try:
            await agent.run(stop, Endpoints(agent).run())
        except BaseExceptionGroup as several:
            raise first_failure(several) from several
        finally:
            log.flush()


class _AccessLog:
    """Lines on standard output, written together: at thousands of connections a second each write counts.
    (The agent's own log goes to standard error.)"""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __call__(self, record: Flow) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(_FLUSH, self.flush)
        self._lines.append(access_line(record))

    def flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()


def _ignore(record: Flow) -> None:
    """No access log."""
