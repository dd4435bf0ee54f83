"""Starts the control plane of this process and ends it on a signal."""

import asyncio
import gc
import os
import signal
from pathlib import Path

# grpc reads its environment when it is imported: this process never forks, and its log is not for users.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from ambit.control.process import ControlPlane
from ambit.control.settings import Settings
from ambit.daemon.memory import keep_thresholds
from ambit.kube.client import Client

COLLECTOR = (50_000, 20, 100)
"""Thresholds of Python's garbage collector. Nearly all that is loaded is kept, and with its usual thresholds the
collector takes a third of the time of a start to look at it again and again."""


async def main(settings: Settings, kubeconfig: Path | None, context: str | None) -> None:
    """Run until SIGTERM or SIGINT. Raises AmbitError when it cannot start."""
    gc.set_threshold(*COLLECTOR)
    keep_thresholds()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    client = Client.from_kubeconfig(kubeconfig, context) if kubeconfig is not None else Client.in_cluster()
    async with client:
        await ControlPlane(client, settings).run(stop)
