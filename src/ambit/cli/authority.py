"""What the control plane says of its authority, and what an operator should do about it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ambit.cli.mesh import CONTROL_PLANES, ask, system_pods
from ambit.core.errors import NotRunning
from ambit.core.names import CONTROL_DEBUG_PORT, SYSTEM_NAMESPACE
from ambit.kube.client import Client

AUTHORITY_NOTICE = 30 * 86_400
REVOCATION_NOTICE = 86_400
"""Seconds before an end from which on it is a problem."""


async def read_trust(client: Client) -> dict[str, Any]:
    """What the control plane says of its authority. Raises NotRunning."""
    for pod in await system_pods(client, CONTROL_PLANES):
        if pod.get("status", {}).get("phase") == "Running":
            status: dict[str, Any] = await ask(client, pod, "/debug/trust", CONTROL_DEBUG_PORT)
            return status
    raise NotRunning(f"no control plane runs in namespace {SYSTEM_NAMESPACE}", "type `ambit check`")


def problems(status: dict[str, Any], now: float) -> Iterator[str]:
    """What an operator should do something about, in what the control plane says of its authority. Pure."""
    if status["problem"]:
        yield f"the Secret {status['source']} cannot be followed: {status['problem']}"
    if not status["source"]:
        yield "the Secret of the authority is gone; the mesh goes on with what it had"
    ends = {"who signs": status["signerEnds"]}
    ends |= {f"root {each['serialNumber']}": each["ends"] for each in status["certificates"] if each["signs"]}
    for what, end in ends.items():
        if end - now < AUTHORITY_NOTICE:
            yield f"{what} ends at {datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC"
    end = status["revocationEnd"]
    if end is not None and end - now < REVOCATION_NOTICE:
        moment = f"{datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC"
        yield f"a revocation list ends at {moment}; everybody is refused after that"
