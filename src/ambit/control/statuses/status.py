"""What policies for nodes report in their status: what became of them, and whether the nodes have taken it. Those for
waypoints have a condition of their own (`ambit.ingest.statuses.policy_statuses`).

Two conditions are ours, all others are left alone: `ZtunnelAccepted`, which istiod writes too, and
`ambit.io/Acknowledged`. A condition is written when its policy or what is wrong with it changed, and once more when
every node that must take it has acknowledged; later comings and goings of nodes are not written. A condition is
written only for the very object that was compiled: never for a newer generation, nor for one made anew under its name.
"""

import datetime as dt
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ambit.control.answers import Answer, Progress
from ambit.control.discovery import Discovery
from ambit.control.statuses.restoration import Restoration
from ambit.control.statuses.status_fields import ACCEPTED, ACKNOWLEDGED, merged
from ambit.core.finding import Finding, Level, ObjectRef
from ambit.ingest.istio.authorization import is_for_requests
from ambit.ingest.mesh import Change, MeshDelta
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS
from ambit.kube.workqueue import WorkQueue
from ambit.model.policy import Authorization
from ambit.model.status import Condition
from ambit.objects.istio import AuthorizationPolicy

DRY_RUN = "AMB0204"
"""Code of the finding that a policy is in dry run."""
RECHECK = 0.1
"""Seconds after an answer of a node until the policies that wait for answers are looked at again."""
KINDS = {each.kind: each for each in (AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS)}
POLICIES = {f"{each.plural}.{each.group}": each.kind for each in KINDS.values()}
"""Kinds by the name of their changes."""
Version = tuple[str, int]
"""An object's uid and generation."""


def accepted(findings: Iterable[Finding], progress: Progress | None = None) -> Condition:
    """What the compiler and the nodes made of a policy, as a condition."""
    said = list(findings)
    found = sorted(each for each in said if each.level is not Level.INFO)
    text = "; ".join(f"{each.code} {each.path}: {each.text}".replace(" : ", ": ") for each in found)
    if any(each.level is Level.ERROR for each in found):
        return Condition(ACCEPTED, "False", "Invalid", text)
    if progress is not None and progress.rejected:
        return Condition(ACCEPTED, "False", "Rejected", f"rejected by {_names(progress.rejected)}")
    if found:
        return Condition(ACCEPTED, "True", "PartiallyInvalid", text)
    if any(each.code == DRY_RUN for each in said):
        return Condition(
            ACCEPTED, "True", "Accepted", "attached to ztunnel for a dry run: recorded, not enforced"
        )
    return Condition(ACCEPTED, "True", "Accepted", "attached to ztunnel")


def acknowledged(progress: Progress, *, one: str = "node", several: str = "nodes") -> Condition:
    """How far the nodes, or whoever is called so, are, as a condition."""
    if progress.rejected:
        return Condition(ACKNOWLEDGED, "False", "Rejected", f"rejected by {_names(progress.rejected)}")
    if progress.behind:
        return Condition(ACKNOWLEDGED, "False", "Pending", f"waiting for {_names(progress.behind)}")
    if progress.nodes == 0:
        return Condition(ACKNOWLEDGED, "Unknown", "NoNodes", "no node is connected")
    count = f"1 {one}" if progress.nodes == 1 else f"all {progress.nodes} {several}"
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


def _number(version: str) -> int:
    """A resource version; one that is no number is later than all that replicas tell each other."""
    return int(version) if version.isdecimal() else sys.maxsize


class StatusWriter:
    """Writes while `leading`. `nodes` tells which nodes must take every policy, connected or not."""

    def __init__(
        self,
        client: Client,
        discovery: Discovery,
        nodes: Callable[[], Collection[str]],
        leading: Callable[[], bool],
        wall: Callable[[], dt.datetime],
    ) -> None:
        self._client = client
        self._discovery = discovery
        self._nodes = nodes
        self._leading = leading
        self._wall = wall
        self.others: Callable[[str, int, Collection[str]], Iterable[Answer]] = lambda *_: ()
        """What nodes of other replicas say of the policies with these names, compiled from an object of that kind and
        resource version."""
        self._queue: WorkQueue[ObjectRef] = WorkQueue("policy status")
        self._restoration = Restoration(self._queue.add, leading)
        self.seen = self._restoration.seen
        """To be called with each version of an object: another writer may have changed its status."""
        self._revisions: dict[ObjectRef, dict[str, int]] = {}
        """By type: workloads name the policies that select them, so both types count."""
        self._keys: dict[ObjectRef, frozenset[str]] = {}
        """Names of the policies that nodes get for an object."""
        self._versions: dict[ObjectRef, Version] = {}
        """What was compiled last: our own status writes come back as changes."""
        self._found: dict[ObjectRef, int] = {}
        """The resource version under which a version was first found: who has that, has it."""
        self._waiting: set[ObjectRef] = set()
        self._findings: dict[str, tuple[Finding, ...]] = {}
        """By the text of their object."""

    def compiled(self, changes: Iterable[Change], delta: MeshDelta) -> None:
        """A batch was compiled and published."""
        revisions = self._discovery.revisions()
        for change in changes:
            if (kind := POLICIES.get(change.resource)) is None:
                continue
            if change.value is None:
                namespace, _, name = change.key.rpartition("/")
                self._forget(ObjectRef(kind, namespace, name))
                continue
            # Not everything said has a policy of its own on the wire, but its object wants an answer.
            if isinstance(change.value, AuthorizationPolicy) and is_for_requests(change.value):
                self._forget(change.value.metadata.reference(kind))
                continue
            metadata = change.value.metadata
            origin, version = metadata.reference(kind), (metadata.uid, metadata.generation)
            if self._versions.get(origin) != version:
                self._versions[origin] = version
                self._found.pop(origin, None)
                self._restoration.changed(origin)
                self._add(origin, revisions)
        for policy in delta.authorizations.upserts.values():
            self._concern(policy, revisions)
        for text, findings in delta.findings.upserts.items():
            self._findings[text] = findings
            self._add(findings[0].origin, revisions)
        for text in delta.findings.removals:
            if former := self._findings.pop(text, ()):
                self._add(former[0].origin, revisions)

    def started_leading(self, policies: Iterable[Authorization]) -> None:
        """Look at every policy again."""
        revisions = self._discovery.revisions()
        for policy in policies:
            self._concern(policy, revisions)
        for origin in self._versions:
            self._add(origin, revisions)

    def answered(self) -> None:
        """A node acknowledged or rejected something, or need not do so any more."""
        for origin in self._waiting:
            self._queue.add_after(origin, RECHECK)

    async def run(self) -> None:
        """Write until cancelled."""
        await self._queue.run(self._reconcile, workers=2)

    def _concern(self, policy: Authorization, revisions: dict[str, int]) -> None:
        if policy.origin is not None:
            self._keys[policy.origin] = self._keys.get(policy.origin, frozenset()) | {policy.key}
            self._add(policy.origin, revisions)

    def _add(self, origin: ObjectRef, revisions: dict[str, int]) -> None:
        if origin in self._versions:
            self._revisions[origin] = revisions
            self._queue.add(origin)

    def _forget(self, origin: ObjectRef) -> None:
        self._waiting.discard(origin)
        self._revisions.pop(origin, None)
        self._keys.pop(origin, None)
        self._versions.pop(origin, None)
        self._found.pop(origin, None)
        self._restoration.forget(origin)

    async def _reconcile(self, origin: ObjectRef) -> None:
        resource = KINDS[origin.kind]
        if not self._leading() or origin not in self._versions:
            return
        try:
            live = await self._client.get(resource, origin.name, origin.namespace)
        except NotFound:
            return
        metadata = live["metadata"]
        generation = int(metadata.get("generation") or 0)
        if self._versions.get(origin) != (metadata.get("uid"), generation):
            # The watch brings what is there now, and its compilation leads here again.
            return
        keys = self._keys.get(origin, frozenset())
        version = self._found.setdefault(origin, _number(metadata["resourceVersion"]))
        others = self.others(origin.kind, version, keys)
        progress = self._discovery.progress(self._revisions[origin], keys, self._nodes(), others)
        if progress.behind or progress.rejected or progress.nodes == 0:
            self._waiting.add(origin)
        else:
            self._waiting.discard(origin)
        existing = (live.get("status") or {}).get("conditions") or ()
        ours = [accepted(self._findings.get(str(origin), ()), progress)]
        if progress.rejected or not settled(existing, generation):
            ours.append(acknowledged(progress))
        conditions = merged(existing, ours, generation, self._wall())
        if conditions is not None:
            live = await self._client.patch(
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
        self._restoration.good(origin, str(live["metadata"]["resourceVersion"]))
