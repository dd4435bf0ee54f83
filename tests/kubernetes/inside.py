"""What tests ask of a cluster: kubectl, objects, commands in pods, and waiting for conditions."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.kubernetes.cluster.settings import Cluster

PATIENCE = 60.0
LOOK_AGAIN = 0.2


class Kubernetes:
    """One running cluster. What runs a program raises with the program's output when it fails."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl printed."""
        done = subprocess.run(
            ["kubectl", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr or done.stdout}"
        return done.stdout

    def execute(self, namespace: str, target: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in a pod, or in one pod of a workload such as `deploy/curl`."""
        command = ["kubectl", "-n", namespace, "exec", target, "--", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    @contextmanager
    def namespace(self, name: str, patience: float = PATIENCE, **labels: str) -> Iterator[str]:
        """A namespace that is gone again afterwards with everything in it; `patience`: seconds until it is usable."""
        self.kubectl("create", "namespace", name)
        account = ("get", "serviceaccount", "default", "-n", name, "--ignore-not-found", "-o", "name")
        try:
            self.wait("the namespace's account", lambda: bool(self.kubectl(*account)), patience)
            if labels:
                self.kubectl("label", "namespace", name, *(f"{key}={value}" for key, value in labels.items()))
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=true", "--timeout=60s")

    def rollout(self, namespace: str, *workloads: str) -> None:
        """Waits until every workload is available."""
        for workload in workloads:
            self.kubectl("-n", namespace, "rollout", "status", workload, f"--timeout={PATIENCE:.0f}s")

    def wait(self, what: str, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Returns when the condition holds; fails after `patience` seconds."""
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end, f"{what}: not within {patience:.0f} s"
            time.sleep(LOOK_AGAIN)
