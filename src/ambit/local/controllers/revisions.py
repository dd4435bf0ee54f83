"""ControllerRevisions: the numbered history of a DaemonSet's or StatefulSet's template.

`kubectl rollout history` and `undo` read them; pods carry the name's hash as `controller-revision-hash`.
"""

from collections.abc import Sequence

from ambit.kube.client import Client
from ambit.kube.errors import AlreadyExists, NotFound
from ambit.kube.resource import CONTROLLER_REVISIONS, Resource
from ambit.local.controllers.caches import Cache
from ambit.local.controllers.objects import (
    Object,
    annotations_of,
    key_of,
    labels_of,
    owner_reference,
    short_hash,
    uid_of,
)

HASH_LABEL = "controller-revision-hash"
CHANGE_CAUSE = "kubernetes.io/change-cause"


def snapshot(owner: Object) -> Object:
    """What a revision keeps: a patch that puts the template back."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def history_of(cache: Cache, owner: Object) -> list[Object]:
    """The owner's revisions, oldest first."""
    return sorted(cache.owned_by(uid_of(owner)), key=lambda item: (int(item["revision"]), key_of(item)))


async def present_revision(
    client: Client, resource: Resource, owner: Object, history: Sequence[Object]
) -> Object:
    """The revision of the owner's present template: found, renumbered if it was an older one, or created."""
    data = snapshot(owner)
    newest = int(history[-1]["revision"]) if history else 0
    found = next((item for item in reversed(history) if item["data"] == data), None)
    namespace, name = key_of(owner)
    if found is not None:
        if int(found["revision"]) == newest:
            return found
        patch = {"revision": newest + 1}
        return await client.patch(CONTROLLER_REVISIONS, found["metadata"]["name"], patch, namespace)
    digest = short_hash(data)
    template_labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
    metadata: Object = {
        "name": f"{name}-{digest}",
        "namespace": namespace,
        "labels": {**template_labels, HASH_LABEL: digest},
        "ownerReferences": [owner_reference(resource, owner)],
    }
    if CHANGE_CAUSE in annotations_of(owner):
        metadata["annotations"] = {CHANGE_CAUSE: annotations_of(owner)[CHANGE_CAUSE]}
    value = {"metadata": metadata, "data": data, "revision": newest + 1}
    try:
        return await client.create(CONTROLLER_REVISIONS, value)
    except AlreadyExists:
        return await client.get(CONTROLLER_REVISIONS, metadata["name"], namespace)


def revision_hash(revision: Object) -> str:
    """The value of the pods' `controller-revision-hash` label."""
    return labels_of(revision).get(HASH_LABEL, "")


async def forget_old(client: Client, owner: Object, history: Sequence[Object], live: frozenset[str]) -> None:
    """Delete the oldest revisions beyond the history limit whose hash is not in `live`."""
    limit = int(owner["spec"].get("revisionHistoryLimit", 10))
    idle = [item for item in history if revision_hash(item) not in live]
    for item in idle[: max(0, len(idle) - limit)]:
        try:
            await client.delete(CONTROLLER_REVISIONS, item["metadata"]["name"], key_of(owner)[0])
        except NotFound:
            continue
