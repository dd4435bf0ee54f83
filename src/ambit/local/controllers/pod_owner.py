"""What the controllers that own pods share: not counting before the cache shows their own writes, events, due times."""

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from ambit.kube.errors import ApiError
from ambit.kube.reflector import Key
from ambit.kube.resource import PODS, Resource
from ambit.local.controllers.caches import Caches, Expectations
from ambit.local.controllers.controller import Controller, controlled_keys
from ambit.local.controllers.objects import Object, key_of
from ambit.local.controllers.pods import available_at


class PodOwner(Controller):
    """Objects of one kind -> pods. Subclasses implement `look`.

    `created`, `refused` and `deleted` are Kubernetes' own words for events about `{pod}` of `{owner}`.
    """

    resource: ClassVar[Resource]
    created: ClassVar[str] = "Created pod: {pod}"
    refused: ClassVar[str] = "Error creating: {reason}"
    deleted: ClassVar[str] = "Deleted pod: {pod}"

    def __init__(self, caches: Caches) -> None:
        super().__init__(caches)
        self.owners = self.watch(self.resource)
        self.pods = self.watch(PODS, controlled_keys(self.resource.kind))
        self._expected = Expectations(self.pods)

    @abstractmethod
    async def look(self, key: Key, value: Object) -> None:
        """Do what is missing for this object; called only when `pods` shows all that was done before."""

    async def reconcile(self, key: Key) -> None:
        value = self.owners.get(key)
        if value is None:
            self._expected.forget(key)
        elif self._expected.are_met(key):
            await self.look(key, value)
        else:
            self.queue.add_after(key, Expectations.TIMEOUT)

    async def create_pod(self, key: Key, value: Object, pod: Object) -> None:
        """Create it and tell so in an event. Raises ApiError, after an event that says why."""
        try:
            made = await self.client.create(PODS, pod)
        except ApiError as error:
            name = pod["metadata"].get("name", "")
            text = self.refused.format(pod=name, owner=key[1], reason=error.message)
            await self.record(self.resource, value, "FailedCreate", text, kind="Warning")
            raise
        self._expected.created(key, made)
        text = self.created.format(pod=key_of(made)[1], owner=key[1])
        await self.record(self.resource, value, "SuccessfulCreate", text)

    async def delete_pod(self, key: Key, value: Object, pod: Object) -> None:
        """Delete it and tell so in an event."""
        self._expected.deleted(key, pod)
        await self.remove(PODS, pod)
        text = self.deleted.format(pod=key_of(pod)[1], owner=key[1])
        await self.record(self.resource, value, "SuccessfulDelete", text)

    def look_when_available(self, key: Key, value: Object, pods: Sequence[Object]) -> None:
        """Look again when the first of the ready pods has been so for `minReadySeconds`: no event tells."""
        minimum, now = int(value["spec"].get("minReadySeconds") or 0), time.time()
        due = [at for pod in pods if (at := available_at(pod, minimum)) is not None and at > now]
        if minimum and due:
            self.queue.add_after(key, min(due) - now + 0.05)
