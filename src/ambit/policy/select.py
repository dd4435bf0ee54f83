"""Which policies apply to a destination workload.

The set is: NAMESPACE policies of its namespace, GLOBAL policies, and the policies it names itself
(selector-scoped ones, and the converted forms of PeerAuthentication). A name that is unknown is reported,
and `decide` denies for it.
"""

from collections.abc import Iterable

import msgspec

from ambit.model.policy import Authorization, Scope
from ambit.model.workload import Workload


class Selection(msgspec.Struct, frozen=True):
    """Policies that apply, ordered by key, and names that are not known."""

    policies: tuple[Authorization, ...]
    missing: tuple[str, ...] = ()


class PolicyBook:
    """Known policies by key and scope. Built once for many workloads; `set` and `remove` keep it current."""

    def __init__(self, policies: Iterable[Authorization] = ()) -> None:
        self._by_key: dict[str, Authorization] = {}
        self._global: dict[str, None] = {}
        self._namespaces: dict[str, dict[str, None]] = {}
        for policy in policies:
            self.set(policy)

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: str) -> Authorization | None:
        return self._by_key.get(key)

    def set(self, policy: Authorization) -> None:
        """Adds a policy, or replaces the one of the same key."""
        self.remove(policy.key)
        self._by_key[policy.key] = policy
        if policy.scope is Scope.GLOBAL:
            self._global[policy.key] = None
        elif policy.scope is Scope.NAMESPACE:
            self._namespaces.setdefault(policy.namespace, {})[policy.key] = None

    def remove(self, key: str) -> None:
        policy = self._by_key.pop(key, None)
        if policy is None:
            return
        self._global.pop(key, None)
        members = self._namespaces.get(policy.namespace)
        if members is not None:
            members.pop(key, None)
            if not members:
                del self._namespaces[policy.namespace]

    def applies(self, workload: Workload) -> Selection:
        """The policies to ask for a connection to this workload."""
        keys = {*self._global, *self._namespaces.get(workload.namespace, ()), *workload.policies}
        known = sorted(key for key in keys if key in self._by_key)
        missing = tuple(sorted(key for key in keys if key not in self._by_key))
        return Selection(tuple(self._by_key[key] for key in known), missing)
