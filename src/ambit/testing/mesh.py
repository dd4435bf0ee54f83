"""A mesh as tests see it, wherever it runs: the real command line, the real API, and waiting for conditions.

A driver says where it runs: `ambit.testing.laptop` or `ambit.testing.kubernetes`. What is said of `Mesh` holds for
both; a test that needs more is marked `laptop_only` with its reason.
"""

import asyncio
import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ambit.kube.client import Client

PATIENCE = 120.0
"""Seconds: nothing takes as long, but on a machine that is busy with something else."""
LOOK_AGAIN = 0.1
BRIEFLY = {"GOGC": "off", "GOMEMLIMIT": "256MiB"}
"""Variables for a Go program that ends soon: it collects garbage only when there is much, which saves kubectl a quarter
of its time."""
Result = TypeVar("Result")


class Mesh(ABC):
    """A mesh of two nodes or more. Every method that runs a program raises with its output when it fails."""

    kubeconfig: Path
    environment: dict[str, str]
    kubectl_program: str | None

    @abstractmethod
    def _ambit_options(self, command: str) -> tuple[str, ...]:
        """What tells this command that this cluster is meant."""

    @abstractmethod
    def _node_command(self, node: str, words: Sequence[str]) -> list[str]:
        """A command of this machine that runs `words` in the network namespace of a node."""

    @abstractmethod
    def processes(self, part: str, node: str) -> list[int]:
        """The process ids, as `end_process` takes them, of a node's `envoy` or `node agent`."""

    @abstractmethod
    def end_process(self, node: str, pid: int) -> None:
        """SIGKILL a process of a node."""

    @abstractmethod
    def anonymous_memory(self, part: str, node: str) -> int:
        """Bytes that a node's `envoy` or `node agent` keeps, without the files of its program; of two Envoys, both."""

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that run pods, in order."""
        listed = json.loads(self.kubectl("get", "nodes", "-o", "json").stdout)["items"]
        return tuple(
            sorted(each["metadata"]["name"] for each in listed if not each["spec"].get("unschedulable"))
        )

    def node_addresses(self, node: str) -> tuple[str, ...]:
        """A node's own addresses, IPv4 first."""
        path = 'jsonpath={.status.addresses[?(@.type=="InternalIP")].address}'
        return tuple(sorted(self.kubectl("get", "node", node, "-o", path).stdout.split(), key=_family))

    def pod_addresses(self, namespace: str, pod: str) -> tuple[str, ...]:
        """A pod's addresses, IPv4 first: one for each family that the cluster has."""
        path = "jsonpath={.status.podIPs[*].ip}"
        found = self.kubectl("get", "pod", pod, "-n", namespace, "-o", path).stdout.split()
        return tuple(sorted(found, key=_family))

    def ambit(
        self, *words: str, check: bool = True, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line against this mesh (what says so is added, before a `--`)."""
        return run(self._ambit_command(words), self.environment, check=check, timeout=timeout)

    def start_ambit(self, *words: str) -> subprocess.Popen[str]:
        """The same of a command that goes on by itself; the caller ends it."""
        command = self._ambit_command(words)
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)

    def _ambit_command(self, words: Sequence[str]) -> list[str]:
        end = words.index("--") if "--" in words else len(words)
        return [sys.executable, "-m", "ambit", *words[:end], *self._ambit_options(words[0]), *words[end:]]

    def kubectl(
        self, *words: str, check: bool = True, timeout: float = PATIENCE, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        command, environment = self._kubectl_command(words), {**BRIEFLY, **self.environment}
        return run(command, environment, check=check, timeout=timeout, stdin=stdin)

    def popen(self, *words: str, stdin: int | None = None) -> subprocess.Popen[str]:
        """Start a kubectl that goes on by itself; the caller ends it."""
        command = self._kubectl_command(words)
        return subprocess.Popen(command, env=self.environment, stdin=stdin, stdout=subprocess.PIPE, text=True)

    def _kubectl_command(self, words: Sequence[str]) -> list[str]:
        assert self.kubectl_program is not None, "this test needs a kubectl program"
        return [self.kubectl_program, f"--kubeconfig={self.kubeconfig}", *words]

    def client(self) -> Client:
        return Client.from_kubeconfig(self.kubeconfig)

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

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Returns when pods can be made in it."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self.wait_for_account(name)

    def wait_for_account(self, namespace: str) -> None:
        """Until pods of a new namespace can be made: the account that they run as is there."""
        words = ("get", "serviceaccount", "default", "-n", namespace)
        self.wait(f"{namespace} has an account", lambda: self.kubectl(*words, check=False).returncode == 0)

    def dump(self, *words: str) -> Any:
        """What a command says with `-o json`."""
        return json.loads(self.ambit(*words, "-o", "json").stdout)

    def exec(
        self, namespace: str, target: str, *words: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a container: `target` is a pod, or `deploy/NAME`."""
        return self.kubectl("exec", "-n", namespace, target, "--", *words, check=check)

    def on_node(self, node: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the network namespace of a node."""
        return run(self._node_command(node, words), self.environment, check=check, timeout=PATIENCE)

    def start_on_node(self, node: str, *words: str) -> subprocess.Popen[str]:
        """Start a program there that goes on by itself; the caller ends it."""
        command = self._node_command(node, words)
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)

    @contextmanager
    def outside(self, address: str) -> Iterator[str]:
        """An IPv4 address of the Internet, for a while without leaving the machine: the node that is given has it, and
        all others know the way. A server there is a pod of that node with `hostNetwork`."""
        own, *others = self.nodes
        way = self.node_addresses(own)[0]
        places = {own: ("address", f"{address}/32 dev lo")}
        places |= dict.fromkeys(others, ("route", f"{address}/32 via {way}"))
        with ExitStack() as stack:
            for node, (kind, what) in places.items():
                self.on_node(node, "ip", kind, "add", *what.split())
                stack.callback(self.on_node, node, "ip", kind, "del", *what.split())
            yield own

    def kill(self, part: str, node: str, *, until_back: bool = True) -> None:
        """SIGKILL a node's `envoy` or `node agent`, and wait until there is a new one."""
        (pid,) = self.wait(f"{part} of {node} runs", lambda: self._only(part, node))
        self.end_process(node, pid)
        if until_back:
            self.wait(f"{part} of {node} is back", lambda: self._only(part, node) not in ([], [pid]))

    def _only(self, part: str, node: str) -> list[int]:
        found = self.processes(part, node)
        return found if len(found) == 1 else []

    def wait(self, what: str, condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
        """Until `condition` gives something true, which is returned. Fails with `what` and its last value."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"waited {timeout} s in vain until {what}; last: {value!r}"
            time.sleep(LOOK_AGAIN)


def _family(address: str) -> bool:
    return ":" in address


def run(
    command: list[str],
    environment: Mapping[str, str],
    *,
    check: bool,
    timeout: float,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """A program with its output; with `check`, one that fails is an AssertionError that shows it."""
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
