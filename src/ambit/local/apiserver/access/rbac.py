"""Role-based access control: may this user do this? Spec: rbac.authorization.k8s.io/v1, rule resolution.

Members of `system:masters` may do everything. Roles and bindings are read from the store, decoded once per
change.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from ambit.local.apiserver.access.credentials import MASTERS
from ambit.local.apiserver.access.tokens import User
from ambit.local.apiserver.storage.store import Event, Json, Store

_GROUP = "rbac.authorization.k8s.io"


class Action(msgspec.Struct, frozen=True):
    """What is asked for: a resource, or a path when `path` is set."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Decision(msgspec.Struct, frozen=True):
    allowed: bool
    reason: str = ""


class Authorizer:
    """Evaluates rules over the stored roles and bindings."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: dict[str, list[Json]] = {}
        store.on_change.append(self._changed)

    def _changed(self, storage: str, event: Event) -> None:
        self._cache.pop(storage, None)

    def _all(self, plural: str) -> list[Json]:
        storage = f"{plural}.{_GROUP}"
        found = self._cache.get(storage)
        if found is None:
            found = self._cache[storage] = [entry.decode() for entry in self._store.select(storage)]
        return found

    def decide(self, user: User, action: Action) -> Decision:
        """Allowed with the binding that allows it, or not."""
        if MASTERS in user.groups:
            return Decision(True, f"member of {MASTERS}")
        for rule, reason in self.rules(user, action.namespace):
            if _covers(rule, action):
                return Decision(True, reason)
        return Decision(False, "no RBAC rule allows it")

    def rules(self, user: User, namespace: str) -> Iterator[tuple[Json, str]]:
        """All rules that hold for the user in the namespace (and cluster-wide), each with its reason."""
        for binding in self._all("clusterrolebindings"):
            if _binds(binding, user, ""):
                yield from self._role_rules(binding, "")
        if namespace:
            for binding in self._all("rolebindings"):
                if binding["metadata"]["namespace"] == namespace and _binds(binding, user, namespace):
                    yield from self._role_rules(binding, namespace)

    def _role_rules(self, binding: Json, namespace: str) -> Iterator[tuple[Json, str]]:
        reference = binding.get("roleRef") or {}
        plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
        home = "" if plural == "clusterroles" else namespace
        for role in self._all(plural):
            if role["metadata"]["name"] != reference.get("name"):
                continue
            if role["metadata"].get("namespace", "") != home:
                continue
            reason = f"RBAC: allowed by {binding['kind']} {binding['metadata']['name']}"
            for rule in role.get("rules") or ():
                yield rule, reason


def _binds(binding: Json, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        match subject.get("kind"):
            case "User" if subject.get("name") == user.name:
                return True
            case "Group" if subject.get("name") in user.groups:
                return True
            case "ServiceAccount":
                home = subject.get("namespace") or namespace
                if user.name == f"system:serviceaccount:{home}:{subject.get('name')}":
                    return True
            case _:
                continue
    return False


def _covers(rule: Json, action: Action) -> bool:
    verbs = rule.get("verbs") or ()
    if action.verb not in verbs and "*" not in verbs:
        return False
    if action.path:
        return any(_path_fits(pattern, action.path) for pattern in rule.get("nonResourceURLs") or ())
    groups = rule.get("apiGroups") or ()
    if action.group not in groups and "*" not in groups:
        return False
    names = rule.get("resourceNames")
    return _resource_fits(rule.get("resources") or (), action) and (not names or action.name in names)


def _resource_fits(resources: Any, action: Action) -> bool:
    full = f"{action.resource}/{action.subresource}" if action.subresource else action.resource
    return any(
        one in {"*", full} or (action.subresource and one == f"*/{action.subresource}") for one in resources
    )


def _path_fits(pattern: str, path: str) -> bool:
    return pattern in {"*", path} or (pattern.endswith("*") and path.startswith(pattern[:-1]))
