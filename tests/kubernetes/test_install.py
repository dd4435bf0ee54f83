"""The mesh as `ambit install` put it there: healthy, within its permissions, upgraded, gone, back again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.cluster import processes
from tests.kubernetes.inside import PATIENCE, Kubernetes

pytestmark = pytest.mark.kubernetes

SYSTEM = "ambit-system"
WAIT = 3 * PATIENCE
POD_NAME = "authentication.kubernetes.io/pod-name"


def ambit(*words: str) -> str:
    """What the command printed."""
    command = [sys.executable, "-m", "ambit", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT + 60, check=False)
    assert done.returncode == 0, f"ambit {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def install(*values: str, channel: str = "") -> None:
    words = [word for value in values for word in ("--set", value)]
    words += ["--gateway-api", channel] if channel else []
    ambit("install", "--timeout", str(WAIT), *words)


def channels(kubernetes: Kubernetes) -> set[str]:
    """Of which channel the Gateway API's kinds are."""
    found = [each["metadata"] for each in items(kubernetes, "crds")]
    named = [each for each in found if "gateway.networking." in each["name"]]
    return {each["annotations"]["gateway.networking.k8s.io/channel"] for each in named}


def items(kubernetes: Kubernetes, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kubernetes.kubectl("get", *words, "-o", "json"))["items"]
    return found


def is_of_the_driver(value: dict[str, Any]) -> bool:
    """The fixture `mesh` has a namespace of its own until the end of the run."""
    metadata = value["metadata"]
    return any(str(metadata.get(key)).startswith("ambit-test-") for key in ("name", "namespace"))


def test_everything_is_healthy(kubernetes: Kubernetes) -> None:
    ambit("check", "--wait", "30")


def test_its_accounts_are_refused_nothing_that_they_ask_for(kubernetes: Kubernetes) -> None:
    """Of their pods that run now: other tests take permissions away and pods with them."""
    asked = [json.loads(line) for line in (kubernetes.cluster.state / "audit.log").read_text().splitlines()]
    running = {pod["metadata"]["name"] for pod in items(kubernetes, "pods", "-n", SYSTEM)}
    asked = [each for each in asked if running.issuperset(each["user"]["extra"][POD_NAME])]
    accounts = {each["user"]["username"] for each in asked}
    assert accounts == {f"system:serviceaccount:{SYSTEM}:{name}" for name in ("ambit-control", "ztunnel")}
    refused = [each for each in asked if each.get("responseStatus", {}).get("code") == 403]
    assert [(each["user"]["username"], each["verb"], each.get("objectRef")) for each in refused] == []


def test_an_upgrade_rolls_the_parts_that_it_changes(kubernetes: Kubernetes) -> None:
    def pods(app: str) -> set[str]:
        return {pod["metadata"]["uid"] for pod in items(kubernetes, "pods", "-n", SYSTEM, "-l", f"app={app}")}

    install()
    kubernetes.rollout(SYSTEM, "deployment/ambit-control", "daemonset/ambit-node")
    control, nodes = pods("istiod"), pods("ztunnel")
    install("control.podAnnotations.upgraded=once")
    kubernetes.rollout(SYSTEM, "deployment/ambit-control")
    kubernetes.wait("the old control plane's end", lambda: not control & pods("istiod"))
    assert pods("ztunnel") == nodes
    ambit("check", "--wait", "60")
    install()
    kubernetes.rollout(SYSTEM, "deployment/ambit-control")


LEAVER = """
apiVersion: v1
kind: Pod
metadata: {name: leaver}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers:
  - {name: client, image: "docker.io/curlimages/curl:8.16.0", imagePullPolicy: Never, command: [sleep, infinity]}
"""


def printed(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def traces(kubernetes: Kubernetes) -> set[str]:
    """What of the mesh is on any node: files, and rules in its network namespace and those of its pods."""
    found = set()
    for node in kubernetes.cluster.nodes:
        root = Path(f"/proc/{processes.recorded(kubernetes.cluster.state, node.name)}/root")
        folders = [root / "run/ambit", root / "var/lib/ambit"]
        found |= {f"{node.name} {path.relative_to(root)}" for each in folders for path in each.rglob("*")}
        cni = [*(root / "etc/cni/net.d").iterdir(), *(root / "opt/cni/bin").iterdir()]
        found |= {f"{node.name} {path.relative_to(root)}" for path in cni if "ambit" in path.name}
        for namespace in (Path("/run/netns") / node.key, *(root / "run/netns").iterdir()):
            inside = ("nsenter", f"--net={namespace}")
            tables = printed(*inside, "nft", "list", "tables").splitlines()
            found |= {f"{node.name} {namespace.name} {line}" for line in tables if "ambit" in line}
            for family in ("-4", "-6"):
                rules = printed(*inside, "ip", family, "rule").splitlines()
                found |= {
                    f"{node.name} {namespace.name} {line}"
                    for line in rules
                    if " 100" in line.split("lookup")[-1]
                }
    return found


def captured(kubernetes: Kubernetes, namespace: str) -> bool:
    annotation = r"jsonpath={.metadata.annotations.ambient\.istio\.io/redirection}"
    return kubernetes.kubectl("-n", namespace, "get", "pod", "leaver", "-o", annotation) == "enabled"


@pytest.mark.feature("F158")
@pytest.mark.timeout(600)
def test_it_leaves_nothing_and_can_be_installed_again(kubernetes: Kubernetes) -> None:
    with kubernetes.namespace("leavers", **{"istio.io/dataplane-mode": "ambient"}) as namespace:
        kubernetes.kubectl("-n", namespace, "apply", "-f", "-", stdin=LEAVER)
        kubernetes.wait("the pod is captured", lambda: captured(kubernetes, namespace))
        before = traces(kubernetes)
        for kind in (
            "run/ambit/",
            "var/lib/ambit/",
            "etc/cni/",
            "opt/cni/",
            "table inet ambit",
            "lookup 100",
        ):
            assert [each for each in before if kind in each], f"{kind}: the test would not see it"
        kubernetes.kubectl("label", "namespace", namespace, "istio.io/dataplane-mode-")
        kubernetes.wait("the pod has left", lambda: not captured(kubernetes, namespace))
        ambit("uninstall", "--purge")
        assert traces(kubernetes) == set()
    kubernetes.kubectl("wait", "namespace", SYSTEM, "istio-system", "--for=delete", "--timeout=120s")
    left = [
        f"{each['kind']} {each['metadata']['name']}"
        for kind in (
            "crds",
            "clusterroles",
            "clusterrolebindings",
            "validatingadmissionpolicies,validatingadmissionpolicybindings",
            "namespaces",
            "configmaps,secrets,services,pods",
        )
        for each in items(kubernetes, kind, "--all-namespaces")
        if any(word in json.dumps(each) for word in ("ambit", "istio")) and not is_of_the_driver(each)
    ]
    assert left == []
    install()
    ambit("check", "--wait", "60")
    assert channels(kubernetes) == {"standard"}
    for channel in ("experimental", ""):  # which is that of the other tests, and stays
        install(channel=channel)
        assert channels(kubernetes) == {"experimental"}
