"""StatefulSet: pods with stable names, started and stopped in order.

OrderedReady handles one pod at a time, in both directions; Parallel all at once. Rolling updates go from
the highest ordinal down to `partition`. Claims are made from volumeClaimTemplates and kept.
"""

import copy
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

import msgspec

from ambit.kube.errors import AlreadyExists
from ambit.kube.reflector import Key
from ambit.kube.resource import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS, Resource
from ambit.local.controllers.caches import Caches
from ambit.local.controllers.controller import controlled_keys
from ambit.local.controllers.objects import (
    Object,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
)
from ambit.local.controllers.pod_owner import PodOwner
from ambit.local.controllers.pods import (
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
)

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


class Plan(msgspec.Struct, frozen=True):
    """Ordinals to start now, with the revision each must have, and pods to delete now."""

    create: tuple[tuple[int, str], ...]
    delete: tuple[Object, ...]


def plan_stateful(value: Object, pods: Sequence[Object], current: str, update: str, now: float) -> Plan:
    """The next step. `current` and `update` are names of ControllerRevisions; `now` is in Unix seconds."""
    spec = value["spec"]
    first = int((spec.get("ordinals") or {}).get("start", 0))
    wanted = range(first, first + int(spec.get("replicas", 1)))
    strategy = spec.get("updateStrategy") or {}
    rolling = strategy.get("type", "RollingUpdate") == "RollingUpdate"
    partition = int((strategy.get("rollingUpdate") or {}).get("partition", 0))
    by_ordinal = {ordinal: pod for pod in pods if (ordinal := ordinal_of(value, pod)) is not None}
    settled = {
        ordinal
        for ordinal, pod in by_ordinal.items()
        if not is_deleting(pod) and is_available(pod, int(spec.get("minReadySeconds") or 0), now)
    }
    create: list[tuple[int, str]] = []
    delete: list[Object] = []
    surplus = sorted((ordinal for ordinal in by_ordinal if ordinal not in wanted), reverse=True)
    for ordinal in (*wanted, *surplus):
        pod = by_ordinal.get(ordinal)
        if pod is None:
            create.append((ordinal, update if rolling and ordinal >= partition else current))
        elif ordinal in settled and ordinal in wanted:
            continue
        elif not is_deleting(pod) and (is_terminal(pod) or ordinal not in wanted):
            delete.append(pod)
        if spec.get("podManagementPolicy") != "Parallel":
            break
    if rolling and not create and not delete and not surplus:
        delete = _outdated(wanted, partition, by_ordinal, settled, update)
    return Plan(tuple(create), tuple(delete))


def _outdated(
    wanted: range, partition: int, by_ordinal: dict[int, Object], settled: set[int], update: str
) -> list[Object]:
    """The next pod of a rolling update: the highest old one, once all above it are settled.

    An old pod that never became ready is replaced as well, so a broken revision can be rolled back.
    """
    for ordinal in reversed(wanted):
        pod = by_ordinal.get(ordinal)
        if pod is None:
            # It waits for one below it, perhaps a broken one of an old revision: that one must not hold us up.
            continue
        if ordinal >= partition and labels_of(pod).get(HASH_LABEL) != update:
            return [] if is_deleting(pod) else [pod]
        if ordinal not in settled:
            break
    return []


def ordinal_of(value: Object, pod: Object) -> int | None:
    """The number at the end of the pod's name; None if it is not one of this set's names."""
    prefix, _, number = key_of(pod)[1].rpartition("-")
    return int(number) if prefix == key_of(value)[1] and number.isdigit() else None


def stateful_pod(value: Object, template: Object, ordinal: int, revision: str) -> Object:
    """The pod of one ordinal, made from a revision's template."""
    namespace, name = key_of(value)
    pod_name = f"{name}-{ordinal}"
    pod = pod_from_template(template, namespace, owner_reference(STATEFUL_SETS, value), name=pod_name)
    labels = {POD_NAME: pod_name, POD_INDEX: str(ordinal), HASH_LABEL: revision}
    pod["metadata"]["labels"] = {**labels_of(pod), **labels}
    pod["spec"]["hostname"] = pod_name
    if value["spec"].get("serviceName"):
        pod["spec"]["subdomain"] = value["spec"]["serviceName"]
    claims = [claim["metadata"]["name"] for claim in value["spec"].get("volumeClaimTemplates") or ()]
    if claims:
        volumes = [v for v in pod["spec"].get("volumes") or () if v["name"] not in claims]
        volumes += [
            {"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{pod_name}"}} for claim in claims
        ]
        pod["spec"]["volumes"] = volumes
    return pod


class StatefulSetController(PodOwner):
    """StatefulSets -> pods and claims."""

    name: ClassVar[str] = "statefulset-controller"
    resource: ClassVar[Resource] = STATEFUL_SETS
    created: ClassVar[str] = "create Pod {pod} in StatefulSet {owner} successful"
    refused: ClassVar[str] = "create Pod {pod} in StatefulSet {owner} failed error: {reason}"
    deleted: ClassVar[str] = "delete Pod {pod} in StatefulSet {owner} successful"

    def __init__(self, caches: Caches) -> None:
        super().__init__(caches)
        self.revisions = self.watch(CONTROLLER_REVISIONS, controlled_keys("StatefulSet"))

    async def look(self, key: Key, value: Object) -> None:
        if is_deleting(value):
            return
        now = time.time()
        history = history_of(self.revisions, value)
        newest = await present_revision(self.client, STATEFUL_SETS, value, history)
        update = newest["metadata"]["name"]
        names = {item["metadata"]["name"] for item in history}
        current = (value.get("status") or {}).get("currentRevision") or update
        if current not in names:
            current = update
        pods = await self.claim(STATEFUL_SETS, value, PODS)
        plan = plan_stateful(value, pods, current, update, now)
        for pod in plan.delete:
            await self.delete_pod(key, value, pod)
        templates = {item["metadata"]["name"]: item for item in (*history, newest)}
        for ordinal, revision in plan.create:
            template = copy.deepcopy(templates[revision]["data"]["spec"]["template"])
            template.pop("$patch", None)
            pod = stateful_pod(value, template, ordinal, revision)
            await self._create_claims(value, pod)
            await self.create_pod(key, value, pod)
        status = stateful_status(value, pods, current, update, now)
        await self.write_status(STATEFUL_SETS, value, status)
        used = frozenset({current, update, *(labels_of(pod).get(HASH_LABEL, "") for pod in pods)})
        live = frozenset(labels_of(templates[name]).get(HASH_LABEL, "") for name in used if name in templates)
        await forget_old(self.client, value, history, live)
        self.look_when_available(key, value, pods)

    async def _create_claims(self, value: Object, pod: Object) -> None:
        namespace, pod_name = key_of(pod)
        for claim in value["spec"].get("volumeClaimTemplates") or ():
            metadata = {**claim["metadata"], "name": f"{claim['metadata']['name']}-{pod_name}"}
            with suppress(AlreadyExists):
                await self.client.create(
                    PERSISTENT_VOLUME_CLAIMS, {"metadata": metadata, "spec": claim["spec"]}, namespace
                )


def stateful_status(value: Object, pods: Sequence[Object], current: str, update: str, now: float) -> Object:
    """The status; a finished rolling update makes the update revision the current one."""
    spec = value["spec"]
    minimum = int(spec.get("minReadySeconds") or 0)
    alive = [pod for pod in pods if not is_deleting(pod) and not is_terminal(pod)]
    updated = sum(labels_of(pod).get(HASH_LABEL) == update for pod in alive)
    available = sum(is_available(pod, minimum, now) for pod in alive)
    total = int(spec.get("replicas", 1))
    if updated == total == len(alive) and all(map(is_ready, alive)):
        current = update
    status: Object = {
        "observedGeneration": value["metadata"].get("generation", 1),
        "replicas": len(pods),
        "availableReplicas": available,
        "collisionCount": 0,
        "currentRevision": current,
        "updateRevision": update,
    }
    optional = {
        "readyReplicas": sum(map(is_ready, alive)),
        "currentReplicas": sum(labels_of(pod).get(HASH_LABEL) == current for pod in alive),
        "updatedReplicas": updated,
    }
    return status | {field: count for field, count in optional.items() if count}
