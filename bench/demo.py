"""`ambit demo --once`, as a newcomer runs it with everything installed."""

import os
import tempfile
import time

from bench.harness import Number, Options, summary
from bench.instance import ambit


async def measure(options: Options) -> list[Number]:
    """A demo whose claims do not all hold raises RuntimeError with what it printed."""
    times = []
    for _ in range(1 if options.quick else min(2, options.rounds)):
        with tempfile.TemporaryDirectory(prefix="ambit-", dir="/tmp") as root:
            started = time.monotonic()
            await ambit(
                {**os.environ, "AMBIT_STATE": root}, "demo", "--once", "--name", f"bench-{os.getpid()}"
            )
            times.append(time.monotonic() - started)
    return [summary("`ambit demo --once`, warm", times, "s", 60.0)]
