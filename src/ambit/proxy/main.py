"""Starts the agent of this process and ends it on a signal."""

import asyncio
import os
import signal

# grpc reads its environment when it is imported: the agent starts Envoy, and grpc's log is not for users.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from ambit.agent.supervise.keeper import beat
from ambit.daemon.memory import keep_thresholds
from ambit.proxy.process import ProxyAgent
from ambit.proxy.settings import ProxySettings


async def main(settings: ProxySettings) -> None:
    """Runs until SIGTERM or SIGINT. Raises AmbitError when it cannot work."""
    keep_thresholds()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    beating = loop.create_task(beat())
    try:
        await ProxyAgent(settings).run(stop)
    finally:
        beating.cancel()
