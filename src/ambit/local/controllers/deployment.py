"""Deployment: carries out what `rollout.plan_rollout` decides."""

import time
from typing import ClassVar

from ambit.kube.errors import AlreadyExists
from ambit.kube.reflector import Key
from ambit.kube.resource import DEPLOYMENTS, PODS, REPLICA_SETS
from ambit.local.controllers.caches import Caches, Expectations
from ambit.local.controllers.controller import Controller, controlled_keys
from ambit.local.controllers.objects import (
    Object,
    annotations_of,
    controller_of,
    key_of,
    labels_of,
    owner_reference,
    selector_of,
    uid_of,
)
from ambit.local.controllers.pods import is_terminal
from ambit.local.controllers.rollout import REVISION, Adjust, Create, Remove, find_new, plan_rollout


class DeploymentController(Controller):
    """Deployment -> ReplicaSets."""

    name: ClassVar[str] = "deployment-controller"

    def __init__(self, caches: Caches) -> None:
        super().__init__(caches)
        self.deployments = self.watch(DEPLOYMENTS)
        self.sets = self.watch(REPLICA_SETS, controlled_keys("Deployment"))
        self.watch(REPLICA_SETS, self._possible_owners)
        self.pods = self.watch(PODS, self._recreating)
        self.expected = Expectations(self.sets)

    def _possible_owners(self, value: Object) -> list[Key]:
        if controller_of(value) is not None:
            return []
        space = self.deployments.in_namespace(key_of(value)[0])
        return [key_of(item) for item in space if selector_of(item).matches(labels_of(value))]

    def _recreating(self, pod: Object) -> list[Key]:
        """Only the Recreate strategy waits for pods themselves."""
        owner = controller_of(pod)
        if owner is None or owner["kind"] != "ReplicaSet":
            return []
        parent = self.sets.get((key_of(pod)[0], owner["name"]))
        grand = controller_of(parent) if parent is not None else None
        if grand is None:
            return []
        key = (key_of(pod)[0], grand["name"])
        deployment = self.deployments.get(key)
        if deployment is None or (deployment["spec"].get("strategy") or {}).get("type") != "Recreate":
            return []
        return [key]

    async def reconcile(self, key: Key) -> None:
        deployment = self.deployments.get(key)
        if deployment is None:
            self.expected.forget(key)
            return
        if not self.expected.are_met(key):
            self.queue.add_after(key, Expectations.TIMEOUT)
            return
        sets = await self.claim(DEPLOYMENTS, deployment, REPLICA_SETS)
        new = find_new(deployment, sets)
        running = any(
            not is_terminal(pod)
            for item in sets
            if item is not new
            for pod in self.pods.owned_by(uid_of(item))
        )
        plan = plan_rollout(deployment, sets, old_pods_running=running, now=time.time())
        if plan.revision and annotations_of(deployment).get(REVISION) != plan.revision:
            patch = {"metadata": {"annotations": {REVISION: plan.revision}}}
            await self.client.patch(DEPLOYMENTS, key[1], patch, key[0])
        for action in plan.actions:
            await self._do(key, deployment, action)
        await self.write_status(DEPLOYMENTS, deployment, plan.status)
        if plan.check_after is not None:
            self.queue.add_after(key, plan.check_after)

    async def _do(self, key: Key, deployment: Object, action: Create | Adjust | Remove) -> None:
        match action:
            case Create(value):
                value["metadata"]["ownerReferences"] = [owner_reference(DEPLOYMENTS, deployment)]
                try:
                    created = await self.client.create(REPLICA_SETS, value)
                except AlreadyExists:
                    # Ours from a write that the cache does not show yet; look again once it does.
                    self.queue.add_after(key, 0.05)
                    return
                self.expected.created(key, created)
                size = value["spec"]["replicas"]
                await self._scaled(deployment, "up", value["metadata"]["name"], 0, size)
            case Adjust(name, replicas, annotations, before):
                patch = {"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}}
                await self.client.patch(REPLICA_SETS, name, patch, key[0])
                if replicas != before:
                    direction = "up" if replicas > before else "down"
                    await self._scaled(deployment, direction, name, before, replicas)
            case Remove(name):
                found = self.sets.get((key[0], name))
                if found is not None:
                    self.expected.deleted(key, found)
                    await self.remove(REPLICA_SETS, found)

    async def _scaled(self, deployment: Object, direction: str, name: str, before: int, after: int) -> None:
        text = f"Scaled {direction} replica set {name} from {before} to {after}"
        await self.record(DEPLOYMENTS, deployment, "ScalingReplicaSet", text)
