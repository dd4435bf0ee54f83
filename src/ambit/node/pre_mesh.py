"""Connections that are older than their pod's enrolment: counted, and cut when policy refuses them.

They stay as they were, in plain text and past the proxy (capturing one in the middle would break it), for as long as
the pod's policy permits plain text from their client. A change of policy is looked at when it comes
(`ambit.node.process`); this looks at pods that have such connections every few seconds, so that it also finds what
policy refused from the beginning, and forgets what has ended.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable

from ambit.core.errors import AmbitError
from ambit.node import connections
from ambit.node.enrol.enroller import Enroller
from ambit.plan.values import LocalPod

_log = logging.getLogger("ambit.policy")
LOOK_SECONDS = 5.0
Cut = Callable[[Collection[LocalPod]], Awaitable[object]]


class PreMesh:
    """The pre-mesh connections of a node. `cut` ends what policy denies in these pods."""

    def __init__(self, enroller: Enroller, pods: Callable[[], Iterable[LocalPod]], cut: Cut) -> None:
        self._enroller = enroller
        self._pods = pods
        self._cut = cut
        self.inbound: dict[str, int] = {}
        self.outbound: dict[str, int] = {}
        """How many there are by pod key, at the last look."""

    def of(self, pod: LocalPod) -> tuple[int, ...]:
        """Cookies of sockets that may be pre-mesh connections of `pod`."""
        return self._enroller.open_before(pod.uid)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            concerned = [pod for pod in self._pods() if self.of(pod)]
            if concerned:
                await self._cut_denied(concerned)
            for pod in concerned:
                await self._look(pod)
            for counts in (self.inbound, self.outbound):
                for key in counts.keys() - {pod.key for pod in concerned}:
                    del counts[key]
            await asyncio.sleep(LOOK_SECONDS)

    async def _cut_denied(self, concerned: Collection[LocalPod]) -> None:
        try:
            await self._cut(concerned)
        except AmbitError as problem:
            _log.warning("policy cannot be read: %s", problem.message)

    async def _look(self, pod: LocalPod) -> None:
        before = self.of(pod)
        try:
            found = await asyncio.to_thread(connections.look, pod, before)
        except OSError as problem:
            _log.warning("open connections of %s cannot be seen: %s", pod.key, problem.strerror or problem)
            return
        self._enroller.ended_before(pod.uid, found.pre_mesh)
        self.inbound[pod.key] = len(found.pre_mesh_inbound)
        self.outbound[pod.key] = len(found.pre_mesh_outbound)
