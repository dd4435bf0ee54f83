"""Which addresses are a pod's own, whatever statuses say: the rules of `ambit.ingest.pod_addresses`, by number."""

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.finding import Level
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.view import Snapshot
from tests.ingest import build
from tests.ingest.test_mesh import change, compiler

OF_NODE = {"node1": "10.244.0", "node2": "10.244.1"}
HERE, THERE = "10.244.0.5", "10.244.1.5"
OLD, NEW = "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"


def node(name: str, *, cidr: bool = True) -> build.Given:
    spec: dict[str, Any] = {"podCIDRs": [f"{OF_NODE[name]}.0/24", "broken"]} if cidr else {}
    addresses = [{"address": name}, {"address": f"172.30.0.1{name[-1]}"}]
    return "nodes", {"metadata": {"name": name}, "spec": spec, "status": {"addresses": addresses}}


def pod(name: str, address: str, *, created: str = NEW, **said: Any) -> build.Given:
    resource, body = build.pod(name, address, **said)
    body["metadata"]["creationTimestamp"] = created
    return resource, body


def holders(made: MeshCompiler) -> Mapping[str, list[str]]:
    """Names of the workloads with each address."""
    found: dict[str, list[str]] = {}
    for each in made.workloads.values():
        for address in each.addresses:
            found.setdefault(str(address), []).append(each.name)
    return found


def lost(made: MeshCompiler) -> list[tuple[str, str]]:
    """Pods that lost an address, and the text up to who has it."""
    found = [each for each in made.findings if each.code == "AMB0308"]
    assert all((each.level, each.path) == (Level.WARNING, "status.podIPs") for each in found)
    return [(each.origin.name, each.text.partition(":")[0]) for each in found]


def test_1_pods_of_the_nodes_network_share_its_address_and_nobody_else_has_it() -> None:
    made = compiler(
        node("node1"),
        node("node2"),
        pod("proxy", "172.30.0.11", hostNetwork=True),
        pod("plugin", "172.30.0.11", hostNetwork=True),
        pod("a-thief", "172.30.0.11", created=OLD, node_name="node2"),
    )
    assert holders(made) == {"172.30.0.11": ["proxy", "plugin"]}
    assert lost(made) == [("a-thief", "172.30.0.11 is the address of Node node1")]


@pytest.mark.parametrize(
    ("thief", "why"),
    [
        ({"node_name": "nowhere"}, "no such node"),
        ({"node_name": "node1"}, "another node's range"),
        ({"node_name": "node2", "deleted": True}, "it terminates"),
    ],
)
def test_2_who_has_an_address_that_several_say(thief: dict[str, Any], why: str) -> None:
    made = compiler(
        node("node1"),
        node("node2"),
        pod("victim", THERE, node_name="node2"),
        pod("a-thief", THERE, created=OLD, **thief),
    )
    assert holders(made) == {THERE: ["victim"]}, why
    told = [("a-thief", f"{THERE} is the address of Pod default/victim")]
    assert lost(made) == ([] if "deleted" in thief else told), why
    assert Snapshot(made.workloads.values()).workload_by_address("", ipaddress.ip_address(THERE)) is not None
    made.apply([Change("pods", "default/victim")])
    assert holders(made) == {THERE: ["a-thief"]}, "of those that are left"
    assert not lost(made)


@pytest.mark.parametrize("cidr", [True, False])
def test_2_the_oldest_has_it_where_nothing_else_decides(cidr: bool) -> None:
    made = compiler(
        node("node2", cidr=cidr),
        pod("a-thief", THERE, node_name="node2"),
        pod("victim", THERE, created=OLD, node_name="node2"),
    )
    assert holders(made) == {THERE: ["victim"]}


def test_2_what_ended_or_is_of_another_network_says_nothing() -> None:
    made = compiler(
        node("node2"),
        pod("victim", THERE, node_name="node2"),
        pod("ended", THERE, created=OLD, node_name="node2", phase="Succeeded"),
        pod("far", THERE, created=OLD, node_name="node2", labels={"topology.istio.io/network": "other"}),
    )
    assert sorted(holders(made)[THERE]) == ["far", "victim"] and not lost(made)


def test_2_only_what_is_anothers_is_lost() -> None:
    resource, thief = pod("a-thief", THERE)
    thief["status"]["podIPs"] = [{"ip": HERE}, {"ip": THERE}]
    made = compiler(node("node1"), node("node2"), pod("victim", THERE, node_name="node2"), (resource, thief))
    assert holders(made) == {THERE: ["victim"], HERE: ["a-thief"]}


def test_2_the_node_comes_later() -> None:
    made = compiler(pod("victim", THERE, node_name="node2"), pod("a-thief", THERE, created=OLD))
    assert holders(made) == {THERE: ["a-thief"]}
    made.apply(map(change, [node("node1"), node("node2")]))
    assert holders(made) == {THERE: ["victim"]}


@pytest.mark.parametrize("address", ["10.96.0.5", "172.30.0.12"])
def test_3_no_pod_has_the_address_of_a_service_or_of_another_node(address: str) -> None:
    web = build.service("web", {"app": "web"}, ip="10.96.0.5")
    made = compiler(web, node("node1"), node("node2"), pod("a-thief", address))
    assert holders(made) == {} and len(lost(made)) == 1
    made.apply([Change("services", "default/web"), Change("nodes", "node2")])
    assert holders(made) == {address: ["a-thief"]}


def test_3_but_one_of_its_nodes_range_is_its_own() -> None:
    _, stranger = node("node2")
    stranger["status"]["addresses"] = [{"address": HERE}]
    web = build.service("web", {"app": "web"}, ip=HERE)
    made = compiler(web, node("node1"), ("nodes", stranger), pod("victim", HERE))
    assert holders(made) == {HERE: ["victim"]}


EVENTS = st.one_of(
    st.builds(
        pod,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([HERE, THERE, "172.30.0.11", "10.96.0.9", ""]),
        created=st.sampled_from([OLD, NEW]),
        node_name=st.sampled_from(["node1", "node2", "nowhere"]),
        deleted=st.booleans(),
        phase=st.sampled_from(["Running", "Failed"]),
        hostNetwork=st.booleans(),
    ),
    st.builds(node, st.sampled_from(["node1", "node2"]), cidr=st.booleans()),
    st.builds(build.service, st.just("web"), st.none()),
).map(change)


@given(st.lists(EVENTS, max_size=8), st.randoms(use_true_random=False))
def test_order_of_arrival_changes_nothing_and_an_address_is_one_pods(
    events: list[Change], random: Any
) -> None:
    incremental, fresh = MeshCompiler(MeshSettings()), MeshCompiler(MeshSettings())
    for each in events:
        incremental.apply([each])
    last = list({(each.resource, each.key): each for each in events}.values())
    random.shuffle(last)
    for each in last:
        fresh.apply([each])
    assert holders(incremental).keys() == holders(fresh).keys()
    assert dict(incremental.workloads) == dict(fresh.workloads)
    shared = {str(a) for each in fresh.workloads.values() if each.network_mode for a in each.addresses}
    assert all(len(names) == 1 for address, names in holders(fresh).items() if address not in shared)
