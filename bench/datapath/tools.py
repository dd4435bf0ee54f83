"""Load with the tools people know, wrk and iperf3, or with our own where they are not installed."""

import asyncio
import json
import os
import re
import shutil
import sys
from typing import Protocol

import msgspec

from bench.servers import BULK_PORT

INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends", "wrk", "iperf3")
OWN = ("python3", "/bench/load.py")
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


class Cluster(Protocol):
    """Where pods are."""

    async def run(self, namespace: str, pod: str, *words: str) -> str:
        """What a program in a pod printed. Raises RuntimeError when it failed."""


class Load(msgspec.Struct, frozen=True):
    """A way to make load; `bulk` tells the kind: bytes on some streams, or requests on some connections."""

    name: str
    bulk: bool
    width: int
    keep: bool = True


class Result(msgspec.Struct, frozen=True):
    """`rate` in Gbit/s or requests/s; latencies in microseconds; `amount` in gigabytes or requests."""

    rate: float
    amount: float
    p50: float = 0.0
    p99: float = 0.0


LOADS = (
    Load("throughput, 1 stream", True, 1),
    Load("throughput, 8 streams", True, 8),
    Load("keepalive requests/s, 1 connection", False, 1),
    Load("keepalive requests/s, 16 connections", False, 16),
    Load("new connections/s, 16 at a time", False, 16, keep=False),
)


async def known_tools() -> bool:
    """Whether wrk and iperf3 are there; installs them when that needs no password, else says what to type."""
    if _installed():
        return True
    if os.geteuid() == 0 and shutil.which("apt-get"):
        process = await asyncio.create_subprocess_exec(
            *INSTALL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await process.wait()
        if _installed():
            return True
    print(
        f"wrk and iperf3 are missing; measuring with our own. For them: sudo {' '.join(INSTALL)}",
        file=sys.stderr,
    )
    return False


def sink(known: bool) -> list[str]:
    """The server for bulk load."""
    return ["iperf3", "-s", "-p", str(BULK_PORT)] if known else [*OWN, "sink", str(BULK_PORT)]


async def run_load(
    cluster: Cluster, place: tuple[str, str], target: tuple[str, int], load: Load, seconds: float, known: bool
) -> Result:
    """Make load from the pod `place` (namespace, name) on `target`. Raises RuntimeError when requests fail."""
    host, port = target
    if load.bulk:
        if not known:
            words = [*OWN, "bulk", host, str(port), str(load.width), str(seconds)]
            gigabits = float(json.loads(await cluster.run(*place, *words))["gbps"])
            return Result(gigabits, gigabits * seconds / 8)
        words = ["iperf3", "-c", host, "-p", str(port), "-P", str(load.width), "-t", f"{seconds:g}", "-J"]
        received = json.loads(await cluster.run(*place, *words))["end"]["sum_received"]
        return Result(received["bits_per_second"] / 1e9, received["bytes"] / 1e9)
    if not known:
        mode = "keep" if load.keep else "close"
        words = [*OWN, "requests", host, str(port), str(load.width), str(seconds), mode]
        found = json.loads(await cluster.run(*place, *words))
        if found["errors"]:
            raise RuntimeError(f"{found['errors']} failed requests to {host}:{port}")
        return Result(found["rate"], found["rate"] * seconds, found["p50_us"], found["p99_us"])
    words = ["wrk", "-t1", f"-c{load.width}", f"-d{max(1, round(seconds))}s", "--latency"]
    words += ["-H", "Connection: close"] if not load.keep else []
    return _wrk(await cluster.run(*place, *words, f"http://{host}:{port}/"))


def _wrk(said: str) -> Result:
    if problem := re.search(r"Socket errors.*|Non-2xx.*", said):
        raise RuntimeError(f"wrk: {problem[0]}")
    latency = {}
    for share in ("50%", "99%"):
        found = re.search(rf"^\s+{share}\s+([\d.]+)(us|ms|s)$", said, re.MULTILINE)
        assert found, said
        latency[share] = float(found[1]) * _UNITS[found[2]]
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    amount = re.search(r"(\d+) requests in", said)
    assert rate and amount, said
    return Result(float(rate[1]), float(amount[1]), latency["50%"], latency["99%"])


def _installed() -> bool:
    return shutil.which("wrk") is not None and shutil.which("iperf3") is not None
