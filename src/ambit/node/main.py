"""Starts the agent of this process and ends it on a signal."""

import asyncio
import os
import signal
import sys

# grpc reads its environment when it is imported: the agent starts helpers, and grpc's log is not for users.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from ambit.agent.supervise.keeper import beat
from ambit.core.errors import first_failure
from ambit.daemon.memory import keep_thresholds
from ambit.kube.client import Client
from ambit.node.introduction import locality, service_ranges
from ambit.node.process import NodeAgent
from ambit.node.serve.endpoints import Endpoints
from ambit.node.settings import AgentSettings
from ambit.node.succession import HANDED_OVER


async def main(settings: AgentSettings) -> int:
    """Runs until SIGTERM or SIGINT, or until another agent takes its place; the exit status. Raises AmbitError when it
    cannot start."""
    keep_thresholds()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    beating = loop.create_task(beat())
    client = (
        Client.from_kubeconfig(settings.kubeconfig, settings.context)
        if settings.kubeconfig is not None
        else Client.in_cluster()
    )
    async with client:
        place = await locality(client, settings.node)
        services = await service_ranges(client, settings.cluster_ranges)
        write = _write if settings.access_log else None
        agent = NodeAgent(
            settings, client, place, write, services, log_as_json=settings.log_as_json, printed=_write
        )
        try:
            await agent.run(stop, Endpoints(agent).run())
        except BaseExceptionGroup as several:
            raise first_failure(several) from several
        finally:
            beating.cancel()
        return HANDED_OVER if agent.succession.granted.is_set() else 0


def _write(lines: list[str]) -> None:
    """The access log is standard output. (The agent's own log goes to standard error.)"""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
