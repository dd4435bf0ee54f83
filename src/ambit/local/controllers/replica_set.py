"""ReplicaSet: keeps the asked number of pods of one template.

Status fields and the order of deletion follow Kubernetes' ReplicaSet controller.
"""

import time
from typing import ClassVar

from ambit.kube.errors import ApiError
from ambit.kube.reflector import Key
from ambit.kube.resource import PODS, REPLICA_SETS, Resource
from ambit.local.controllers.caches import Caches
from ambit.local.controllers.objects import (
    Object,
    controller_of,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
    selector_of,
    with_condition,
)
from ambit.local.controllers.pod_owner import PodOwner
from ambit.local.controllers.pods import (
    deletion_order,
    is_active,
    is_available,
    is_ready,
    pod_from_template,
)

BURST = 50
"""Pods created or deleted in one pass; the rest follows when the cache shows these."""


class ReplicaSetController(PodOwner):
    """ReplicaSet -> Pods."""

    name: ClassVar[str] = "replicaset-controller"
    resource: ClassVar[Resource] = REPLICA_SETS

    def __init__(self, caches: Caches) -> None:
        super().__init__(caches)
        self.watch(PODS, self._possible_owners)

    def _possible_owners(self, pod: Object) -> list[Key]:
        if controller_of(pod) is not None:
            return []
        labels = labels_of(pod)
        return [
            key_of(value)
            for value in self.owners.in_namespace(key_of(pod)[0])
            if selector_of(value).matches(labels)
        ]

    async def look(self, key: Key, value: Object) -> None:
        now = time.time()
        pods = [pod for pod in await self.claim(REPLICA_SETS, value, PODS) if is_active(pod)]
        failure: ApiError | None = None
        if not is_deleting(value):
            try:
                await self._scale(key, value, pods)
            except ApiError as error:
                failure = error
        await self.write_status(REPLICA_SETS, value, _status(value, pods, failure, now))
        self.look_when_available(key, value, pods)
        if failure is not None:
            raise failure

    async def _scale(self, key: Key, value: Object, pods: list[Object]) -> None:
        wanted = int(value["spec"].get("replicas", 1))
        missing = wanted - len(pods)
        for _ in range(min(missing, BURST)):
            owner = owner_reference(REPLICA_SETS, value)
            new = pod_from_template(value["spec"]["template"], key[0], owner, prefix=f"{key[1]}-")
            await self.create_pod(key, value, new)
        if missing >= 0:
            return
        for pod in sorted(pods, key=deletion_order)[: min(-missing, BURST)]:
            await self.delete_pod(key, value, pod)


def _status(value: Object, pods: list[Object], failure: ApiError | None, now: float) -> Object:
    minimum = int(value["spec"].get("minReadySeconds") or 0)
    template_labels = (value["spec"]["template"].get("metadata") or {}).get("labels") or {}
    conditions = list((value.get("status") or {}).get("conditions") or ())
    if failure is not None:
        conditions = with_condition(
            conditions,
            {
                "type": "ReplicaFailure",
                "status": "True",
                "reason": "FailedCreate",
                "message": failure.message,
            },
            now,
        )
    else:
        conditions = [item for item in conditions if item["type"] != "ReplicaFailure"]
    status: Object = {
        "replicas": len(pods),
        "fullyLabeledReplicas": sum(template_labels.items() <= labels_of(pod).items() for pod in pods),
        "readyReplicas": sum(map(is_ready, pods)),
        "availableReplicas": sum(is_available(pod, minimum, now) for pod in pods),
        "observedGeneration": value["metadata"].get("generation", 1),
    }
    for field in ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"):
        if not status[field]:
            del status[field]
    if conditions:
        status["conditions"] = conditions
    return status
