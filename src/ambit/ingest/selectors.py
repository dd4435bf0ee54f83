"""Policies by what they select, for workloads: a policy that changes wakes the workloads that carry its first label.

Workloads depend on the label keys that selectors of their namespace use, which seldom change, and on the entries of
their own labels with these keys. So a workload where no policy selects any costs one dependency.
"""

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

import msgspec

from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.selection import label_entries, selector_entry, selects


class _Selecting(Protocol):
    @property
    def namespace(self) -> str: ...

    @property
    def selector(self) -> dict[str, str]: ...


S = TypeVar("S", bound=_Selecting)


class _Key(msgspec.Struct, frozen=True):
    """A label key by which a selector of this namespace is filed."""

    namespace: str
    label: str


class Selectors(Generic[S]):
    """Of one kind of policies. Those with an empty selector are not found here."""

    def __init__(self, graph: Graph, policies: Collection[S]) -> None:
        keys = graph.derive_many(f"label keys of {policies.name}", policies, lambda _, given: _keys(given))
        self._keys = keys.index(lambda each: [each.namespace])
        self._policies = policies.index(
            lambda each: [selector_entry(each.namespace, each.selector)] if each.selector else []
        )

    def selecting(self, context: Context, namespace: str, labels: Mapping[str, str]) -> list[S]:
        """The policies of a namespace that select a workload with these labels."""
        used = {each.label for each in context.lookup(self._keys, namespace)}
        own = {key: value for key, value in labels.items() if key in used}
        return [
            each
            for entry in label_entries(namespace, own)
            for each in context.lookup(self._policies, entry)
            if selects(each.selector, labels)
        ]


def _keys(given: _Selecting) -> dict[str, _Key]:
    if not given.selector:
        return {}
    key = _Key(given.namespace, min(given.selector))
    return {f"{key.namespace}/{key.label}": key}
