"""Whether the nodes that enforce a policy at their pods have it."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

import msgspec

from ambit.control.answers import Answer
from ambit.control.statuses.policy_answers import PolicyAnswers
from ambit.control.statuses.ruled_nodes import RuledNodes
from ambit.control.view import LiveView
from ambit.core.finding import ObjectRef
from ambit.graph.collection import Delta
from ambit.ingest.mesh import MeshDelta
from ambit.model.inline_rules import InlineRules
from ambit.model.service import Service
from ambit.model.status import Condition, ObjectStatus, Version
from ambit.model.workload import Workload
from tests.control.test_handover import WEB, batch, pod, policy, service

DENY = ObjectRef("AuthorizationPolicy", "shop", "deny")
RULED = msgspec.structs.replace(service(""), inline=(), rules=InlineRules((policy(),)))
ACCEPTED = Condition("WaypointAccepted", "True", "Accepted")


class Scene:
    """Pods of `web` on nodes 1 and 2, none on node 3."""

    def __init__(self) -> None:
        self.view = LiveView()
        self.acknowledged = dict.fromkeys(("node1", "node2", "node3"), 0)
        self.asked = 0
        self.nodes = RuledNodes(self.view, self._find)
        self.proxies: list[Answer] = []
        self.answers = PolicyAnswers(lambda _: self.proxies, self.nodes.answers)
        places = [msgspec.structs.replace(pod(node, WEB), node=node) for node in ("node1", "node2")]
        self.take(1, RULED, *places)

    def take(self, revision: int, *values: Service | Workload) -> None:
        delta = batch(*values)
        self.view.take(delta)
        self.nodes.compiled(delta, revision)
        self.answers.changed(DENY.kind, ["shop/deny"])

    def _find(self, key: str, revision: int, nodes: AbstractSet[str]) -> Iterator[Answer]:
        assert key == WEB
        self.asked += 1
        for node in sorted(nodes):
            yield Answer(node, self.acknowledged[node] < revision)

    @property
    def said(self) -> str:
        status = self.answers.amended(ObjectStatus(Version(DENY, "uid", 1), (ACCEPTED,)))
        assert isinstance(status, ObjectStatus)
        return "; ".join(each.message for each in status.conditions[1:])


def test_nodes_with_pods_of_the_service_count() -> None:
    scene = Scene()
    assert scene.said == "waiting for node1, node2"
    scene.acknowledged |= {"node1": 1}
    assert scene.said == "waiting for node2"
    assert scene.nodes.answered("node1", [DENY]) == []
    scene.acknowledged |= {"node2": 2}
    assert scene.nodes.answered("node2", [DENY]) == [DENY]
    assert scene.said == "acknowledged by all 2 nodes"


def test_only_a_node_that_may_be_the_last_one_has_all_looked_at() -> None:
    scene = Scene()
    assert scene.nodes.answered("node3", [DENY]) == []
    assert scene.asked == 0  # it has no pods of the service
    assert scene.nodes.answered("node1", [DENY]) == []
    assert scene.asked == 1
    for _ in range(100):
        assert scene.nodes.answered("node2", [DENY]) == []
    assert scene.asked == 1  # node1 is known to be behind
    scene.acknowledged |= {"node1": 1, "node2": 1}
    assert scene.nodes.answered("node1", [DENY]) == [DENY]


def test_after_a_change_of_the_mesh_nobody_is_known_to_be_behind() -> None:
    scene = Scene()
    assert scene.nodes.answered("node1", [DENY]) == []
    moved = msgspec.structs.replace(pod("node1", WEB), node="node2")
    scene.take(2, moved)
    scene.acknowledged |= {"node2": 1}
    assert scene.nodes.answered("node2", [DENY]) == [DENY]


def test_beside_proxies() -> None:
    scene = Scene()
    scene.proxies = [Answer("way-1", behind=True)]
    scene.acknowledged = dict.fromkeys(scene.acknowledged, 1)
    assert scene.said == "waiting for way-1"
    scene.proxies = [Answer("way-1")]
    assert scene.said == "acknowledged by all 3 proxies and nodes"


def test_a_policy_that_changed_is_waited_for_again() -> None:
    scene = Scene()
    scene.acknowledged = dict.fromkeys(scene.acknowledged, 1)
    assert scene.said == "acknowledged by all 2 nodes"
    scene.take(2, RULED)
    assert scene.said == "waiting for node1, node2"


def test_a_service_without_rules_has_nobody_wait() -> None:
    scene = Scene()
    scene.take(2, msgspec.structs.replace(RULED, rules=None))
    assert scene.said == ""
    scene.take(3, RULED)
    gone = MeshDelta(services=Delta({}, (WEB,)))
    scene.view.take(gone)
    scene.nodes.compiled(gone, 4)
    assert not [*scene.nodes.answers(DENY)]
