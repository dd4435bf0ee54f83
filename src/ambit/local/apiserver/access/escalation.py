"""Nobody grants more than they hold, or creates by a patch what they may not create.

Roles and bindings are checked against the writer's own rules.

Spec: RBAC "Privilege escalation prevention". The verbs `escalate` and `bind` are the written exceptions.
"""

from itertools import product

from ambit.local.apiserver.access.rbac import Action, Authorizer
from ambit.local.apiserver.access.tokens import User
from ambit.local.apiserver.failures import forbidden
from ambit.local.apiserver.resources import Resource
from ambit.local.apiserver.storage.store import Json, Store

GROUP = "rbac.authorization.k8s.io"


class Escalation:
    """Refuses writes that would give rights the writer does not have."""

    def __init__(self, store: Store, authorizer: Authorizer) -> None:
        self._store = store
        self._authorizer = authorizer

    def check(self, resource: Resource, namespace: str, body: Json, user: User) -> None:
        """Raises ApiFailure 403. Other kinds than roles and bindings pass."""
        if resource.group != GROUP:
            return
        name = (body.get("metadata") or {}).get("name") or ""
        if resource.plural in {"roles", "clusterroles"}:
            excuse, rules = ("escalate", resource.plural, name), body.get("rules") or []
        else:
            reference = body.get("roleRef") or {}
            plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
            home = "" if plural == "clusterroles" else namespace
            role = self._store.get(f"{plural}.{GROUP}", home, reference.get("name") or "")
            excuse = ("bind", plural, reference.get("name") or "")
            rules = (role.decode().get("rules") or []) if role else []
        verb, plural, target = excuse
        if self._authorizer.decide(user, Action(verb, GROUP, plural, "", namespace, target)).allowed:
            return
        for rule in rules:
            missing = self._missing(rule, namespace, user)
            if missing is not None:
                what = missing.path or f"{missing.resource} in group {missing.group!r}"
                why = f'user "{user.name}" is attempting to grant a right not currently held: {missing.verb} {what}'
                raise forbidden(resource.plural, resource.group, name, why)

    def check_create(self, resource: Resource, namespace: str, name: str, user: User) -> None:
        """An apply that creates an object needs the verb `create` as well (server-side apply, "API access"). Raises
        ApiFailure 403."""
        action = Action("create", resource.group, resource.plural, "", namespace, name)
        if not self._authorizer.decide(user, action).allowed:
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            group = f'API group "{resource.group}"'
            why = f'User "{user.name}" cannot create resource "{resource.plural}" in {group}{where}'
            raise forbidden(resource.plural, resource.group, name, why)

    def _missing(self, rule: Json, namespace: str, user: User) -> Action | None:
        """The first part of a rule that the user may not do."""
        actions = [
            Action(verb, path=path)
            for verb, path in product(rule.get("verbs") or (), rule.get("nonResourceURLs") or ())
        ]
        parts = (rule.get("verbs") or (), rule.get("apiGroups") or (), rule.get("resources") or ())
        for verb, group, resource in product(*parts):
            plural, _, subresource = resource.partition("/")
            names = rule.get("resourceNames") or ("",)
            actions += [Action(verb, group, plural, subresource, namespace, name) for name in names]
        return next((one for one in actions if not self._authorizer.decide(user, one).allowed), None)
