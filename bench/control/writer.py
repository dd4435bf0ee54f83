"""Who changes objects, as a process of its own, so that its times are not held up by who measures.

    python -m bench.control.writer API_SOCKET

Reads orders as JSON lines, and answers each with when each write was begun and answered (seconds of `time.monotonic`).
"""

import asyncio
import sys
import time

import msgspec

from ambit.kube import resource as kinds
from ambit.kube.client import Client, Patch

LABEL = "service.istio.io/canonical-revision"


class Order(msgspec.Struct, frozen=True):
    """Give each of these pods this value of a label. `per_second` 0 means as fast as can be, `at_once` at a time."""

    pods: list[tuple[str, str]]
    value: str
    per_second: float = 0.0
    at_once: int = 32


class Write(msgspec.Struct, frozen=True):
    namespace: str
    name: str
    begun: float
    answered: float


class Writer:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def carry_out(self, order: Order) -> list[Write]:
        began = time.monotonic()
        turns = asyncio.Semaphore(order.at_once)

        async def write(number: int, namespace: str, name: str) -> Write:
            if order.per_second:
                await asyncio.sleep(max(0.0, began + number / order.per_second - time.monotonic()))
            async with turns:
                begun = time.monotonic()
                patch = {"metadata": {"labels": {LABEL: order.value}}}
                await self._client.patch(kinds.PODS, name, patch, namespace, kind=Patch.MERGE)
                return Write(namespace, name, begun, time.monotonic())

        return await asyncio.gather(*(write(number, *pod) for number, pod in enumerate(order.pods)))


async def main(path: str) -> None:
    loop = asyncio.get_running_loop()
    async with Client.over_unix(path) as client:
        writer = Writer(client)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            writes = await writer.carry_out(msgspec.json.decode(line, type=Order))
            print(msgspec.json.encode(writes).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
