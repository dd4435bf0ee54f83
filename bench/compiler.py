"""The compiler at full size, in a process of its own so that its memory is its own."""

import asyncio
import json
import sys
from typing import Any

from bench.harness import Number, Options
from bench.instance import repository

PODS = 100_000
FEWER_PODS = 10_000


async def measure(options: Options) -> list[Number]:
    """The targets are those of the design's section 12, for 100,000 pods."""
    pods = FEWER_PODS if options.quick else PODS
    found = await script("bench.compile", "--pods", str(pods))
    one = found["one pod"]
    return [
        Number("decode and compile all from cold", found["decode_s"] + found["compile_s"], "s", 30.0),
        Number("one pod changed, p99", one["p99_ms"], "ms", 100.0),
        Number("one service of 20 pods changed, p99", found["one service of 20 pods"]["p99_ms"], "ms"),
        Number("one policy changed, p99", found["one policy"]["p99_ms"], "ms"),
        Number("memory, RSS", found["rss_mb"], "MiB", 2048.0),
    ]


async def script(module: str, *words: str) -> Any:
    """The JSON that `python -m module` printed. Raises RuntimeError when it failed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *words), cwd=repository(), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{module} ended with {process.returncode}")
    return json.loads(output)
