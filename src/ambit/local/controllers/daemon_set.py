"""DaemonSet: one pod on every node that fits.

A pod's node is written by this controller itself, so a daemon needs no scheduler. Pods are replaced node by node,
`maxUnavailable` at a time, and the old one is always gone before the new one starts (`maxSurge` would need
two pods with the same host ports and is treated as 0).
"""

import time
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from ambit.kube.reflector import Key
from ambit.kube.resource import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS, Resource
from ambit.local.controllers.caches import Caches
from ambit.local.controllers.controller import controlled_keys
from ambit.local.controllers.objects import (
    Object,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
    scaled,
)
from ambit.local.controllers.pod_owner import PodOwner
from ambit.local.controllers.pods import (
    is_active,
    is_available,
    is_ready,
    is_terminal,
    pod_from_template,
)
from ambit.local.controllers.revisions import (
    HASH_LABEL,
    forget_old,
    history_of,
    present_revision,
    revision_hash,
)
from ambit.local.controllers.scheduler import matches_node, tolerates

NO_EXECUTE = frozenset({"NoExecute"})
TOLERATIONS = tuple(
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect}
    for key, effect in (
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    )
)
"""Added to every daemon pod, as Kubernetes does: a daemon runs where other pods may not start."""


class Plan(msgspec.Struct, frozen=True):
    """Nodes that need a pod, pods that must go, and the numbers for the status."""

    create: tuple[str, ...]
    delete: tuple[Object, ...]
    desired: int
    misscheduled: int
    on_nodes: tuple[Object, ...]
    """The pod that counts on each wanted node that has one."""


def plan_daemons(
    value: Object, nodes: Sequence[Object], pods: Sequence[Object], digest: str, now: float
) -> Plan:
    """What to do for a DaemonSet whose present template has this revision hash. `now`: Unix seconds."""
    probe = {"spec": daemon_spec(value, "")}
    wanted = {
        node["metadata"]["name"] for node in nodes if matches_node(probe, node) and tolerates(probe, node)
    }
    staying = wanted | {
        node["metadata"]["name"]
        for node in nodes
        if matches_node(probe, node) and tolerates(probe, node, NO_EXECUTE)
    }
    by_node: dict[str, list[Object]] = {}
    for pod in pods:
        by_node.setdefault(pod["spec"].get("nodeName", ""), []).append(pod)
    delete: list[Object] = []
    counted: list[Object] = []
    create: list[str] = []
    for name in sorted(wanted | by_node.keys()):
        here = by_node.get(name, [])
        ended = [pod for pod in here if is_terminal(pod) and not is_deleting(pod)]
        alive = sorted(filter(is_active, here), key=lambda pod: (not is_ready(pod), _born(pod)))
        delete += ended
        if name not in staying:
            delete += alive
            continue
        delete += alive[1:]
        if name in wanted:
            counted += alive[:1]
            # A pod that is still ending holds the node's ports: its successor waits.
            if not here:
                create.append(name)
    delete += _outdated(value, counted, len(wanted), digest, now)
    misscheduled = sum(
        1 for name, here in by_node.items() if name not in wanted for pod in here if is_active(pod)
    )
    return Plan(tuple(create), tuple(delete), len(wanted), misscheduled, tuple(counted))


def _born(pod: Object) -> tuple[str, str]:
    return pod["metadata"].get("creationTimestamp") or "", str(pod["metadata"]["name"])


def _outdated(value: Object, pods: Sequence[Object], total: int, digest: str, now: float) -> list[Object]:
    strategy = value["spec"].get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return []
    limit = max(
        1, scaled((strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1), total, round_up=True)
    )
    minimum = int(value["spec"].get("minReadySeconds") or 0)
    old = [pod for pod in pods if labels_of(pod).get(HASH_LABEL) != digest]
    broken = [pod for pod in old if not is_available(pod, minimum, now)]
    working = [pod for pod in old if is_available(pod, minimum, now)]
    available = sum(is_available(pod, minimum, now) for pod in pods)
    spare = max(0, limit - (total - available))
    return [*broken, *working[:spare]]


def daemon_spec(value: Object, node: str) -> Object:
    """The pod spec for one node ("" for none yet)."""
    spec = dict(value["spec"]["template"]["spec"])
    spec["tolerations"] = [*(spec.get("tolerations") or ()), *TOLERATIONS]
    if spec.get("hostNetwork"):
        network = {"key": "node.kubernetes.io/network-unavailable", "operator": "Exists"}
        spec["tolerations"].append({**network, "effect": "NoSchedule"})
    if node:
        spec["nodeName"] = node
    return spec


def daemon_pod(value: Object, node: str, digest: str) -> Object:
    """The pod of one node."""
    namespace, name = key_of(value)
    template = {**value["spec"]["template"], "spec": daemon_spec(value, node)}
    pod = pod_from_template(template, namespace, owner_reference(DAEMON_SETS, value), prefix=f"{name}-")
    pod["metadata"]["labels"] = {**labels_of(pod), HASH_LABEL: digest}
    return pod


class DaemonSetController(PodOwner):
    """DaemonSets and nodes -> pods."""

    name: ClassVar[str] = "daemonset-controller"
    resource: ClassVar[Resource] = DAEMON_SETS

    def __init__(self, caches: Caches) -> None:
        super().__init__(caches)
        self.revisions = self.watch(CONTROLLER_REVISIONS, controlled_keys("DaemonSet"))
        self.nodes = self.watch(NODES, lambda _: tuple(self.owners.items))

    async def look(self, key: Key, value: Object) -> None:
        if is_deleting(value):
            return
        now = time.time()
        history = history_of(self.revisions, value)
        revision = await present_revision(self.client, DAEMON_SETS, value, history)
        digest = revision_hash(revision)
        pods = await self.claim(DAEMON_SETS, value, PODS)
        plan = plan_daemons(value, list(self.nodes.items.values()), pods, digest, now)
        for pod in plan.delete:
            await self.delete_pod(key, value, pod)
        for node in plan.create:
            await self.create_pod(key, value, daemon_pod(value, node, digest))
        await self.write_status(DAEMON_SETS, value, _status(value, plan, digest, now))
        live = frozenset({digest, *(labels_of(pod).get(HASH_LABEL, "") for pod in pods)})
        await forget_old(self.client, value, history, live)
        self.look_when_available(key, value, plan.on_nodes)


def _status(value: Object, plan: Plan, digest: str, now: float) -> Object:
    minimum = int(value["spec"].get("minReadySeconds") or 0)
    available = sum(is_available(pod, minimum, now) for pod in plan.on_nodes)
    status: Object = {
        "currentNumberScheduled": len(plan.on_nodes),
        "desiredNumberScheduled": plan.desired,
        "numberMisscheduled": plan.misscheduled,
        "numberReady": sum(map(is_ready, plan.on_nodes)),
        "observedGeneration": value["metadata"].get("generation", 1),
    }
    updated = sum(labels_of(pod).get(HASH_LABEL) == digest for pod in plan.on_nodes)
    optional = {
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": plan.desired - available,
    }
    return status | {field: count for field, count in optional.items() if count}
