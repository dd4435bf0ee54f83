"""What pods sent and received by UDP beside the mesh, which never touches it (DNS excepted, which it answers)."""

import asyncio
from collections.abc import Iterable

import msgspec

from ambit.node.capture.ruleset import TABLE, UDP_RECEIVED, UDP_SENT
from ambit.node.netns import counters
from ambit.node.netns.counters import Count
from ambit.plan.values import LocalPod


class Udp(msgspec.Struct, frozen=True):
    """Since the pod was enrolled."""

    sent: Count = Count()
    received: Count = Count()


async def udp_of(pods: Iterable[LocalPod]) -> dict[str, Udp]:
    """By key of the pod; without pods whose namespace is just going."""
    return await asyncio.to_thread(_read, tuple(pods))


def _read(pods: tuple[LocalPod, ...]) -> dict[str, Udp]:
    found: dict[str, Udp] = {}
    for pod in pods:
        try:
            values = counters.read(pod.netns, TABLE)
        except OSError:
            continue
        found[pod.key] = Udp(values.get(UDP_SENT, Count()), values.get(UDP_RECEIVED, Count()))
    return found
