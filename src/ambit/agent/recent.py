"""The newest records in memory, who waits for more, and the answer to `/flows`."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Generic, Protocol, TypeVar

import msgspec

from ambit.agent.flow_choice import flow_choice
from ambit.agent.record import Flow
from ambit.daemon.http import Request, Response

_FOLLOWER = 1_000
"""Records a slow follower may lag behind before it misses some."""
_LINES = "application/x-ndjson"


class Kept(Protocol):
    """What is kept of a connection or request until somebody asks."""

    def records(self) -> Iterable[Flow]:
        """Its complete records, oldest first."""


AnyKept = TypeVar("AnyKept", bound=Kept)


class Recent(Generic[AnyKept]):
    """At most so many."""

    def __init__(self, most: int) -> None:
        self._kept: deque[AnyKept] = deque(maxlen=most)
        self._followers: list[asyncio.Queue[Flow]] = []

    def keep(self, kept: AnyKept) -> None:
        self._kept.append(kept)
        self.tell(kept)

    def tell(self, kept: Kept, *, most: int = _FOLLOWER) -> None:
        """To followers that have fewer than `most` before them."""
        if self._followers:
            for record in kept.records():
                for queue in self._followers:
                    if queue.qsize() < most:
                        queue.put_nowait(record)

    @contextmanager
    def follow(self) -> Iterator[asyncio.Queue[Flow]]:
        """Records from now on."""
        queue: asyncio.Queue[Flow] = asyncio.Queue(_FOLLOWER)
        self._followers.append(queue)
        try:
            yield queue
        finally:
            self._followers.remove(queue)

    def newest(self) -> Iterator[Flow]:
        """Records that are kept, newest first."""
        for kept in reversed(self._kept):
            yield from reversed(tuple(kept.records()))

    def answer(self, request: Request) -> Response:
        """The newest records as JSON lines (`?limit=N`), and those to come with `?follow=1`.

        What `ambit.agent.flow_choice` chooses, before the limit counts.
        """
        try:
            is_wanted = flow_choice(request.query)
            limit = int(request.query.get("limit") or sys.maxsize)
        except ValueError as problem:
            return Response(f"{problem}\n".encode(), 400)
        follow = request.query.get("follow") in {"1", "true"}

        async def stream() -> AsyncGenerator[bytes, None]:
            with self.follow() as to_come:
                recent = list(islice(filter(is_wanted, self.newest()), max(limit, 0)))
                for record in reversed(recent):
                    yield _line(record)
                while follow:
                    record = await to_come.get()
                    if is_wanted(record):
                        yield _line(record)

        return Response(content_type=_LINES, stream=stream())


def _line(record: Flow) -> bytes:
    return msgspec.json.encode(record) + b"\n"
