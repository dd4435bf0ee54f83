"""Runs one scenario inside fresh namespaces: `in_namespaces` is called by tests, `main` by the process it starts.

A scenario is an async function of a module; it asserts, and its exception is the test's failure. The process is
PID 1 of a PID namespace, so whatever it leaves behind dies with it.
"""

import asyncio
import importlib
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

MODES = [
    pytest.param("root", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")),
    pytest.param("user"),
]
_TIMEOUT = 280


def in_namespaces(scenario: str, directory: Path, mode: str) -> None:
    """`scenario` is `module:function`; mode `user` adds a user namespace with one user in it: no root needed."""
    flags = ["--user", "--map-root-user"] if mode == "user" else []
    unshare = [
        "unshare",
        *flags,
        "--mount",
        "--pid",
        "--ipc",
        "--net",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    done = subprocess.run(
        [*unshare, sys.executable, "-m", "tests.local.pods.inside", scenario, str(directory)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


def command(*argv: str) -> None:
    subprocess.run(argv, check=True)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Returns once `condition` holds; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - other processes set no Event of ours
            await asyncio.sleep(0.02)


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    scenario = getattr(importlib.import_module(module), name)
    command("mount", "-t", "tmpfs", "tmpfs", "/run")
    command("mount", "--make-shared", "/run")
    command("ip", "link", "set", "lo", "up")
    for name in ("netns", "sandboxes", "nodes/node1"):
        os.makedirs(f"/run/ambit/{name}", 0o700)
    asyncio.run(scenario(Path(sys.argv[2])))


if __name__ == "__main__":
    main()
