"""Acting as somebody else: `kubectl --as`, `--as-group`. Needs the verb `impersonate` on each part asked for.

Spec: Kubernetes "User impersonation".
"""

from collections.abc import Mapping
from urllib.parse import unquote

from ambit.local.apiserver.access.rbac import Action, Authorizer
from ambit.local.apiserver.access.tokens import User, service_account
from ambit.local.apiserver.failures import bad_request, forbidden

_PREFIX = "system:serviceaccount:"
_EXTRA = "impersonate-extra-"


def impersonate(user: User, headers: Mapping[str, str], groups: list[str], authorizer: Authorizer) -> User:
    """The user that the headers name, or `user` itself. `groups` are all values of Impersonate-Group.

    Raises ApiFailure 400 or 403.
    """
    name, uid = headers.get("Impersonate-User", ""), headers.get("Impersonate-Uid", "")
    extra = {
        unquote(key[len(_EXTRA) :]).lower(): [value]
        for key, value in headers.items()
        if key.lower().startswith(_EXTRA)
    }
    if not name:
        if groups or uid or extra:
            raise bad_request("requested impersonation without impersonating a user")
        return user
    asked = [_user_action(name), *(Action("impersonate", resource="groups", name=one) for one in groups)]
    if uid:
        asked.append(Action("impersonate", "authentication.k8s.io", "uids", name=uid))
    for key, values in extra.items():
        asked += [
            Action("impersonate", "authentication.k8s.io", "userextras", key, name=value) for value in values
        ]
    for action in asked:
        if not authorizer.decide(user, action).allowed:
            why = f'User "{user.name}" cannot impersonate resource "{action.resource}" in API group "{action.group}"'
            raise forbidden(action.resource, action.group, action.name, why)
    if name.startswith(_PREFIX) and not groups and name.count(":") == 3:
        _, _, namespace, account = name.split(":")
        return service_account(namespace, account, uid, extra)
    return User(name, tuple(dict.fromkeys([*groups, "system:authenticated"])), uid, extra)


def _user_action(name: str) -> Action:
    if name.startswith(_PREFIX) and name.count(":") == 3:
        _, _, namespace, account = name.split(":")
        return Action("impersonate", resource="serviceaccounts", namespace=namespace, name=account)
    return Action("impersonate", resource="users", name=name)
