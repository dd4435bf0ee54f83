"""A laptop cluster as tests see it: the real command line, the real API, and waiting for conditions."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ambit.kube.client import Client
from ambit.local.layout import StateDirectory

PATIENCE = 60.0
LOOK_AGAIN = 0.1
Result = TypeVar("Result")


class Mesh:
    """One running instance. Every method that runs a program raises with its output when it fails."""

    def __init__(self, name: str, state_root: Path, kubectl_program: str | None) -> None:
        self.name = name
        self.environment = {**os.environ, "AMBIT_STATE": os.fspath(state_root)}
        self.state = StateDirectory.of(name, self.environment)
        self.kubectl_program = kubectl_program

    def ambit(
        self, *words: str, check: bool = True, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line against this instance (`--name` is added, before a `--`)."""
        end = words.index("--") if "--" in words else len(words)
        command = [sys.executable, "-m", "ambit", *words[:end], "--name", self.name, *words[end:]]
        return _run(command, self.environment, check=check, timeout=timeout)

    def kubectl(
        self, *words: str, check: bool = True, timeout: float = PATIENCE, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        assert self.kubectl_program is not None, "this test needs a kubectl program"
        command = [self.kubectl_program, f"--kubeconfig={self.state.kubeconfig}", *words]
        return _run(command, self.environment, check=check, timeout=timeout, stdin=stdin)

    def popen(self, *words: str, stdin: int | None = None) -> subprocess.Popen[str]:
        """Start a kubectl that goes on by itself; the caller ends it."""
        assert self.kubectl_program is not None, "this test needs a kubectl program"
        command = [self.kubectl_program, f"--kubeconfig={self.state.kubeconfig}", *words]
        return subprocess.Popen(command, env=self.environment, stdin=stdin, stdout=subprocess.PIPE, text=True)

    def client(self) -> Client:
        return Client.from_kubeconfig(self.state.kubeconfig)

    def call(self, work: Callable[[Client], Awaitable[Result]]) -> Result:
        """Run something asynchronous with a client of its own."""

        async def with_own() -> Result:
            async with self.client() as client:
                return await work(client)

        return asyncio.run(with_own())

    def apply(self, manifest: str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Apply objects: a file, YAML text, or values."""
        if isinstance(manifest, Path):
            text = manifest.read_text()
        elif isinstance(manifest, str):
            text = manifest
        else:
            text = yaml.safe_dump_all([manifest] if isinstance(manifest, Mapping) else list(manifest))
        self.kubectl("apply", "-f", "-", stdin=text)

    def dump(self, *words: str) -> Any:
        """What a command says with `-o json`."""
        return json.loads(self.ambit(*words, "-o", "json").stdout)

    def exec(
        self, namespace: str, target: str, *words: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a container: `target` is a pod, or `deploy/NAME`."""
        return self.kubectl("exec", "-n", namespace, target, "--", *words, check=check)

    def on_node(self, place: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the network namespace of a node (or of `fabric`)."""
        return _run(self._node_command(place, words), self.environment, check=check, timeout=PATIENCE)

    def start_on_node(self, place: str, *words: str) -> subprocess.Popen[str]:
        """Start a program there that goes on by itself; the caller ends it."""
        command = self._node_command(place, words)
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)

    def _node_command(self, place: str, words: Sequence[str]) -> list[str]:
        return [
            sys.executable,
            *("-m", "ambit", "local", "node", "exec", "--name", self.name, place, "--"),
            *words,
        ]

    def wait(self, what: str, condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
        """Until `condition` gives something true, which is returned. Fails with `what` and its last value."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"waited {timeout} s in vain until {what}; last: {value!r}"
            time.sleep(LOOK_AGAIN)


def _run(
    command: list[str],
    environment: Mapping[str, str],
    *,
    check: bool,
    timeout: float,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        env=dict(environment),
        check=False,
        timeout=timeout,
        input=stdin,
        capture_output=True,
        text=True,
    )
    assert not check or done.returncode == 0, (
        f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done
