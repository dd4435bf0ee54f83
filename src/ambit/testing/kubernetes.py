"""The driver of a mesh in a Kubernetes cluster that runs already, with ambit installed in it.

What has to be done on a node itself is done in a privileged pod there, with the node's network and processes; these
pods are made when first needed and deleted at the end. Their image needs `python3` and whatever a test runs there.
"""

import json
import os
import signal
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ambit.local.instance.processes import part_of
from ambit.testing.mesh import Mesh

NODE_IMAGE = "python:3"
KEEPER = "keeper.py"
"""The node container's first process, whose command line ends with the agent's."""
LIST_PROCESSES = """
import json, os
found = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        found[pid] = open(f"/proc/{pid}/cmdline").read().split("\\0")[:-1]
    except OSError:
        pass
print(json.dumps(found))
"""
END_PROCESS = "import os, sys; os.kill(int(sys.argv[1]), int(sys.argv[2]))"


class KubernetesMesh(Mesh):
    """A cluster that a kubeconfig leads to. Raises AssertionError where the file is missing."""

    def __init__(self, kubeconfig: Path, kubectl_program: str | None) -> None:
        assert kubeconfig.is_file(), f"{kubeconfig} is no kubeconfig: set $KUBECONFIG to one"
        self.kubeconfig = kubeconfig
        self.kubectl_program = kubectl_program
        self.environment = {**os.environ, "KUBECONFIG": os.fspath(kubeconfig)}
        self._namespace = ""
        self._ready: set[str] = set()

    def _ambit_options(self, command: str) -> tuple[str, ...]:
        return ("--kubeconfig", os.fspath(self.kubeconfig))

    def _node_command(self, node: str, words: Sequence[str]) -> list[str]:
        if not self._namespace:
            self._namespace = f"ambit-test-{uuid.uuid4().hex[:8]}"
            self.apply(node_namespace(self._namespace))
            self.wait_for_account(self._namespace)
        if node not in self._ready:
            self.apply(node_pod(self._namespace, node))
            words_of_wait = ("wait", f"pod/{node}", "-n", self._namespace, "--for=condition=Ready")
            self.kubectl(*words_of_wait, "--timeout=60s")
            self._ready.add(node)
        return self._kubectl_command(["exec", "-n", self._namespace, node, "--", *words])

    def processes(self, part: str, node: str) -> list[int]:
        listed = json.loads(self.on_node(node, "python3", "-c", LIST_PROCESSES).stdout)
        named = {int(pid): [os.path.basename(word) for word in words] for pid, words in listed.items()}
        return [pid for pid, words in named.items() if part_of(words) == part and KEEPER not in words]

    def end_process(self, node: str, pid: int) -> None:
        self.on_node(node, "python3", "-c", END_PROCESS, str(pid), str(int(signal.SIGKILL)))

    def anonymous_memory(self, part: str, node: str) -> int:
        files = [f"/proc/{pid}/smaps_rollup" for pid in self.processes(part, node)]
        lines = self.on_node(node, "grep", "-h", "^Anonymous:", *files).stdout.splitlines()
        return sum(int(line.split()[1]) for line in lines) * 1024

    def close(self) -> None:
        """Delete the pods on nodes."""
        if self._namespace:
            self.kubectl("delete", "namespace", self._namespace, "--wait=false")


def node_namespace(name: str) -> dict[str, Any]:
    """Where such pods are let in, whatever the cluster's default is."""
    labels = {"pod-security.kubernetes.io/enforce": "privileged", "istio.io/dataplane-mode": "none"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def node_pod(namespace: str, node: str) -> dict[str, Any]:
    """A pod that may do on a node what its administrator may."""
    container = {
        "name": "node",
        "image": NODE_IMAGE,
        "command": ["sleep", "infinity"],
        "securityContext": {"privileged": True},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": node, "namespace": namespace},
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "hostPID": True,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }
