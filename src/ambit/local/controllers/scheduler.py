"""A small scheduler: binds each waiting pod to a node that it fits, the one with the fewest pods like it.

Honoured: nodeSelector, required node affinity, taints of effect NoSchedule and NoExecute, unschedulable nodes,
required pod anti-affinity within the namespace. Resources are not counted: a laptop's nodes share one
machine.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import msgspec

from ambit.core.selector import Selector
from ambit.kube.errors import Conflict, NotFound
from ambit.kube.reflector import Key
from ambit.kube.resource import NODES, PODS
from ambit.local.controllers.caches import Caches
from ambit.local.controllers.controller import Controller
from ambit.local.controllers.objects import (
    Object,
    condition_of,
    controller_of,
    is_deleting,
    key_of,
    labels_of,
    timestamp,
    uid_of,
)
from ambit.local.controllers.pods import is_terminal

SCHEDULER = "default-scheduler"


def is_waiting(pod: Object) -> bool:
    """It needs a node from this scheduler, and no gate holds it back."""
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and not is_deleting(pod)
        and not is_terminal(pod)
        and not spec.get("schedulingGates")
        and spec.get("schedulerName", SCHEDULER) == SCHEDULER
    )


def is_schedulable(node: Object) -> bool:
    ready = condition_of(node, "Ready")
    return not (node.get("spec") or {}).get("unschedulable") and (ready or {}).get("status") == "True"


def matches_node(pod: Object, node: Object) -> bool:
    """nodeSelector and required node affinity."""
    labels = labels_of(node)
    wanted = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(_holds(item, labels) for item in term.get("matchExpressions") or ())
        and all(_holds(item, fields) for item in term.get("matchFields") or ())
        for term in required.get("nodeSelectorTerms") or ()
    )


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    present = labels.get(requirement["key"])
    values = list(requirement.get("values") or ())
    match requirement["operator"]:
        case "In":
            return present in values
        case "NotIn":
            return present not in values
        case "Exists":
            return present is not None
        case "DoesNotExist":
            return present is None
        case "Gt" | "Lt" as operator:
            if present is None or not present.lstrip("-").isdigit():
                return False
            return int(present) > int(values[0]) if operator == "Gt" else int(present) < int(values[0])
        case _:
            return False


def tolerates(
    pod: Object, node: Object, effects: frozenset[str] = frozenset({"NoSchedule", "NoExecute"})
) -> bool:
    """Every taint of these effects is tolerated."""
    tolerations = pod["spec"].get("tolerations") or ()
    return all(
        any(_covers(toleration, taint) for toleration in tolerations)
        for taint in (node.get("spec") or {}).get("taints") or ()
        if taint.get("effect") in effects
    )


def _covers(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def choose_node(pod: Object, nodes: Iterable[Object], pods: Iterable[Object]) -> str | None:
    """The best node's name, or None if none fits. Ties go by name, so the choice is reproducible."""
    nodes = list(nodes)
    here: dict[str, list[Object]] = {node["metadata"]["name"]: [] for node in nodes}
    for other in pods:
        if not is_terminal(other) and other["spec"].get("nodeName") in here:
            here[other["spec"]["nodeName"]].append(other)
    owner = (controller_of(pod) or {}).get("uid")
    best: tuple[int, int, str] | None = None
    for node in nodes:
        name = node["metadata"]["name"]
        if not (is_schedulable(node) and matches_node(pod, node) and tolerates(pod, node)):
            continue
        if _is_repelled(pod, node, nodes, here):
            continue
        alike = sum((controller_of(other) or {}).get("uid") == owner for other in here[name]) if owner else 0
        rank = (alike, len(here[name]), name)
        best = rank if best is None else min(best, rank)
    return best[2] if best else None


def _is_repelled(pod: Object, node: Object, nodes: list[Object], here: dict[str, list[Object]]) -> bool:
    affinity = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
        topology = term.get("topologyKey", "")
        place = labels_of(node).get(topology)
        if place is None:
            continue
        selector = msgspec.convert(term.get("labelSelector") or {}, Selector)
        for other_node in nodes:
            if labels_of(other_node).get(topology) != place:
                continue
            for other in here[other_node["metadata"]["name"]]:
                same_space = key_of(other)[0] == key_of(pod)[0]
                if same_space and uid_of(other) != uid_of(pod) and selector.matches(labels_of(other)):
                    return True
    return False


class Scheduler(Controller):
    """Pods without a node -> bindings."""

    name: ClassVar[str] = SCHEDULER

    def __init__(self, caches: Caches) -> None:
        super().__init__(caches)
        self.pods = self.watch(PODS, lambda pod: (key_of(pod),) if is_waiting(pod) else ())
        self.nodes = self.watch(NODES, lambda _: self._all_waiting())
        self._assumed: dict[str, str] = {}

    def _all_waiting(self) -> list[Key]:
        return [key_of(pod) for pod in self.pods.items.values() if is_waiting(pod)]

    async def run(self) -> None:
        """One pod at a time, so that each choice sees the one before."""
        await self.pods.informer.wait_synced()
        await self.nodes.informer.wait_synced()
        await self.queue.run(self.reconcile, workers=1)

    async def reconcile(self, key: Key) -> None:
        pod = self.pods.get(key)
        if pod is None or not is_waiting(pod) or uid_of(pod) in self._assumed:
            return
        node = choose_node(pod, self.nodes.items.values(), self._placed())
        if node is None:
            await self._unschedulable(pod)
            return
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": key[1], "namespace": key[0], "uid": uid_of(pod)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self.client.create(PODS, binding, subresource="binding")
        except (NotFound, Conflict):
            return
        self._assumed[uid_of(pod)] = node
        text = f"Successfully assigned {key[0]}/{key[1]} to {node}"
        await self.record(PODS, pod, "Scheduled", text)

    def _placed(self) -> list[Object]:
        """All pods, with own bindings that the cache does not show yet."""
        placed: list[Object] = []
        open_bindings: dict[str, str] = {}
        for pod in self.pods.items.values():
            node = self._assumed.get(uid_of(pod))
            if node is not None and not pod["spec"].get("nodeName"):
                open_bindings[uid_of(pod)] = node
                placed.append({**pod, "spec": {**pod["spec"], "nodeName": node}})
            else:
                placed.append(pod)
        self._assumed = open_bindings
        return placed

    async def _unschedulable(self, pod: Object) -> None:
        count = len(self.nodes.items)
        message = f"0/{count} nodes are available: none is ready and matches the pod's node constraints."
        before = condition_of(pod, "PodScheduled")
        if before is not None and before.get("message") == message:
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": timestamp(time.time()),
        }
        conditions = [
            item
            for item in (pod.get("status") or {}).get("conditions") or ()
            if item["type"] != "PodScheduled"
        ]
        namespace, name = key_of(pod)
        patch = {"status": {"conditions": [*conditions, condition]}}
        await self.client.patch(PODS, name, patch, namespace, subresource="status")
        await self.record(PODS, pod, "FailedScheduling", message, kind="Warning")
