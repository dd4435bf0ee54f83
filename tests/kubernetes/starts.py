"""What enrolment costs a pod: how long the container runtime takes for a sandbox, with and without the mesh.

A pod is enrolled while its sandbox is made, so the difference is all that the mesh adds to a pod's start. The times are
those of containerd's own log, of one pod after the other: nothing else delays them, such as the kubelet's second-long
loops. Run by `./dev test-kubernetes`; printed, not judged, for they are those of a busy machine.
"""

import datetime as dt
import os
import re
import statistics
import sys
from pathlib import Path

from tests.kubernetes.cluster.lifecycle import running
from tests.kubernetes.inside import Kubernetes

ROUNDS = 8
WITHOUT, OUTSIDE, ENROLLED = "start-without-mesh", "start-outside", "start-enrolled"
SANDBOX = re.compile(
    r'time="(?P<time>[^"]+)" level=info msg="RunPodSandbox for &PodSandboxMetadata\{Name:(?P<name>[^,]+),'
    r"Uid:[^,]+,Namespace:(?P<namespace>[^,]+),Attempt:0,\}(?P<done> returns sandbox id)?"
)
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, image: "localhost/busybox:dev", command: [sleep, infinity]}}]
"""


def measure(kubernetes: Kubernetes, *, installed: bool) -> None:
    """Starts pods in turn in a namespace outside the mesh and, when it is installed, in an enrolled one."""
    if not installed:
        with kubernetes.namespace(WITHOUT):
            _start(kubernetes, WITHOUT)
        return
    enrolled = {"istio.io/dataplane-mode": "ambient"}
    with kubernetes.namespace(OUTSIDE), kubernetes.namespace(ENROLLED, **enrolled):
        _start(kubernetes, OUTSIDE, ENROLLED)


def _start(kubernetes: Kubernetes, *namespaces: str) -> None:
    for number in range(ROUNDS):
        for namespace in namespaces:
            name = f"p{number}"
            kubernetes.kubectl("-n", namespace, "apply", "-f", "-", stdin=POD.format(name=name))
            kubernetes.kubectl(
                "-n", namespace, "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s"
            )


def report(kubernetes: Kubernetes) -> str:
    """One line: medians in milliseconds of each kind that was measured, and what enrolment adds."""
    log = (kubernetes.cluster.state / "node1-containerd.log").read_text()
    medians = {
        namespace: statistics.median(times)
        for namespace in (WITHOUT, OUTSIDE, ENROLLED)
        if (times := sandbox_seconds(log, namespace))
    }
    said = [f"{namespace.removeprefix('start-')} {1000 * each:.0f} ms" for namespace, each in medians.items()]
    added = 1000 * (medians[ENROLLED] - medians.get(WITHOUT, medians[OUTSIDE]))
    return f"a pod's sandbox, p50: {', '.join(said)}; enrolment adds {added:.0f} ms"


def sandbox_seconds(log: str, namespace: str) -> list[float]:
    """From the beginning to the end of each sandbox of that namespace that was made at the first attempt."""
    began: dict[str, dt.datetime] = {}
    found = []
    for match in SANDBOX.finditer(log):
        if match["namespace"] != namespace:
            continue
        moment = dt.datetime.fromisoformat(match["time"])
        if match["done"]:
            found.append((moment - began.pop(match["name"])).total_seconds())
        else:
            began[match["name"]] = moment
    return found


if __name__ == "__main__":
    here = Kubernetes(running(Path(os.environ["KUBE_STATE"])))
    measure(here, installed=sys.argv[1] == "with")
    if sys.argv[1] == "with":
        print(report(here), flush=True)
