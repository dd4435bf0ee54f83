"""Who may see a ServiceEntry (Istio 1.31: `meshConfig.serviceEntryVisibility`, `serviceentry_visibility.go`).

- The first policy counts all of whose selectors match the labels of the entry's namespace; one without selectors
  matches every namespace. When none matches, the default counts.
- What the mesh's settings allow is the most: an entry whose `exportTo` says less is seen by fewer. None is nobody.
- An entry that others do not see is absent for them: it takes no name or address from anybody.
"""

import msgspec

from ambit.core.selector import Selector
from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.model.service import Visibility
from ambit.model.status import Condition
from ambit.objects.kube import Namespace
from ambit.objects.networking import ServiceEntry

VISIBILITY_APPLIED = "istio.io/VisibilityApplied"
_TOLD = {
    Visibility.PUBLIC: ("Public", "every namespace sees its hosts"),
    Visibility.NAMESPACE: ("Namespace", "only its own namespace sees its hosts"),
    None: ("None", "nobody sees its hosts"),
}


class VisibilityPolicy(msgspec.Struct, frozen=True):
    """For the namespaces that all `selectors` match; `visibility` is None for nobody."""

    visibility: Visibility | None
    selectors: tuple[Selector, ...] = ()


class EntryVisibility(msgspec.Struct, frozen=True):
    """What the mesh's settings say of all ServiceEntries."""

    default: Visibility | None = Visibility.PUBLIC
    policies: tuple[VisibilityPolicy, ...] = ()

    def of(self, labels: dict[str, str]) -> Visibility | None:
        """The most that an entry of a namespace with these labels may have."""
        for policy in self.policies:
            if all(each.matches(labels) for each in policy.selectors):
                return policy.visibility
        return self.default


def exported(given: ServiceEntry) -> Visibility | None:
    """What `exportTo` says; names of other namespaces count as everybody."""
    if given.spec.export_to == ("~",):
        return None
    namespaces = {each for each in given.spec.export_to if each != "~"}
    if namespaces and namespaces <= {".", given.metadata.namespace}:
        return Visibility.NAMESPACE
    return Visibility.PUBLIC


def narrower(one: Visibility | None, other: Visibility | None) -> Visibility | None:
    """What both allow."""
    return None if one is None or other is None else max(one, other)


class Visibilities:
    """Answers read through the context, so they are asked again when labels of a namespace change."""

    def __init__(self, namespaces: Collection[Namespace], settings: EntryVisibility | None) -> None:
        self._namespaces = namespaces
        self._settings = settings

    def allowed(self, context: Context, namespace: str) -> Visibility | None:
        """What the mesh's settings allow the entries of a namespace."""
        if self._settings is None:
            return Visibility.PUBLIC
        found = context.get(self._namespaces, namespace)
        return self._settings.of(found.metadata.labels if found is not None else {})

    def of_entry(self, context: Context, given: ServiceEntry) -> Visibility | None:
        """Who sees an entry."""
        return narrower(exported(given), self.allowed(context, given.metadata.namespace))

    def condition(self, context: Context, given: ServiceEntry) -> Condition | None:
        """What the entry's status is to say; None when the mesh's settings say nothing about visibility. Istio's says
        nothing of an entry that nobody sees."""
        if self._settings is None:
            return None
        reason, message = _TOLD[self.of_entry(context, given)]
        return Condition(VISIBILITY_APPLIED, "True", reason, message)
