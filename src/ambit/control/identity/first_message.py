"""Reads the first message of a call whose caller is authenticated, at a bounded cost.

gRPC allocates a message as its bytes arrive, up to the limit of the server, which has to be that of the largest message
of any method. So pods that are no node agents send their messages one at a time per namespace, and have a few seconds.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import grpc

from ambit.ca.issuance import Caller
from ambit.control.identity.callers import Refused
from ambit.control.turns import FairSemaphore, Overloaded
from ambit.daemon.memory import give_back

AT_ONCE, WAITING_PER_NAMESPACE = 2, 32
"""Messages of pods that arrive at the same time, and calls of one namespace that wait to send theirs."""
SECONDS, AGENT_SECONDS = 2.0, 30.0
"""In which a message has to arrive: a pod's, and a node agent's, which may name every resource of the mesh."""


class FirstMessages:
    """`node_accounts` are namespaces and names of the node agents' service accounts."""

    def __init__(self, node_accounts: Collection[tuple[str, str]]) -> None:
        self._node_accounts = node_accounts
        self._places = FairSemaphore(AT_ONCE, 1, WAITING_PER_NAMESPACE)
        self.is_short: Callable[[], bool] = lambda: False
        """Whether the process has little memory left: then it serves node agents only."""

    async def read(self, caller: Caller, context: Any, most: int) -> bytes:
        """The serialised message of the call with this `grpc.aio.ServicerContext`. Raises Refused without one, for one
        of more than `most` bytes, after too long, and when too many calls wait."""
        if (caller.namespace, caller.service_account) in self._node_accounts:
            return await _next(caller, context, most, AGENT_SECONDS)
        if self.is_short():
            raise Refused(
                grpc.StatusCode.UNAVAILABLE, "the control plane is short of memory; try again later", caller
            )
        try:
            async with self._places.hold(caller.namespace):
                return await _next(caller, context, most, SECONDS)
        except Overloaded:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{WAITING_PER_NAMESPACE} calls of namespace {caller.namespace} wait already; try again later",
                caller,
            ) from None


async def _next(caller: Caller, context: Any, most: int, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            # The iterator of requests would keep the message until the garbage collector finds it.
            message: bytes | object = await context.read()
    except TimeoutError:
        raise Refused(
            grpc.StatusCode.DEADLINE_EXCEEDED, f"no message arrived within {seconds:.0f} s", caller
        ) from None
    if not isinstance(message, bytes):
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message", caller)
    if (length := len(message)) <= most:
        return message
    # The exception lives as long as the call, and must not keep the message.
    del message
    give_back()
    raise Refused(
        grpc.StatusCode.INVALID_ARGUMENT, f"the message has {length} bytes; {most} are allowed", caller
    )
