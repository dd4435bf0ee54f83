"""The driver of a laptop cluster: one instance, started by `ambit up`."""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ambit.local.instance.processes import Process, instance_processes
from ambit.local.instance.record import read_record
from ambit.local.layout import StateDirectory
from ambit.testing.mesh import Mesh


class LaptopMesh(Mesh):
    """One instance, and its files and processes on this machine."""

    def __init__(self, name: str, state_root: Path, kubectl_program: str | None) -> None:
        self.name = name
        self.environment = {**os.environ, "AMBIT_STATE": os.fspath(state_root)}
        self.state = StateDirectory.of(name, self.environment)
        self.kubeconfig = self.state.kubeconfig
        # kubectl's usual place knows servers by their ports: another instance may have had this one.
        self.environment["KUBECACHEDIR"] = os.fspath(self.kubeconfig.parent / "kubectl")
        self.kubectl_program = kubectl_program

    def _ambit_options(self, command: str) -> tuple[str, ...]:
        return ("--instance" if command == "waypoint" else "--name", self.name)

    def _node_command(self, node: str, words: Sequence[str]) -> list[str]:
        enter = ("-m", "ambit", "local", "node", "exec", "--name", self.name, node, "--")
        return [sys.executable, *enter, *words]

    def processes(self, part: str, node: str) -> list[int]:
        return [each.pid for each in self._found(part, node)]

    def end_process(self, node: str, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def anonymous_memory(self, part: str, node: str) -> int:
        return sum(each.anonymous for each in self._found(part, node)) * 1024

    def _found(self, part: str, node: str) -> list[Process]:
        record = read_record(self.state)
        assert record is not None
        found = []
        for each in instance_processes(record):
            with contextlib.suppress(OSError):
                if each.part == part and f"nodes/{node}" in Path(f"/proc/{each.pid}/cmdline").read_text():
                    found.append(each)
        return found
