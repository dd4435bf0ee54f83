"""What policies report in their status: what became of them, and whether the nodes have taken it.

Two conditions are ours, all others are left alone: `ZtunnelAccepted`, which istiod writes too, and
`ambit.io/Acknowledged`. A condition is written when its policy or what is wrong with it changed, and once more when
every node that was connected has acknowledged; later comings and goings of nodes are not written.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from ambit.control.discovery import Discovery, Progress
from ambit.core.finding import Finding, Level, ObjectRef
from ambit.ingest.mesh import Change, MeshDelta
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS
from ambit.kube.workqueue import WorkQueue
from ambit.model.policy import Authorization
from ambit.objects.istio import PeerAuthentication
from ambit.xds.messages import AUTHORIZATION_TYPE

ACCEPTED = "ZtunnelAccepted"
ACKNOWLEDGED = "ambit.io/Acknowledged"
RECHECK = 0.1
"""Seconds after an answer of a node until the policies that wait for answers are looked at again."""
KINDS = {each.kind: each for each in (AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS)}


class Condition(msgspec.Struct, frozen=True):
    """A metav1.Condition without its times."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def accepted(findings: Iterable[Finding]) -> Condition:
    """What the compiler made of a policy, as a condition."""
    found = sorted(each for each in findings if each.level is not Level.INFO)
    text = "; ".join(f"{each.code} {each.path}: {each.text}".replace(" : ", ": ") for each in found)
    if any(each.level is Level.ERROR for each in found):
        return Condition(ACCEPTED, "False", "Invalid", text)
    if found:
        return Condition(ACCEPTED, "True", "PartiallyInvalid", text)
    return Condition(ACCEPTED, "True", "Accepted", "attached to ztunnel")


def acknowledged(progress: Progress) -> Condition:
    """How far the nodes are, as a condition."""
    if progress.rejected:
        return Condition(ACKNOWLEDGED, "False", "Rejected", f"rejected by {_names(progress.rejected)}")
    if progress.behind:
        return Condition(ACKNOWLEDGED, "False", "Pending", f"waiting for {_names(progress.behind)}")
    if progress.nodes == 0:
        return Condition(ACKNOWLEDGED, "Unknown", "NoNodes", "no node is connected")
    count = "1 node" if progress.nodes == 1 else f"all {progress.nodes} nodes"
    return Condition(ACKNOWLEDGED, "True", "Acknowledged", f"acknowledged by {count}")


def _names(nodes: tuple[str, ...], shown: int = 5) -> str:
    more = len(nodes) - shown
    return ", ".join(nodes[:shown]) + (f" and {more} more" if more > 0 else "")


def settled(existing: Iterable[Mapping[str, Any]], generation: int) -> bool:
    """Whether this generation was acknowledged by all nodes: that stays true when nodes or we come back."""
    return any(
        each.get("type") == ACKNOWLEDGED
        and each.get("status") == "True"
        and each.get("observedGeneration") == generation
        for each in existing
    )


def merged(
    existing: Iterable[Mapping[str, Any]], ours: Iterable[Condition], generation: int, now: dt.datetime
) -> list[dict[str, Any]] | None:
    """The list of conditions with ours in it, or None when nothing changes."""
    result = [dict(each) for each in existing]
    before = [dict(each) for each in result]
    for condition in ours:
        wanted = msgspec.to_builtins(condition) | {"observedGeneration": generation}
        known = next((each for each in result if each.get("type") == condition.type), None)
        if known is None:
            result.append(wanted | {"lastTransitionTime": _time(now)})
            continue
        if known.get("status") != condition.status:
            known["lastTransitionTime"] = _time(now)
        known.update(wanted)
    return None if result == before else result


def _time(now: dt.datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


class StatusWriter:
    """Writes while `leading`."""

    def __init__(
        self,
        client: Client,
        discovery: Discovery,
        leading: Callable[[], bool],
        wall: Callable[[], dt.datetime],
    ) -> None:
        self._client = client
        self._discovery = discovery
        self._leading = leading
        self._wall = wall
        self._queue: WorkQueue[ObjectRef] = WorkQueue("policy status")
        self._revisions: dict[ObjectRef, int] = {}
        self._keys: dict[ObjectRef, frozenset[str]] = {}
        """Names of the policies that nodes get for an object."""
        self._generations: dict[ObjectRef, int] = {}
        """Of the peer authentications seen: our own status writes come back as changes."""
        self._waiting: set[ObjectRef] = set()
        self._findings: dict[str, tuple[Finding, ...]] = {}
        """By the text of their object."""

    def compiled(self, changes: Iterable[Change], delta: MeshDelta) -> None:
        """A batch was compiled and published."""
        revision = self._discovery.store.revision(AUTHORIZATION_TYPE)
        for change in changes:
            # Mutual TLS of a namespace has no policy of its own on the wire, but its object wants an answer.
            if isinstance(change.value, PeerAuthentication):
                origin = change.value.metadata.reference(PEER_AUTHENTICATIONS.kind)
                if self._generations.get(origin) != change.value.metadata.generation:
                    self._generations[origin] = change.value.metadata.generation
                    self._add(origin, revision)
        for policy in delta.authorizations.upserts.values():
            self._concern(policy, revision)
        for text, findings in delta.findings.upserts.items():
            self._findings[text] = findings
            self._add(findings[0].origin, revision)
        for text in delta.findings.removals:
            if former := self._findings.pop(text, ()):
                self._add(former[0].origin, revision)

    def started_leading(self, policies: Iterable[Authorization]) -> None:
        """Look at every policy again."""
        revision = self._discovery.store.revision(AUTHORIZATION_TYPE)
        for policy in policies:
            self._concern(policy, revision)
        for findings in self._findings.values():
            self._add(findings[0].origin, revision)
        for origin in self._generations:
            self._add(origin, revision)

    def answered(self) -> None:
        """A node acknowledged or rejected policies."""
        for origin in self._waiting:
            self._queue.add_after(origin, RECHECK)

    async def run(self) -> None:
        """Write until cancelled."""
        await self._queue.run(self._reconcile, workers=2)

    def _concern(self, policy: Authorization, revision: int) -> None:
        if policy.origin is not None:
            self._keys[policy.origin] = self._keys.get(policy.origin, frozenset()) | {policy.key}
            self._add(policy.origin, revision)

    def _add(self, origin: ObjectRef, revision: int) -> None:
        if origin.kind in KINDS:
            self._revisions[origin] = revision
            self._queue.add(origin)

    async def _reconcile(self, origin: ObjectRef) -> None:
        if not self._leading():
            return
        resource = KINDS[origin.kind]
        try:
            live = await self._client.get(resource, origin.name, origin.namespace)
        except NotFound:
            self._waiting.discard(origin)
            self._revisions.pop(origin, None)
            self._keys.pop(origin, None)
            self._generations.pop(origin, None)
            return
        progress = self._discovery.progress(
            AUTHORIZATION_TYPE, self._revisions.get(origin, 0), self._keys.get(origin, frozenset())
        )
        if progress.behind or progress.nodes == 0:
            self._waiting.add(origin)
        else:
            self._waiting.discard(origin)
        metadata = live["metadata"]
        generation = int(metadata.get("generation") or 0)
        existing = (live.get("status") or {}).get("conditions") or ()
        ours = [accepted(self._findings.get(str(origin), ()))]
        if progress.rejected or not settled(existing, generation):
            ours.append(acknowledged(progress))
        conditions = merged(existing, ours, generation, self._wall())
        if conditions is not None:
            await self._client.patch(
                resource,
                origin.name,
                {
                    "metadata": {"resourceVersion": metadata.get("resourceVersion")},
                    "status": {"conditions": conditions},
                },
                origin.namespace,
                subresource="status",
                field_manager="ambit",
            )
