"""The pod runner's side of the node agent's CNI socket (docs/design.md section 14)."""

import asyncio
import json
from pathlib import Path
from typing import Literal

from ambit.core.errors import AmbitError, Unreachable
from ambit.local.fabric.interface import PodNetwork

TIMEOUT = 30.0
"""Seconds to wait for one answer; the agent answers `add` only after Envoy acknowledged."""


async def call(
    run_directory: Path,
    command: Literal["add", "del", "leave"],
    namespace: str,
    name: str,
    uid: str,
    network: PodNetwork,
    timeout: float = TIMEOUT,
) -> None:
    """Ask a node agent. Raises Unreachable when it is not there or `timeout` seconds are over, AmbitError when it
    refuses."""
    message = {
        "command": command,
        "namespace": namespace,
        "name": name,
        "uid": uid,
        "sandbox": network.sandbox,
        "netns": str(network.netns),
        "ips": [str(address) for address in network.addresses],
    }
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(str(run_directory / "cni.sock"))
            try:
                writer.write(json.dumps(message).encode() + b"\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        raise Unreachable("the node agent did not answer in time") from None
    except OSError as problem:
        raise Unreachable(f"the node agent is not there: {problem.strerror or problem}") from problem
    if not line:
        raise Unreachable("the node agent closed the connection without an answer")
    try:
        answer = json.loads(line)
    except ValueError as problem:
        raise AmbitError("the node agent's answer is no JSON") from problem
    if not answer.get("ok"):
        raise AmbitError(f"the node agent refused: {answer.get('error', 'no reason given')}")
