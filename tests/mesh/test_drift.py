"""What is wrong with the capture of running pods when a node agent starts is put right, and they go on."""

from collections.abc import Iterator

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.inside import in_pod, rules
from tests.mesh.pods import make_namespace, pod

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

DNS_CAPTURE = "ambient.istio.io/dns-capture"
BYPASS_INBOUND = "ambient.istio.io/bypass-inbound-capture"


@pytest.fixture
def running(mesh: Mesh) -> Iterator[str]:
    """Captured pods of one node: `loud`, and `quiet` and `open`, which ask for less from the start."""
    with make_namespace(mesh) as name:
        made = {
            each: pod(each, mesh.nodes[0], ["sleep", "3600"], namespace=name)
            for each in ("loud", "quiet", "open")
        }
        made["quiet"]["metadata"]["annotations"] = {DNS_CAPTURE: "false"}
        made["open"]["metadata"]["annotations"] = {BYPASS_INBOUND: "true"}
        mesh.apply(list(made.values()))
        mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        yield name


def captured_as(mesh: Mesh, namespace: str, name: str) -> str:
    """Its rules, whatever its addresses are."""
    found = rules(mesh, namespace, name)
    for address in mesh.pod_addresses(namespace, name):
        found = found.replace(address, "own")
    return found


def containers(mesh: Mesh, namespace: str) -> str:
    path = "jsonpath={.items[*].status.containerStatuses}"
    return mesh.kubectl("get", "pods", "-n", namespace, "-o", path).stdout


@pytest.mark.feature("F57", "N1")
def test_rules_that_somebody_changed_are_put_back(mesh: Mesh, running: str) -> None:
    before, started = rules(mesh, running, "loud"), containers(mesh, running)
    assert in_pod(mesh, running, "loud", "nft", "list", "tables") == "table inet ambit\n"
    for word in ("flush", "delete"):
        in_pod(mesh, running, "loud", "nft", word, "table", "inet", "ambit")
        assert rules(mesh, running, "loud") != before
        mesh.kill("node agent", mesh.nodes[0])
        mesh.wait("the rules are as before", lambda: rules(mesh, running, "loud") == before)
    assert containers(mesh, running) == started


@pytest.mark.feature("F46", "N1")
def test_what_a_running_pods_annotations_ask_for_counts_from_the_next_agent_on(
    mesh: Mesh, running: str
) -> None:
    loud, quiet, open_ = (captured_as(mesh, running, name) for name in ("loud", "quiet", "open"))
    assert len({loud, quiet, open_}) == 3
    started = containers(mesh, running)
    mesh.kubectl("annotate", "pod", "quiet", "-n", running, f"{DNS_CAPTURE}-")
    mesh.kubectl("annotate", "pod", "loud", "-n", running, f"{BYPASS_INBOUND}=true")
    mesh.kubectl("annotate", "pod", "open", "-n", running, f"{BYPASS_INBOUND}-", f"{DNS_CAPTURE}=false")
    assert captured_as(mesh, running, "quiet") == quiet
    assert captured_as(mesh, running, "loud") == loud
    mesh.kill("node agent", mesh.nodes[0])
    for name, wanted in (("quiet", loud), ("loud", open_), ("open", quiet)):
        mesh.wait("it is captured anew", lambda: captured_as(mesh, running, name) == wanted)  # noqa: B023
    assert containers(mesh, running) == started
