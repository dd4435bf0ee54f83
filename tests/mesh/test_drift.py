"""What is wrong with the capture of running pods when a node agent starts is put right, and they go on."""

from collections.abc import Iterator

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.inside import LIST_RULES, in_namespaces, in_pod
from tests.mesh.pods import make_namespace, pod

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

DNS_CAPTURE = "ambient.istio.io/dns-capture"
BYPASS_INBOUND = "ambient.istio.io/bypass-inbound-capture"


ASKING = {
    "loud": {},
    "quiet": {DNS_CAPTURE: "false"},
    "open": {BYPASS_INBOUND: "true"},
    "emptied": {},
    "robbed": {},
}
BY_NAT = {"ambit.io/capture": "nat"}
AS_USUAL = ("loud", "quiet", "emptied", "robbed")


@pytest.fixture
def running(mesh: Mesh, names: tuple[str, ...], more: dict[str, str]) -> Iterator[str]:
    """Captured pods of one node, some of which ask for less from the start."""
    with make_namespace(mesh) as name:
        made = {each: pod(each, mesh.nodes[0], ["sleep", "3600"], namespace=name) for each in names}
        for each in names:
            made[each]["metadata"]["annotations"] = ASKING[each] | more
        mesh.apply(list(made.values()))
        mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        yield name


def captured_as(mesh: Mesh, addresses: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """The rules of every pod, whatever its addresses are."""
    listed = in_namespaces(mesh, mesh.nodes[0], [own[0] for own in addresses.values()], *LIST_RULES)
    found = dict(zip(addresses, listed, strict=True))
    for name, own in addresses.items():
        for address in own:
            found[name] = found[name].replace(address, "own")
    return found


def containers(mesh: Mesh, namespace: str) -> str:
    path = "jsonpath={.items[*].status.containerStatuses}"
    return mesh.kubectl("get", "pods", "-n", namespace, "-o", path).stdout


@pytest.mark.feature("F46", "F57", "N1")
@pytest.mark.parametrize(
    ("names", "more"), [(tuple(ASKING), BY_NAT), (AS_USUAL, {})], ids=["by NAT", "as usual"]
)
def test_the_next_agent_puts_rules_right_and_sees_what_annotations_ask_for_now(
    mesh: Mesh, running: str, names: tuple[str, ...], more: dict[str, str]
) -> None:
    """What reaches a pod can be left out later only where it is captured by NAT."""
    addresses = {name: mesh.pod_addresses(running, name) for name in names}
    before = captured_as(mesh, addresses)
    assert len({before[name] for name in names}) == len(names) - 2
    assert before["emptied"] == before["robbed"] == before["loud"]
    started = containers(mesh, running)
    in_pod(mesh, running, "emptied", "nft", "flush", "table", "inet", "ambit")
    in_pod(mesh, running, "robbed", "nft", "delete", "table", "inet", "ambit")
    mesh.kubectl("annotate", "pod", "quiet", "-n", running, f"{DNS_CAPTURE}-")
    wanted = {"quiet": before["loud"], "emptied": before["loud"], "robbed": before["loud"]}
    if more:
        mesh.kubectl("annotate", "pod", "loud", "-n", running, f"{BYPASS_INBOUND}=true")
        mesh.kubectl("annotate", "pod", "open", "-n", running, f"{BYPASS_INBOUND}-", f"{DNS_CAPTURE}=false")
        wanted |= {"loud": before["open"], "open": before["quiet"]}
    else:
        mesh.kubectl("annotate", "pod", "loud", "-n", running, f"{DNS_CAPTURE}=false")
        wanted |= {"loud": before["quiet"]}
    meanwhile = captured_as(mesh, addresses)
    assert {name for name in names if meanwhile[name] != before[name]} == {"emptied", "robbed"}
    mesh.kill("node agent", mesh.nodes[0])
    mesh.wait(
        "every pod is captured as it should be",
        lambda: captured_as(mesh, addresses) == wanted,
    )
    assert containers(mesh, running) == started
