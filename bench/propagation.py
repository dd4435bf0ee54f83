"""How fast a change reaches every node, with API server, control plane and 50 streams on this machine."""

from bench.compiler import script
from bench.harness import Number, Options


async def measure(options: Options) -> list[Number]:
    """From the API server's answer to the writer until the last node has the change."""
    sizes = ("10", "200", "20") if options.quick else ("50", "1000", "100")
    found = await script("bench.push", "--nodes", sizes[0], "--pods", sizes[1], "--changes", sizes[2])
    return [
        Number(f"one pod changed, {sizes[0]} nodes, median", found["median_ms"], "ms"),
        Number(f"one pod changed, {sizes[0]} nodes, p99", found["p99_ms"], "ms", 100.0),
        Number("all nodes joined", found["all_joined_s"], "s"),
        Number("control plane, PSS", found["pss_mb"], "MiB"),
    ]
