"""Probes and HTTP hooks, sent as kubelet sends them: from the node's network, with the probe source address.

Source: kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes. gRPC probes are answered
with a failure that says so.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from ambit.core.names import PROBE_ADDRESS_V4, PROBE_ADDRESS_V6, PROBE_MARK
from ambit.node.netns.enter import in_namespace

_LONGEST_HEAD = 64 * 1024
_EAGER = 0.05
_GROWTH = 1.3
"""First pause of an eager probe in seconds, and how it grows up to the period."""


class Target(msgspec.Struct, frozen=True):
    """Where a pod's probes go and whence they come."""

    address: str
    node_netns: Path
    host_network: bool


class Probe(msgspec.Struct, frozen=True, rename="camel"):
    """Timing of a Kubernetes Probe, in seconds."""

    initial_delay_seconds: float | None = None
    period_seconds: float | None = None
    timeout_seconds: float | None = None
    success_threshold: int | None = None
    failure_threshold: int | None = None


Outcome: TypeAlias = tuple[bool, str]
Check: TypeAlias = Callable[[], Awaitable[Outcome]]


async def repeat(
    probe: Probe, check: Check, tell: Callable[[bool, str], bool], *, eager: bool = False
) -> None:
    """Probe until `tell` says stop. `tell` gets a verdict once a threshold is reached, and the last text.

    `eager` looks more often than the period says until the first success: a laptop's user waits for it.
    """
    await asyncio.sleep(probe.initial_delay_seconds or 0)
    period = probe.period_seconds or 10
    wanted = {True: probe.success_threshold or 1, False: probe.failure_threshold or 3}
    last: bool | None = None
    count = 0
    pause = _EAGER if eager else period
    while True:
        try:
            async with asyncio.timeout(probe.timeout_seconds or 1):
                outcome, text = await check()
        except TimeoutError:
            outcome, text = False, f"no answer within {probe.timeout_seconds or 1} s"
        count = count + 1 if outcome == last else 1
        last = outcome
        if count >= wanted[outcome] and tell(outcome, text):
            return
        if outcome:
            pause = period
        await asyncio.sleep(min(pause, period))
        pause *= _GROWTH


async def tcp(target: Target, host: str, port: int) -> Outcome:
    """A connection that is accepted."""
    try:
        connection = await _connect(target, host, port)
    except OSError as problem:
        return False, f"dial tcp {host}:{port}: {_reason(problem)}"
    connection.close()
    return True, ""


async def http(target: Target, action: Mapping[str, Any], port: int) -> Outcome:
    """A status from 200 to 399."""
    host = action.get("host") or target.address
    path = action.get("path") or "/"
    path = path if path.startswith("/") else "/" + path
    secure = (action.get("scheme") or "HTTP").upper() == "HTTPS"
    bracketed = f"[{host}]" if ":" in host else host
    headers = {"Host": f"{bracketed}:{port}", "User-Agent": "kube-probe/1.34", "Accept": "*/*"}
    headers |= {item["name"]: item.get("value", "") for item in action.get("httpHeaders") or ()}
    url = f"{'https' if secure else 'http'}://{bracketed}:{port}{path}"
    try:
        connection = await _connect(target, host, port)
        status = await _exchange(connection, path, headers, _unverified() if secure else None)
    except (OSError, ValueError, asyncio.IncompleteReadError) as problem:
        return False, f'Get "{url}": {_reason(problem)}'
    return 200 <= status < 400, f"HTTP probe failed with statuscode: {status}"


async def _exchange(
    connection: socket.socket, path: str, headers: Mapping[str, str], context: ssl.SSLContext | None
) -> int:
    reader, writer = await asyncio.open_connection(
        sock=connection, ssl=context, server_hostname="" if context else None, limit=_LONGEST_HEAD
    )
    try:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
        line = await reader.readline()
        parts = line.split()
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/"):
            raise ValueError(f"malformed HTTP response {line[:64]!r}")
        return int(parts[1])
    finally:
        writer.close()


async def _connect(target: Target, host: str, port: int) -> socket.socket:
    version6 = ":" in host
    local = host.startswith("127.") or host in {"::1", "localhost"}
    source = None
    if not target.host_network and not local:
        source = PROBE_ADDRESS_V6 if version6 else PROBE_ADDRESS_V4

    def make() -> socket.socket:
        connection = socket.socket(socket.AF_INET6 if version6 else socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        if source is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROBE_MARK)
        return connection

    connection = await asyncio.to_thread(in_namespace, target.node_netns, make)
    try:
        if source is not None:
            connection.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(connection, (host, port))
    except BaseException:
        connection.close()
        raise
    return connection


def _reason(problem: Exception) -> str:
    """asyncio words a refused connection its own way; people know the kernel's words."""
    if isinstance(problem, OSError) and problem.errno:
        return os.strerror(problem.errno).lower()
    return str(problem)


def _unverified() -> ssl.SSLContext:
    """Kubelet does not verify the server of an HTTPS probe either."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
