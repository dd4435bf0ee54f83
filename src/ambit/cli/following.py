"""Records of all proxies as they come: also of those that start while somebody looks on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ambit.cli.mesh import Pod
from ambit.core.errors import AmbitError, Unreachable
from ambit.kube.conditions import has_condition

LOOK_AGAIN = 1.0
"""Seconds between looks at which proxies there are, and before one that broke off is asked again."""
PATIENCE = 30
"""So many looks in a row that do not reach the API server end it: one that starts again is back before."""
EVERYTHING = 1_000_000
Flow = dict[str, Any]
Look = Callable[[], Awaitable[list[Pod]]]
Read = Callable[[Pod, int], AsyncIterator[Flow]]
Tell = Callable[[str], None]


async def follow(look: Look, read: Read, show: Callable[[Flow], None], tell: Tell, last: int) -> None:
    """Until it is cancelled. `look` says which pods there are, `read` has the newest so many records of one, then those
    to come.

    Of the pods of the first look the newest `last` come first, of later ones all that they have. One that breaks off is
    asked again; what is wrong with it, or with a later look, is told once, and nothing of one that is about to end, or
    that has come and is not ready yet. Raises what the first look does, and Unreachable after `PATIENCE` looks in vain.
    """
    there = {_key(pod): pod for pod in await look()}
    tasks: dict[str, asyncio.Task[None]] = {}
    told = ""

    async def one(key: str, limit: int, *, is_new: bool) -> None:
        told = ""
        while (pod := there.get(key)) is not None:
            try:
                async for flow in read(pod, limit):
                    limit = 0  # what was shown is not asked for again
                    show(flow)
            except AmbitError as problem:
                pod = there.get(key, pod)
                is_starting = is_new and not has_condition(pod, "Ready")
                if problem.message != told and not is_starting and "deletionTimestamp" not in pod["metadata"]:
                    tell(f"{pod['metadata']['name']}: {problem.message}")
                    told = problem.message
            await asyncio.sleep(LOOK_AGAIN)

    async with asyncio.TaskGroup() as group:
        is_new = False
        failures = 0
        while True:
            for key in tasks.keys() - there.keys():
                tasks.pop(key).cancel()
            for key in there.keys() - tasks.keys():
                tasks[key] = group.create_task(one(key, EVERYTHING if is_new else last, is_new=is_new))
            is_new = True
            await asyncio.sleep(LOOK_AGAIN)
            try:
                found = await look()
            except AmbitError as problem:
                failures = failures + 1 if isinstance(problem, Unreachable) else 0
                if failures == PATIENCE:
                    raise
                if problem.message != told:
                    tell(problem.message)
                told = problem.message
                continue
            failures = 0
            there = {_key(pod): pod for pod in found}


def _key(pod: Pod) -> str:
    return str(pod["metadata"]["uid"])
