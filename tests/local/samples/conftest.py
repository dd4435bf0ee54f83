"""Starts samples as processes, the way the pod runner does, on free ports of the loopback."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from ambit.local.pods.images import resolve

Start = Callable[..., None]


@pytest.fixture
def start() -> Iterator[Start]:
    """start(image, port, args, **environment): returns once the sample accepts connections."""
    running = []

    def run(image: str, port: int, args: list[str] | None = None, **environment: str) -> None:
        container = {"image": image, **({"args": args} if args else {})}
        argv, base = resolve(container, ())
        process = subprocess.Popen(argv, env={**os.environ, **base, **environment}, stdout=subprocess.DEVNULL)
        running.append(process)
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            assert process.poll() is None, "the sample ended"
            assert time.monotonic() < deadline, "the sample does not listen"
            time.sleep(0.02)

    yield run
    for process in running:
        process.terminate()
        assert process.wait(60) == 0
