"""Logs, exec and connections of running pods: `ambit.local.streams.PodStreams` for the API server."""

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable

from ambit.core.errors import AmbitError
from ambit.local.layout import StateDirectory
from ambit.local.pods import logs
from ambit.local.pods.execute import Session
from ambit.local.pods.status import Slot
from ambit.local.pods.worker import PodWorker
from ambit.local.streams import ExecSession, LogOptions
from ambit.node.netns.enter import in_namespace

PATIENCE = 10.0
"""Seconds that a question waits for a restarted runner to know its pods again."""


class Streams:
    """`find` gives the worker of a pod by namespace and name, or None; it may wait for a restarted runner."""

    def __init__(
        self, state: StateDirectory, find: Callable[[str, str], Awaitable[PodWorker | None]]
    ) -> None:
        self._state = state
        self._find = find

    async def read_log(
        self, namespace: str, pod: str, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        worker, slot = await self._slot(namespace, pod, container)
        directory = self._state.pod_logs(namespace, pod, worker.pod["metadata"]["uid"]) / slot.name
        found = logs.attempts(directory)
        wanted = slot.restarts - 1 if options.previous else slot.restarts
        path = next((item for item in found if int(item.stem) == wanted), None)
        if path is None and options.previous:
            raise LookupError(f'previous terminated container "{slot.name}" in pod "{pod}" not found')
        if path is None:
            reason = slot.waiting[0] if slot.waiting else "ContainerCreating"
            raise LookupError(f'container "{slot.name}" in pod "{pod}" is waiting to start: {reason}')

        def is_running() -> bool:
            return not options.previous and slot.running and slot.restarts == wanted

        async for line in logs.read(path, options, is_running):
            yield line

    async def exec(
        self, namespace: str, pod: str, container: str, command: list[str], *, stdin: bool, tty: bool
    ) -> ExecSession:
        worker, slot = await self._slot(namespace, pod, container)
        if worker.containers is None or not slot.running:
            raise LookupError(f'container "{slot.name}" in pod "{pod}" does not run')
        session = Session()
        try:
            process = await worker.containers.process_in(worker.pod, slot.name, command)
            if tty:
                process["environment"] = {"TERM": "xterm", **process["environment"]}
            await session.start(worker.containers.shim, slot.name, process, stdin=stdin, tty=tty)
        except AmbitError as problem:
            raise LookupError(
                f"cannot run {command[0] if command else 'nothing'}: {problem.message}"
            ) from problem
        return session

    async def dial(self, namespace: str, pod: str, port: int) -> tuple[StreamReader, StreamWriter]:
        worker = await self._worker(namespace, pod)
        if worker is None or worker.place.network is None or worker.place.shim is None:
            raise LookupError(f'pod "{pod}" does not run')

        def make(family: socket.AddressFamily) -> socket.socket:
            return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

        problem: OSError | None = None
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            connection = await asyncio.to_thread(
                in_namespace, worker.place.network.netns, lambda f=family: make(f)
            )
            try:
                await asyncio.get_running_loop().sock_connect(connection, (host, port))
            except OSError as error:
                connection.close()
                problem = error
            else:
                return await asyncio.open_connection(sock=connection)
        raise LookupError(f"failed to connect to localhost:{port} inside pod {pod}: {problem}")

    async def _worker(self, namespace: str, pod: str) -> PodWorker | None:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._find(namespace, pod)
        except TimeoutError:
            raise LookupError(
                f'pod "{pod}" has not been taken over by the restarted pod runner yet'
            ) from None

    async def _slot(self, namespace: str, pod: str, container: str) -> tuple[PodWorker, Slot]:
        worker = await self._worker(namespace, pod)
        if worker is None:
            raise LookupError(f'pod "{pod}" does not run on this cluster\'s nodes')
        if not container:
            return worker, next(slot for slot in worker.slots if slot.kind == "main")
        for slot in worker.slots:
            if slot.name == container:
                return worker, slot
        raise LookupError(f"container {container} is not valid for pod {pod}")
