"""ReferenceGrants that let RequestAuthentications name Services of other namespaces."""

from collections.abc import Callable, Collection, Mapping

from ambit.ingest.gateway.references import is_granted_to
from ambit.objects.gateway import ReferenceGrant

GROUP, KIND = "security.istio.io", "RequestAuthentication"


class KeyGrants:
    """Decides by the grants that `items` holds; `changed` gets the namespaces for which they changed."""

    def __init__(
        self,
        items: Mapping[tuple[str, str], ReferenceGrant],
        changed: Callable[[Collection[str]], None],
    ) -> None:
        self._items = items
        self._changed = changed

    def is_granted(self, namespace: str, service_namespace: str, service: str) -> bool:
        """Whether RequestAuthentications of `namespace` may name this Service."""
        there = [each for (where, _), each in self._items.items() if where == service_namespace]
        return is_granted_to(there, KIND, namespace, "", "Service", service, GROUP)

    def observed(self, _: str, old: ReferenceGrant | None, new: ReferenceGrant | None) -> None:
        """Subscriber of the grants."""
        found = {
            source.namespace
            for each in (old, new)
            if each is not None
            for source in each.spec.sources
            if (source.group, source.kind) == (GROUP, KIND)
        }
        if found:
            self._changed(found)
